//! One HTTP request and its answer. Redirects and statuses are the client's part.

use std::time::Duration;

use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use super::{Method, Reply};

const CONNECT: Duration = Duration::from_secs(10);
/// For each part of an answer: a connection that sends nothing for so long is dead.
const READ: Duration = Duration::from_secs(30);

/// The connections to the Hub and to the servers that it sends us to.
#[derive(Debug)]
pub(super) struct Transport(Agent);

impl Transport {
    /// With the certificates that the system trusts, or those of `SSL_CERT_FILE`, and the proxies of `HTTPS_PROXY`,
    /// `ALL_PROXY` and `NO_PROXY`.
    pub(super) fn new() -> Self {
        let found = rustls_native_certs::load_native_certs().certs;
        let roots = match found.as_slice() {
            // A container without certificates: Mozilla's, which the program carries.
            [] => RootCerts::WebPki,
            found => found.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).into(),
        };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(Proxy::try_from_env())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("curmerge/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(READ))
            .build();
        Self(config.new_agent())
    }

    /// Sends a request. An error is that of the connection, in words.
    pub(super) fn send(
        &self,
        method: Method,
        address: &str,
        headers: &[(&str, String)],
    ) -> Result<Reply, String> {
        let word = match method {
            Method::Head => "HEAD",
            Method::Get => "GET",
        };
        let mut request = Request::builder().method(word).uri(address);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(()).map_err(|e| e.to_string())?;
        let words = |error| match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        let (head, body) = self.0.run(request).map_err(words)?.into_parts();
        let body = Box::new(body.into_reader());
        Ok(Reply { status: head.status.as_u16(), headers: texts(&head.headers), body })
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}
