//! Headers with their keys: unwrapping, commitment and MAC on the way in, wrapping on the way out.

use std::sync::Arc;

use tierstream_crypto::{DataKey, ErrorKind as CryptoKind, FileKeys, KeyProvider, MAC_BYTES};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{HEADER_BYTES, Header, SealParams};

/// A header that was authenticated, with the keys of its file.
#[derive(Clone, Debug)]
pub struct SealedHeader {
    /// The header: every field of it is as it was written.
    pub header: Header,
    /// Its MAC, which binds it in a manifest.
    pub mac: [u8; MAC_BYTES],
    /// The keys of its file.
    pub keys: Arc<FileKeys>,
}

/// Parses and authenticates a header.
///
/// # Errors
/// `Missing` when none of its keys is at hand, `Corrupt` when it is damaged or forged, else as [`Header::parse`].
pub fn open_header(bytes: &[u8; HEADER_BYTES], provider: &dyn KeyProvider) -> Result<SealedHeader> {
    authenticate(bytes, provider).map(|(sealed, _)| sealed)
}

/// As [`open_header`], with the data key, to wrap it under another key.
pub(super) fn authenticate(
    bytes: &[u8; HEADER_BYTES],
    provider: &dyn KeyProvider,
) -> Result<(SealedHeader, DataKey)> {
    let (header, mac) = Header::parse(bytes)?;
    let prologue = header.params.prologue(header.minor);
    let key = unwrap_any(&header, provider, &prologue)?;
    if key.cipher() != header.params.cipher {
        let why = format!("a data key for {} in a file sealed with {}", key.cipher(), header.params.cipher);
        return Err(Error::new(ErrorKind::Corrupt, "open", why));
    }
    let keys = FileKeys::derive(&key, &header.params.file_id.0, &prologue);
    keys.check_commitment(&header.commitment)?;
    keys.check_mac(Header::maced(bytes), &mac)?;
    Ok((SealedHeader { header, mac, keys: Arc::new(keys) }, key))
}

/// Tries each wrap; what the last one says is the most useful answer, except that damage outweighs absence.
fn unwrap_any(header: &Header, provider: &dyn KeyProvider, prologue: &[u8]) -> Result<DataKey> {
    let mut refusal: Option<tierstream_crypto::Error> = None;
    for wrap in &header.wraps {
        match provider.unwrap(wrap, prologue) {
            Ok(key) => return Ok(key),
            Err(error) if refusal.as_ref().is_some_and(|known| known.kind() == CryptoKind::Corrupt) => {
                drop(error)
            }
            Err(error) => refusal = Some(error),
        }
    }
    match (refusal, header.damaged_slots.first()) {
        (Some(refusal), _) if refusal.kind() == CryptoKind::Missing => {
            Err(Error::from(refusal).hint("give the key that the data set was packed or rotated with (--key)"))
        }
        (Some(refusal), _) => Err(refusal.into()),
        (None, Some(damaged)) => Err(Error::new(ErrorKind::Corrupt, "open", damaged.as_str())),
        (None, None) => Err(Error::new(
            ErrorKind::Missing,
            "open",
            "the file has no wrapped key: it was shredded",
        )
        .hint("all its keys were destroyed (`tierstream keys destroy`): pack the data set again from its source")),
    }
}

/// Keys for a new file: its block cipher at once, its header at the end.
///
/// # Errors
/// `Device` when the kernel gives no random numbers, `Misuse` for parameters out of range.
pub fn seal_header(params: &SealParams, provider: &dyn KeyProvider) -> Result<Sealer> {
    params.check()?;
    let key = DataKey::random(params.cipher)?;
    let prologue = params.prologue(SealParams::minor());
    let wrap = provider.wrap(&key, &prologue)?;
    let keys = Arc::new(FileKeys::derive(&key, &params.file_id.0, &prologue));
    Ok(Sealer { keys, wrap, params: *params })
}

/// The keys of a file that is being written.
#[derive(Debug)]
pub struct Sealer {
    keys: Arc<FileKeys>,
    wrap: tierstream_crypto::WrappedKey,
    params: SealParams,
}

/// Sizes that are known once a file's payload and index are written.
#[derive(Clone, Copy, Debug)]
pub struct FinalSizes {
    /// Length of the payload.
    pub payload_bytes: u64,
    /// Records in it.
    pub record_count: u64,
    /// Where the index starts.
    pub index_offset: u64,
    /// Plain length of the index.
    pub index_bytes: u64,
}

impl Sealer {
    /// The keys of its blocks.
    #[must_use]
    pub fn keys(&self) -> &Arc<FileKeys> {
        &self.keys
    }

    /// The header for a file of these sizes, with its MAC.
    #[must_use]
    pub fn header(&self, sizes: FinalSizes) -> (Header, Box<[u8; HEADER_BYTES]>, [u8; MAC_BYTES]) {
        let header = Header {
            params: self.params,
            minor: SealParams::minor(),
            payload_bytes: sizes.payload_bytes,
            record_count: sizes.record_count,
            index_offset: sizes.index_offset,
            index_bytes: sizes.index_bytes,
            commitment: *self.keys.commitment(),
            wraps: vec![self.wrap.clone()],
            damaged_slots: Vec::new(),
        };
        let mut mac = [0; MAC_BYTES];
        let bytes = header.encode(|maced| {
            mac = self.keys.mac(maced);
            mac
        });
        (header, bytes, mac)
    }
}
