//! The header's JSON, with every name checked to occur once: the crate `safetensors` keeps the last of two
//! tensors of one name.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::METADATA;
use crate::error::quoted;

/// What the header says of one tensor.
#[derive(Deserialize)]
pub(super) struct Entry {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    /// Begin and end, from the start of the data.
    pub(super) data_offsets: (u64, u64),
}

/// What the header says of each tensor.
#[derive(Default)]
pub(super) struct Header {
    pub(super) entries: BTreeMap<String, Entry>,
}

impl Header {
    /// Reads the header, which may be followed by white space only.
    pub(super) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA {
                insert_once(&mut header.entries, name, map.next_value()?)?;
            } else if metadata.replace(map.next_value::<Option<Unique<String>>>()?).is_some() {
                return Err(twice(METADATA));
            }
        }
        Ok(header)
    }
}

/// A JSON object in which each name occurs once.
pub(crate) struct Unique<T>(pub(crate) BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
    type Value = Unique<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            insert_once(&mut members, name, value)?;
        }
        Ok(Unique(members))
    }
}

fn insert_once<T, E: Error>(members: &mut BTreeMap<String, T>, name: String, value: T) -> Result<(), E> {
    if members.contains_key(&name) {
        return Err(twice(&name));
    }
    members.insert(name, value);
    Ok(())
}

fn twice<E: Error>(name: &str) -> E {
    E::custom(format_args!("{} occurs twice", quoted(name)))
}
