//! The wrap slots of a header: the data key under up to four key-encryption keys, each in a sector of its own.
//!
//! They change after a file is written, and nothing authenticates them but the wraps themselves: what does not parse is
//! said to be damaged and left to the reader, who may have another slot.

use tierstream_crypto::{Cipher, FINGERPRINT_BYTES, KEK_NAME_BYTES_MAX, KekId, WrappedKey};

use super::HEADER_BYTES;
use super::fields::{array, is_zero, put, u32_at};

/// Keys under which one file can be opened at a time.
pub const WRAP_SLOTS: usize = 4;

const SLOTS_AT: usize = 2048;
const SLOT_BYTES: usize = 512;

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrapSlot {
    /// Nothing.
    Empty,
    /// The data key under this key-encryption key, if the tag says so too.
    InUse(WrappedKey),
    /// Neither; and why.
    Damaged(String),
}

/// The slots of a header, in order.
#[must_use]
pub fn wrap_slots(header: &[u8; HEADER_BYTES]) -> [WrapSlot; WRAP_SLOTS] {
    std::array::from_fn(|number| {
        let start = SLOTS_AT + number * SLOT_BYTES;
        let slot = &header[start..start + SLOT_BYTES];
        match slot[0] {
            0 if is_zero(slot) => WrapSlot::Empty,
            1 => parse_slot(slot).map_or_else(WrapSlot::Damaged, WrapSlot::InUse),
            _ => WrapSlot::Damaged("neither empty nor in use".to_owned()),
        }
    })
}

/// Puts a wrap into slot `number`, or empties it.
///
/// # Panics
/// When there is no such slot.
pub fn put_wrap(header: &mut [u8; HEADER_BYTES], number: usize, wrap: Option<&WrappedKey>) {
    assert!(number < WRAP_SLOTS, "slot {number} of {WRAP_SLOTS}");
    let start = SLOTS_AT + number * SLOT_BYTES;
    let slot = &mut header[start..start + SLOT_BYTES];
    slot.fill(0);
    if let Some(wrap) = wrap {
        encode_slot(wrap, slot);
    }
}

/// The wraps in use, and what is wrong with damaged slots.
pub(super) fn parse(header: &[u8; HEADER_BYTES]) -> (Vec<WrappedKey>, Vec<String>) {
    let (mut wraps, mut damaged) = (Vec::with_capacity(WRAP_SLOTS), Vec::new());
    for (number, slot) in wrap_slots(header).into_iter().enumerate() {
        match slot {
            WrapSlot::Empty => {}
            WrapSlot::InUse(wrap) => wraps.push(wrap),
            WrapSlot::Damaged(why) => damaged.push(format!("wrap slot {number} is damaged: {why}")),
        }
    }
    (wraps, damaged)
}

fn parse_slot(slot: &[u8]) -> std::result::Result<WrappedKey, String> {
    let cipher = Cipher::from_id(slot[1]).ok_or_else(|| format!("cipher {}", slot[1]))?;
    let (name_bytes, key_bytes) = (usize::from(slot[2]), usize::from(slot[3]));
    if name_bytes == 0 || name_bytes > KEK_NAME_BYTES_MAX || !is_zero(&slot[8 + name_bytes..72]) {
        return Err(format!("key name of {name_bytes} bytes"));
    }
    let name =
        std::str::from_utf8(&slot[8..8 + name_bytes]).map_err(|_| "key name is not UTF-8".to_owned())?;
    if name.chars().any(char::is_control) {
        return Err("key name has control characters".to_owned());
    }
    if key_bytes != cipher.key_bytes() || !is_zero(&slot[100 + key_bytes..132]) || !is_zero(&slot[148..]) {
        return Err(format!("data key of {key_bytes} bytes for {cipher}"));
    }
    Ok(WrappedKey {
        kek: KekId {
            name: name.to_owned(),
            version: u32_at(slot, 4),
            fingerprint: array::<FINGERPRINT_BYTES>(slot, 72),
        },
        cipher,
        nonce: array(slot, 88),
        sealed: slot[100..100 + key_bytes].to_vec(),
        tag: array(slot, 132),
    })
}

fn encode_slot(wrap: &WrappedKey, slot: &mut [u8]) {
    slot[0] = 1;
    slot[1] = wrap.cipher.id();
    slot[2] = u8::try_from(wrap.kek.name.len()).expect("a name of at most 64 bytes");
    slot[3] = u8::try_from(wrap.sealed.len()).expect("a key of at most 32 bytes");
    put(slot, 4, &wrap.kek.version.to_le_bytes());
    put(slot, 8, wrap.kek.name.as_bytes());
    put(slot, 72, &wrap.kek.fingerprint);
    put(slot, 88, &wrap.nonce);
    put(slot, 100, &wrap.sealed);
    put(slot, 132, &wrap.tag);
}

const _: () = assert!(SLOTS_AT + WRAP_SLOTS * SLOT_BYTES == HEADER_BYTES);
