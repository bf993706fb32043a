//! Sealed messages as the kernel takes them: descriptors, work items, AADs and states in one block of memory, so that one
//! copy brings all of it to the device.
//!
//! ```text
//! | states: 48 bytes each, zero | messages: 64 bytes each | work: 8 bytes per segment | AADs, each padded to 16 |
//! ```

use tierstream_crypto::{Nonce, Tag};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use super::key_table::{SEGMENT_SLOTS_LOG2, SEGMENTS_MAX};

const STATE_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 64;
const OUTCOME_AT: usize = 36;

/// A sealed message in device memory.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where its ciphertext is: an offset from the base that the kernel is given, a multiple of 16.
    pub sealed: u64,
    /// Where its plaintext goes, likewise; may be the same.
    pub plain: u64,
    /// Length of either.
    pub bytes: u32,
    /// Which of the key tables.
    pub key: u32,
    /// Its nonce.
    pub nonce: Nonce,
    /// What is authenticated with it.
    pub aad: Vec<u8>,
    /// The tag that it must have.
    pub tag: Tag,
}

/// What the kernel said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its tag is right, and its plaintext is where it should be.
    Opened,
    /// Its tag is wrong, and zeros are where its plaintext would be.
    Refused,
    /// The kernel has not ended.
    Pending,
}

/// Messages ready for the device.
#[derive(Clone, Debug)]
pub struct PackedMessages {
    bytes: Vec<u8>,
    messages: usize,
    items: u32,
}

impl PackedMessages {
    /// Packs `messages` for memory at offset `at` from the kernel's base.
    ///
    /// # Errors
    /// `Misuse` for a message that is longer than 16 MiB with its AAD, or lies at an address that is no multiple of 16.
    pub fn new(messages: &[Message], at: u64) -> Result<Self> {
        let segments = messages.iter().map(segments).collect::<Result<Vec<usize>>>()?;
        let items: usize = segments.iter().sum();
        let work_at = messages.len() * (STATE_BYTES + MESSAGE_BYTES);
        let aads_at = (work_at + 8 * items).next_multiple_of(16);
        let mut bytes = vec![0; messages.len() * STATE_BYTES];
        let (mut work, mut aads) = (Vec::with_capacity(8 * items), Vec::new());
        for ((message, segments), number) in messages.iter().zip(segments).zip(0_u32..) {
            let aad = at + to_u64(aads_at + aads.len());
            [message.sealed, message.plain, aad].iter().for_each(|word| put64(&mut bytes, *word));
            put32(&mut bytes, message.bytes);
            put32(&mut bytes, u32::try_from(message.aad.len()).unwrap_or(u32::MAX));
            bytes.extend_from_slice(message.nonce.as_bytes());
            put32(&mut bytes, message.key);
            bytes.extend_from_slice(&message.tag);
            aads.extend_from_slice(&message.aad);
            aads.resize(aads.len().next_multiple_of(16), 0);
            for segment in (0_u32..).take(segments) {
                put32(&mut work, number);
                put32(&mut work, segment);
            }
        }
        bytes.append(&mut work);
        bytes.resize(aads_at, 0);
        bytes.append(&mut aads);
        let items = u32::try_from(items).map_err(|_| misuse(format!("{items} segments in one launch")))?;
        Ok(Self { bytes, messages: messages.len(), items })
    }

    /// What goes to the device.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Segments of all messages: the kernel's work items.
    #[must_use]
    pub fn items(&self) -> u32 {
        self.items
    }

    /// Where the states begin; they lie at the start, and this many bytes come back.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.messages * STATE_BYTES
    }

    /// Where the messages begin.
    #[must_use]
    pub fn messages_at(&self) -> u64 {
        to_u64(self.state_bytes())
    }

    /// Where the work items begin.
    #[must_use]
    pub fn work_at(&self) -> u64 {
        to_u64(self.messages * (STATE_BYTES + MESSAGE_BYTES))
    }

    /// The outcomes in states that came back from the device.
    #[must_use]
    pub fn outcomes(states: &[u8]) -> Vec<Outcome> {
        states
            .chunks_exact(STATE_BYTES)
            .map(|state| match state[OUTCOME_AT] {
                1 => Outcome::Opened,
                2 => Outcome::Refused,
                _ => Outcome::Pending,
            })
            .collect()
    }
}

fn segments(message: &Message) -> Result<usize> {
    let slots = message.aad.len().div_ceil(16).max(1) + to_usize(u64::from(message.bytes)).div_ceil(16);
    let segments = slots.div_ceil(1 << SEGMENT_SLOTS_LOG2);
    if segments > SEGMENTS_MAX {
        let why = format!("{} bytes with {} of AAD, at most 16 MiB in all", message.bytes, message.aad.len());
        return Err(misuse(why));
    }
    if !message.sealed.is_multiple_of(16) || !message.plain.is_multiple_of(16) {
        let why = format!("{:#x} to {:#x}, expected multiples of 16", message.sealed, message.plain);
        return Err(misuse(why));
    }
    Ok(segments)
}

fn misuse(why: String) -> Error {
    Error::new(ErrorKind::Misuse, "open on the GPU", why)
}

fn put32(bytes: &mut Vec<u8>, word: u32) {
    bytes.extend_from_slice(&word.to_le_bytes());
}

fn put64(bytes: &mut Vec<u8>, word: u64) {
    bytes.extend_from_slice(&word.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: u32, aad: usize) -> Message {
        let nonce = Nonce::block(1, 2);
        Message { sealed: 0, plain: 4096, bytes, key: 0, nonce, aad: vec![5; aad], tag: [9; 16] }
    }

    #[test]
    fn a_block_of_64_kib_is_one_segment() {
        let packed = PackedMessages::new(&[message(65472, 48), message(65536, 48)], 1 << 20).unwrap();
        assert_eq!((packed.items(), packed.state_bytes()), (3, 96));
        let work = &packed.as_bytes()[to_usize(packed.work_at())..][..24];
        let words: Vec<u8> = work.iter().step_by(4).copied().collect();
        assert_eq!(words, [0, 0, 1, 0, 1, 1]);
        let aad_at = u64::from_le_bytes(packed.as_bytes()[96 + 16..][..8].try_into().unwrap());
        assert_eq!(packed.as_bytes()[to_usize(aad_at - (1 << 20))..][..48], [5; 48]);
    }

    #[test]
    fn what_the_kernel_cannot_take_is_refused() {
        assert!(PackedMessages::new(&[message(16 << 20, 48)], 0).unwrap_err().to_string().contains("16 MiB"));
        assert!(PackedMessages::new(&[message((16 << 20) - 64, 48)], 0).is_ok());
        let crooked = Message { sealed: 8, ..message(16, 0) };
        assert!(PackedMessages::new(&[crooked], 0).unwrap_err().to_string().contains("multiples of 16"));
    }
}
