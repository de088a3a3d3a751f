//! The user's cache: `CURMERGE_CACHE`, `CURMERGE_CACHE_LIMIT`, and the results that commands keep in it.

use std::cell::OnceCell;
use std::path::PathBuf;

use curmerge_formats::SafeTensors;

use super::arguments::parse_size;
use super::report::terminal;
use crate::base::Base;
use crate::cache::{Cache, Cached, DEFAULT_LIMIT, Key};
use crate::cur::fingerprint;
use crate::model::Transformer;
use crate::{Error, Result};

const FOLDER: &str = "CURMERGE_CACHE";
const LIMIT: &str = "CURMERGE_CACHE_LIMIT";

/// The user's cache. `None` if there is no folder for it.
pub fn user_cache() -> Result<Option<Cache>> {
    let limit = match std::env::var(LIMIT) {
        Ok(text) if !text.is_empty() => parse_size(&text)
            .map_err(|help| Error::request(format!("{LIMIT} {text:?} is not a size"), help))?,
        _ => DEFAULT_LIMIT,
    };
    let named = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    Ok(named.or_else(Cache::default_folder).map(|folder| Cache::new(folder, limit)))
}

/// Results about one base, kept from one run to the next.
#[derive(Debug)]
pub struct Kept<'b> {
    base: &'b Base,
    cache: Option<Cache>,
    /// The digest of the base's tensors, taken when first needed.
    base_sha256: OnceCell<String>,
}

impl<'b> Kept<'b> {
    /// With `no_cache`, nothing is kept.
    pub fn new(base: &'b Base, no_cache: bool) -> Result<Self> {
        let cache = if no_cache { None } else { user_cache()? };
        Ok(Self { base, cache, base_sha256: OnceCell::new() })
    }

    /// A key of a kind of result of this model over the base. `None` if nothing is kept.
    pub fn key(&self, kind: &'static str, model: &Transformer<'_, f32>) -> Option<Key> {
        self.cache.as_ref()?;
        let digest = self.base_sha256.get_or_init(|| fingerprint::base_sha256(self.base));
        let of = format!("{} ({})", self.base.name(), self.base.architecture_name());
        Some(Key::new(kind, of).with("base", digest).with("computation", model.computation()))
    }

    /// The result of this key, restored or made; see [`Cache::keep`]. Without a key it is made.
    pub fn result<T: Cached>(
        &self,
        key: Option<Key>,
        restore: impl FnOnce(&SafeTensors) -> Option<T>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match (&self.cache, key) {
            (Some(cache), Some(key)) => {
                cache.keep(&key, restore, make, |error| terminal::warn(&error.to_string()))
            }
            _ => make(),
        }
    }
}
