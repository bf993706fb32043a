//! Headers under other keys: adding and removing wraps of a data key (docs/specs/format.md, section 4.1).
//!
//! Works on the bytes of one header; writing them so that a crash loses nothing is the store's business. Guarantees that
//! what it adds opens, and that what it removes was not the last way in unless that is asked for.

use tierstream_crypto::{KekId, KeyProvider};

use super::header::authenticate;
use super::open_header;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{HEADER_BYTES, Header, WRAP_SLOTS, WrapSlot, put_wrap, wrap_slots};

/// Adds a wrap under `new` to a header that `known` opens. Returns whether the header changed: not when `new` opens it
/// already.
///
/// # Errors
/// `Missing` when `known` does not open it, `Corrupt` when it is damaged or forged, `Full` when no slot is free.
pub fn add_wrap(
    bytes: &mut [u8; HEADER_BYTES],
    known: &dyn KeyProvider,
    new: &dyn KeyProvider,
) -> Result<bool> {
    if open_header(bytes, new).is_ok() {
        return Ok(false);
    }
    let (opened, key) = authenticate(bytes, known)?;
    let slots = wrap_slots(bytes);
    let damaged = |slot: &WrapSlot| matches!(slot, WrapSlot::Damaged(_));
    let free = slots.iter().position(|slot| *slot == WrapSlot::Empty);
    let Some(free) = free.or_else(|| slots.iter().position(damaged)) else {
        let names: Vec<String> = opened.header.wraps.iter().map(|wrap| wrap.kek.to_string()).collect();
        let why = format!("all {WRAP_SLOTS} wrap slots are in use: {}", names.join(", "));
        return Err(Error::new(ErrorKind::Full, "add a key", why)
            .hint("take one away first: tierstream keys destroy DATASET --name NAME"));
    };
    let wrap = new.wrap(&key, &opened.header.params.prologue(opened.header.minor))?;
    put_wrap(bytes, free, Some(&wrap));
    open_header(bytes, new)?;
    Ok(true)
}

/// Clears the slots of the keys that are `leaving`, and damaged ones: those may be one bit away from a wrap under a key
/// that leaves. With `staying`, the header must open under it, before and after. Returns whether the header changed.
///
/// # Errors
/// `Missing` or `Corrupt` when `staying` does not open it; `Misuse` or `Unsupported` when it is no header of ours.
pub fn remove_wraps(
    bytes: &mut [u8; HEADER_BYTES],
    leaving: &dyn Fn(&KekId) -> bool,
    staying: Option<&dyn KeyProvider>,
) -> Result<bool> {
    Header::parse(bytes)?;
    let check = |bytes: &[u8; HEADER_BYTES]| staying.map_or(Ok(()), |key| open_header(bytes, key).map(drop));
    check(bytes)?;
    let before = *bytes;
    for (number, slot) in wrap_slots(bytes).iter().enumerate() {
        match slot {
            WrapSlot::InUse(wrap) if leaving(&wrap.kek) => put_wrap(bytes, number, None),
            WrapSlot::Damaged(_) => put_wrap(bytes, number, None),
            WrapSlot::InUse(_) | WrapSlot::Empty => {}
        }
    }
    check(bytes).inspect_err(|_| *bytes = before)?;
    Ok(*bytes != before)
}

#[cfg(test)]
mod tests {
    use tierstream_crypto::{Cipher, KeyRing, RootKey};

    use super::*;
    use crate::codec::{FinalSizes, seal_header};
    use crate::format::{FileId, Kind, SealParams, raw_stored_bytes};

    fn header(cipher: Cipher, file: u8, key: &RootKey) -> Box<[u8; HEADER_BYTES]> {
        let params = SealParams {
            kind: Kind::Shard,
            cipher,
            compressed: false,
            file_id: FileId([file; 16]),
            data_set_id: FileId([9; 16]),
            generation: 1,
            block_bytes: 4096,
            record_align: 1,
        };
        let index_offset = 4096 + raw_stored_bytes(1000, params.block_bytes);
        let sizes = FinalSizes { payload_bytes: 1000, record_count: 1, index_offset, index_bytes: 0 };
        seal_header(&params, key).unwrap().header(sizes).1
    }

    fn roots<const N: usize>() -> [RootKey; N] {
        std::array::from_fn(|number| RootKey::random(&format!("key-{number}")).unwrap())
    }

    fn is(key: &RootKey) -> impl Fn(&KekId) -> bool {
        let fingerprint = key.id().fingerprint;
        move |id| id.fingerprint == fingerprint
    }

    #[test]
    fn a_rotation_changes_one_slot_at_a_time_and_nothing_else() {
        let [old, new] = roots();
        for cipher in Cipher::ALL {
            let mut bytes = header(cipher, 1, &old);
            let written = bytes.clone();
            let before = open_header(&bytes, &old).unwrap();
            assert!(add_wrap(&mut bytes, &old, &new).unwrap());
            assert!(bytes[..2560] == written[..2560] && bytes[3072..] == written[3072..]);
            let both = bytes.clone();
            assert!(!add_wrap(&mut bytes, &old, &new).unwrap(), "done before");
            for key in [&old, &new] {
                assert_eq!(open_header(&bytes, key).unwrap().mac, before.mac);
            }
            assert!(remove_wraps(&mut bytes, &is(&old), Some(&new)).unwrap());
            assert!(bytes[..2048] == both[..2048] && bytes[2560..] == both[2560..]);
            assert!(bytes[2048..2560].iter().all(|byte| *byte == 0));
            assert_eq!(open_header(&bytes, &old).unwrap_err().kind(), ErrorKind::Missing);
            let after = open_header(&bytes, &new).unwrap();
            assert_eq!(after.mac, before.mac);
            after.keys.check_commitment(before.keys.commitment()).unwrap();
            assert!(!remove_wraps(&mut bytes, &is(&old), Some(&new)).unwrap(), "done before");
        }
    }

    #[test]
    fn the_last_way_in_is_removed_only_on_request() {
        let [old, new] = roots();
        let mut bytes = header(Cipher::Sm4Gcm, 1, &old);
        let written = bytes.clone();
        let refused = remove_wraps(&mut bytes, &is(&old), Some(&new)).unwrap_err();
        assert_eq!((refused.kind(), bytes == written), (ErrorKind::Missing, true));
        let refused = remove_wraps(&mut bytes, &is(&old), Some(&old)).unwrap_err();
        assert!(refused.to_string().contains("shredded") && bytes == written, "{refused}");
        assert!(remove_wraps(&mut bytes, &is(&old), None).unwrap());
        let shredded = open_header(&bytes, &old).unwrap_err();
        assert!(shredded.kind() == ErrorKind::Missing && shredded.to_string().contains("it was shredded"));
        assert_eq!(add_wrap(&mut bytes, &old, &new).unwrap_err().kind(), ErrorKind::Missing);
    }

    #[test]
    fn a_fifth_key_finds_no_room_and_a_damaged_slot_is_room() {
        let keys: [RootKey; 5] = roots();
        let mut bytes = header(Cipher::Aes256Gcm, 1, &keys[0]);
        for key in &keys[1..4] {
            assert!(add_wrap(&mut bytes, &keys[0], key).unwrap());
        }
        let whole = bytes.clone();
        let full = add_wrap(&mut bytes, &keys[3], &keys[4]).unwrap_err();
        assert!(full.kind() == ErrorKind::Full && bytes == whole, "{full}");
        assert!(full.to_string().contains("`key-2` version 1"), "{full}");
        bytes[2048 + 1024 + 200] ^= 1;
        assert!(add_wrap(&mut bytes, &keys[3], &keys[4]).unwrap());
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(open_header(&bytes, key).is_ok(), number != 2);
        }
        // A damaged slot goes with the key that leaves: it may have been that key's.
        bytes[2048 + 512 + 2] = 0;
        assert!(remove_wraps(&mut bytes, &is(&keys[0]), Some(&keys[3])).unwrap());
        let slots = wrap_slots(&bytes);
        assert!(slots[..2].iter().all(|slot| *slot == WrapSlot::Empty), "{slots:?}");
    }

    #[test]
    fn a_slot_moved_to_another_file_opens_nothing() {
        let [key] = roots();
        let (first, mut second) = (header(Cipher::Sm4Gcm, 1, &key), header(Cipher::Sm4Gcm, 2, &key));
        second[2048..2560].copy_from_slice(&first[2048..2560]);
        let error = open_header(&second, &key).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("does not open"), "{error}");
        // Even where the prologues are the same, the data keys are not: the commitment says so.
        let mut twin = header(Cipher::Sm4Gcm, 1, &key);
        twin[2048..2560].copy_from_slice(&first[2048..2560]);
        let error = open_header(&twin, &key).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("commitment"), "{error}");
        // Neither is a way to have a foreign data key wrapped anew.
        let [new] = roots();
        for bytes in [&mut second, &mut twin] {
            assert_eq!(add_wrap(bytes, &key, &new).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        // Within a file, slots may change places.
        let mut moved = first.clone();
        moved.copy_within(2048..2560, 3072);
        moved[2048..2560].fill(0);
        assert!(open_header(&moved, &KeyRing::new([new, key]).unwrap()).is_ok());
    }
}
