//! The environment variables of huggingface_hub, which its own documentation explains.

use std::path::{Path, PathBuf};

use curmerge_formats::input;

use crate::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";
/// The longest file with a token that is read, in bytes.
const MAX_TOKEN: u64 = 1 << 16;

/// Where the Hub is, and what is known of the user.
#[derive(Clone)]
pub(super) struct Settings {
    /// The address of the Hub, without a slash at its end.
    pub(super) endpoint: String,
    /// The cache folder.
    pub(super) cache: PathBuf,
    /// The user's token.
    pub(super) token: Option<String>,
    /// The variable that forbids to use the network.
    pub(super) offline: Option<&'static str>,
}

/// Without the token.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, cache, token: _, offline } = self;
        f.debug_struct("Settings")
            .field("endpoint", endpoint)
            .field("cache", cache)
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn from_environment() -> Result<Self> {
        Self::from_variables(&|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// The settings of these variables. One that is empty counts as not set.
    fn from_variables(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.as_os_str().is_empty());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().trim().to_owned());
        let folder = |name: &str| variable(name).map(|value| with_home(&value));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let problem = format!("HF_ENDPOINT '{}' is no address", endpoint.escape_debug());
            return Err(Error::request(problem, format!("give one such as {ENDPOINT}, or unset it")));
        }
        let caches = || Some(folder("XDG_CACHE_HOME").unwrap_or(etcetera::home_dir().ok()?.join(".cache")));
        let home = || folder("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home()?.join("hub")))
            .ok_or_else(|| {
                Error::request("you have no home folder for the Hub's cache", "set HF_HUB_CACHE")
            })?;
        let named = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let stored = || {
            let file = folder("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")))?;
            let bytes = input::read(&file, MAX_TOKEN).ok()?;
            Some(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        let is_on = |name: &&str| {
            text(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
            })
        };
        let implicit = || if is_on(&"HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { named.or_else(stored) };
        let token = implicit().filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let help = "copy it again from the settings of your account, or log in with `hf auth login`";
            return Err(Error::request("the token for the Hub has characters that no token has", help));
        }
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            cache,
            token,
            // The first that is set decides.
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .into_iter()
                .find(|name| text(name).is_some())
                .filter(is_on),
        })
    }
}

/// The path with the home folder for `~`.
fn with_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), etcetera::home_dir()) {
        (Ok(rest), Ok(home)) => home.join(rest),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let home = etcetera::home_dir().unwrap();
        let cases: [(&[(&str, &str)], PathBuf); 6] = [
            (&[], home.join(".cache/huggingface/hub")),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub".into()),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub".into()),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c".into()),
            (&[("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", "/d")], "/d".into()),
            (&[("HF_HUB_CACHE", "~/c")], home.join("c")),
        ];
        for (variables, cache) in cases {
            assert_eq!(of(variables).unwrap().cache, cache, "{variables:?}");
        }
    }

    #[test]
    fn the_token_is_the_variable_s_or_the_file_s() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let other = folder.path().join("other");
        std::fs::write(folder.path().join("token"), "hf_stored\n").unwrap();
        std::fs::write(&other, "hf_other").unwrap();
        let token = |variables: &[(&str, &str)]| of(variables).unwrap().token;
        assert_eq!(token(&[("HF_HOME", home)]).unwrap(), "hf_stored");
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())]).unwrap(),
            "hf_other"
        );
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " hf_named ")]).unwrap(), "hf_named");
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/nonexistent")]), None);
        let error = of(&[("HF_TOKEN", "hf_a\nb: c")]).unwrap_err().to_string();
        assert!(!error.contains("hf_a"), "{error}");
        let shown = format!("{:?}", of(&[("HF_TOKEN", "hf_secret")]).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_endpoint_is_an_address() {
        assert_eq!(of(&[]).unwrap().endpoint, ENDPOINT);
        assert_eq!(of(&[("HF_ENDPOINT", "http://a:1/b/")]).unwrap().endpoint, "http://a:1/b");
        assert!(of(&[("HF_ENDPOINT", "a")]).unwrap_err().to_string().contains("HF_ENDPOINT"));
    }

    #[test]
    fn offline_is_said_in_two_ways() {
        assert_eq!(of(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline, None);
        assert_eq!(of(&[("HF_HUB_OFFLINE", "True")]).unwrap().offline, Some("HF_HUB_OFFLINE"));
        assert_eq!(of(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline, Some("TRANSFORMERS_OFFLINE"));
    }
}
