//! What an object file says of itself: the name it was put under, in its sealed index.
//!
//! A name is bound to a file twice: the catalog has the file's id and MAC, and the file has the name. A file in the
//! place of another is found out by either.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Kind, SectionType};
use crate::store::index::read_section;
use crate::store::sealed_file::SealedFile;
use crate::store::stream::Reader;
use crate::tensor::TensorTable;

/// Name and words of the owner, as JSON.
pub(super) const DESCRIPTOR: SectionType = SectionType(32);
/// The safetensors header of an object that is a set of tensors.
pub(super) const TENSORS: SectionType = SectionType(33);
/// Longest name, as S3 has it.
const NAME_BYTES_MAX: usize = 1024;
const DESCRIPTOR_BYTES_MAX: usize = 64 << 10;

/// The descriptor of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Descriptor {
    pub(super) name: String,
    /// This version says that the object was deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
}

impl Descriptor {
    /// The JSON.
    ///
    /// # Errors
    /// `Misuse` when it is too long.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let misuse = |why: String| Error::new(ErrorKind::Misuse, "put", why);
        let json = serde_json::to_vec(self).map_err(|error| misuse(error.to_string()))?;
        if json.len() > DESCRIPTOR_BYTES_MAX {
            let why = format!("metadata of {} bytes, at most {DESCRIPTOR_BYTES_MAX}", json.len());
            return Err(misuse(why).hint("put what is long into an object of its own"));
        }
        Ok(json)
    }

    /// Reads and checks the descriptor of `file`.
    ///
    /// # Errors
    /// `Corrupt` when the file is no object or has none, else as the device and the authentication say.
    pub(super) fn read(file: &SealedFile, reader: &Reader<'_>) -> Result<Self> {
        let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, "open", why).at(file.path());
        if file.header().params.kind != Kind::Object {
            return Err(corrupt("this is no object"));
        }
        let json = read_section(file, reader, DESCRIPTOR)?.filter(|json| json.len() <= DESCRIPTOR_BYTES_MAX);
        let json = json.ok_or_else(|| corrupt("the object has no descriptor"))?;
        let descriptor: Self =
            serde_json::from_slice(&json).map_err(|_| corrupt("the descriptor is malformed"))?;
        check_name(&descriptor.name).map_err(|_| corrupt("the descriptor's name is none"))?;
        Ok(descriptor)
    }
}

/// Reads and checks the tensors of `file`; none when it is not a set of them.
pub(super) fn read_tensors(file: &SealedFile, reader: &Reader<'_>) -> Result<Option<TensorTable>> {
    let Some(header) = read_section(file, reader, TENSORS)? else { return Ok(None) };
    TensorTable::parse(header.to_vec()).map(Some).map_err(|error| error.at(file.path()))
}

/// Whether an object can have this name.
///
/// # Errors
/// `Misuse` with the reason.
pub(super) fn check_name(name: &str) -> Result<()> {
    let why = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        format!("a name of {} bytes, expected 1 to {NAME_BYTES_MAX}", name.len())
    } else if name.chars().any(char::is_control) {
        format!("the name `{}` has control characters", name.escape_debug())
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Misuse, "put", why))
}
