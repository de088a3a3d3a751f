//! Requests to the Hub: who gets the token, where redirects lead, which failures pass.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use super::Event;
use super::settings::Settings;
#[cfg_attr(not(feature = "hub"), path = "no_transport.rs")]
mod transport;

use transport::Transport;

const MAX_REDIRECTS: usize = 10;
/// Attempts at a request that a server may answer another time.
const ATTEMPTS: u32 = 4;
/// Attempts at a request that no server answers: the cache may have what is wanted.
const CONNECTIONS: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// A longer wait is told.
const UNTOLD_WAIT: Duration = Duration::from_secs(5);
/// The longest time that a server may ask to wait.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Method {
    /// What the Hub itself knows of a file: redirects to other hosts are not followed.
    Head,
    /// Content, wherever it is.
    Get,
}

/// An answer.
pub(in crate::hub) struct Reply {
    pub(in crate::hub) status: u16,
    /// By names in lower case.
    pub(in crate::hub) headers: Vec<(String, String)>,
    pub(in crate::hub) body: Box<dyn Read>,
}

impl Reply {
    /// The value of a header.
    pub(in crate::hub) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.trim())
    }

    /// How long the server asks to wait: `Retry-After: 5`, or `RateLimit: "api";r=0;t=5`.
    fn wait(&self) -> Option<Duration> {
        let limit = || self.header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="));
        self.header("retry-after").or_else(limit)?.parse().ok().map(Duration::from_secs)
    }

    fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, headers, body: _ } = self;
        f.debug_struct("Reply").field("status", status).field("headers", headers).finish_non_exhaustive()
    }
}

/// Why there is no answer to use.
#[derive(Debug)]
pub(in crate::hub) enum Failure {
    /// The network or the server fails. Another time may do.
    Unreachable(String),
    /// The server refuses.
    Refused {
        status: u16,
        /// The Hub's own word for it, such as `GatedRepo`.
        code: String,
        /// What the server says.
        message: String,
    },
}

/// The Hub, as this user sees it.
#[derive(Debug)]
pub(in crate::hub) struct Client {
    transport: Transport,
    settings: Settings,
}

impl Client {
    pub(in crate::hub) fn new(settings: Settings) -> Self {
        Self { transport: Transport::new(), settings }
    }

    /// The address of a path of the Hub, whose parts may have any characters.
    pub(in crate::hub) fn address(&self, parts: &[&str]) -> String {
        let parts: Vec<String> = parts.iter().map(|part| escaped(part)).collect();
        format!("{}/{}", self.settings.endpoint, parts.join("/"))
    }

    /// Whether the user has a token.
    pub(in crate::hub) fn has_token(&self) -> bool {
        self.settings.token.is_some()
    }

    /// The Hub's address.
    pub(in crate::hub) fn endpoint(&self) -> &str {
        &self.settings.endpoint
    }

    /// An answer with a status of success, or for [`Method::Head`] of a redirect to another host. `from` is the
    /// first byte that is wanted.
    pub(in crate::hub) fn request(
        &self,
        method: Method,
        address: &str,
        from: u64,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Reply, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (problem, attempts, asked) = match self.follow(method, address, from) {
                Err(problem) => (problem, CONNECTIONS, None),
                Ok(reply) if matches!(reply.status, 429 | 500 | 502 | 503 | 504) => {
                    (format!("status {}", reply.status), ATTEMPTS, reply.wait())
                }
                Ok(reply) if reply.status < 400 => return Ok(reply),
                Ok(reply) => {
                    let text = |name| reply.header(name).unwrap_or_default().to_owned();
                    let (code, message) = (text("x-error-code"), text("x-error-message"));
                    return Err(Failure::Refused { status: reply.status, code, message });
                }
            };
            let wait = asked.unwrap_or(FIRST_WAIT * 2u32.pow(attempt - 1));
            if attempt >= attempts || wait > MAX_WAIT {
                return Err(Failure::Unreachable(problem));
            }
            if wait > UNTOLD_WAIT {
                events(Event::Waiting { problem: &problem, wait });
            }
            std::thread::sleep(wait);
        }
    }

    /// The answer after redirects.
    fn follow(&self, method: Method, address: &str, from: u64) -> Result<Reply, String> {
        let mut address = address.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            // The size of the file, not of a compressed form.
            let mut headers = vec![("accept-encoding", "identity".to_owned())];
            if from > 0 {
                headers.push(("range", format!("bytes={from}-")));
            }
            // Storage at another host must not learn the token, and has its own signature in the address.
            let own = origin(&address) == origin(&self.settings.endpoint);
            if let (true, Some(token)) = (own, &self.settings.token) {
                headers.push(("authorization", format!("Bearer {token}")));
            }
            let reply = self.transport.send(method, &address, &headers)?;
            let Some(location) = reply.header("location").filter(|_| reply.is_redirect()) else {
                return match reply.is_redirect() {
                    true => Err(format!("a redirect from {} to nowhere", shown(&address))),
                    false => Ok(reply),
                };
            };
            let next = joined(&address, location);
            if method == Method::Head && origin(&next) != origin(&self.settings.endpoint) {
                return Ok(reply);
            }
            if address.starts_with("https:") && !next.starts_with("https:") {
                return Err(format!(
                    "a redirect from {} to {}, without encryption",
                    shown(&address),
                    shown(&next)
                ));
            }
            address = next;
        }
        Err(format!("more than {MAX_REDIRECTS} redirects, the last to {}", shown(&address)))
    }
}

/// A part of a path with the characters escaped that an address does not have. A slash stays.
fn escaped(part: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
    utf8_percent_encode(part, KEPT).to_string()
}

/// An address without what may be a secret of whoever may read it.
fn shown(address: &str) -> &str {
    address.split('?').next().unwrap_or_default()
}

/// Scheme, host and port of an address, in lower case.
fn origin(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}", host.strip_suffix(usual).unwrap_or(&host))
}

/// The address that a `Location` means to one who asked for this address.
fn joined(address: &str, location: &str) -> String {
    let scheme = address.split_once("://").map_or("https", |(scheme, _)| scheme);
    if location.contains("://") && !location.starts_with(['/', '?']) {
        return location.to_owned();
    }
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    if location.starts_with('/') {
        return origin(address) + location;
    }
    let path = shown(address);
    match path.rfind('/').filter(|&slash| slash > scheme.len() + 2) {
        Some(slash) => format!("{}/{location}", &path[..slash]),
        None => format!("{path}/{location}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_in_two_ways_how_long_to_wait() {
        let wait = |name: &str, value: &str| {
            let headers = vec![(name.to_owned(), value.to_owned())];
            Reply { status: 429, headers, body: Box::new(std::io::empty()) }.wait()
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("ratelimit", "\"api\";r=0; t=55"), Some(Duration::from_secs(55)));
        assert_eq!(wait("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }

    #[test]
    fn locations_are_read_as_browsers_do() {
        let from = "https://h:8/a/b?c=/d";
        for (location, to) in [
            ("http://x/y?z=1", "http://x/y?z=1"),
            ("//x/y", "https://x/y"),
            ("/x?y=http://z", "https://h:8/x?y=http://z"),
            ("x", "https://h:8/a/x"),
        ] {
            assert_eq!(joined(from, location), to);
        }
        assert_eq!(joined("https://h", "x"), "https://h/x");
    }

    #[test]
    fn origins_have_scheme_host_and_port() {
        assert_eq!(origin("HTTPS://Hub.co:443/x"), origin("https://hub.co"));
        assert_eq!(origin("http://hub.co:80?x"), origin("http://hub.co/"));
        for other in
            ["http://hub.co", "https://hub.co:444", "https://hub.co.evil", "https://evil/@hub.co", ""]
        {
            assert_ne!(origin(other), origin("https://hub.co/"), "{other}");
        }
    }

    #[test]
    fn addresses_have_no_free_characters() {
        assert_eq!(escaped("a b/ü?#%.gguf"), "a%20b/%C3%BC%3F%23%25.gguf");
    }
}
