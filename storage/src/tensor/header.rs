//! The JSON of a safetensors header, read strictly: a name or a field that stands twice is an error, not a choice.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// Longest header, as the format's reference implementation has it.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The length before the header, a u64 in little endian.
pub const LEN_BYTES: usize = 8;
pub(super) const METADATA: &str = "__metadata__";

/// A tensor as the header says it.
#[derive(Debug, serde::Deserialize)]
pub(super) struct RawTensor {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: [u64; 2],
}

/// A header as it was read; only its JSON was checked.
#[derive(Debug, Default)]
pub(super) struct RawHeader {
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) tensors: BTreeMap<String, RawTensor>,
}

/// A map from strings whose keys stand once.
struct Unique(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from strings to strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    insert(&mut found, key, value)?;
                }
                Ok(Unique(found))
            }
        }
        from.deserialize_map(Of)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA {
                        let tensor = map.next_value()?;
                        insert(&mut header.tensors, name, tensor)?;
                    } else if header.metadata.replace(map.next_value::<Unique>()?.0).is_some() {
                        return Err(twice(METADATA));
                    }
                }
                Ok(header)
            }
        }
        from.deserialize_map(Of)
    }
}

fn insert<T, E: de::Error>(map: &mut BTreeMap<String, T>, key: String, value: T) -> Result<(), E> {
    match map.entry(key) {
        Entry::Occupied(entry) => Err(twice(entry.key())),
        Entry::Vacant(entry) => {
            entry.insert(value);
            Ok(())
        }
    }
}

fn twice<E: de::Error>(name: &str) -> E {
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    E::custom(format!("`{name}` stands there twice"))
}
