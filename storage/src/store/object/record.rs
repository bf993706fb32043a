//! What the catalog remembers of an object's current version.

use tierstream_crypto::MAC_BYTES;

use crate::format::FileId;

const LAYOUT: u8 = 1;
const BYTES: usize = 78;

/// The current version of an object: what binds its name to a file, where the file is, how often it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Unique in the store, ascending with the order of the writes.
    pub(super) version: u64,
    pub(super) file_id: FileId,
    /// The header's MAC: another file, or an older one, has another.
    pub(super) mac: [u8; MAC_BYTES],
    pub(super) file_bytes: u64,
    pub(super) payload_bytes: u64,
    /// A deletion that is not yet final.
    pub(super) tombstone: bool,
    pub(super) tensors: bool,
    pub(super) on_l2: bool,
    pub(super) on_l3: bool,
    /// Heat: how often it was opened.
    pub(super) reads: u32,
}

impl Record {
    /// Whether L2 has the only copy.
    pub(super) fn is_dirty(&self) -> bool {
        self.on_l2 && !self.on_l3
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = [self.tombstone, self.tensors, self.on_l2, self.on_l3];
        let flags = flags.iter().rev().fold(0_u8, |bits, flag| bits << 1 | u8::from(*flag));
        let mut bytes = vec![LAYOUT, flags];
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.file_id.0);
        bytes.extend_from_slice(&self.mac);
        bytes.extend_from_slice(&self.file_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.payload_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.reads.to_le_bytes());
        debug_assert_eq!(bytes.len(), BYTES);
        bytes
    }

    /// None for what is no record: it is then rebuilt from the files.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[LAYOUT, flags], rest) = bytes.split_first_chunk::<2>()? else { return None };
        if bytes.len() != BYTES || flags > 15 {
            return None;
        }
        let field = |at: usize| Some(u64::from_le_bytes(rest.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            version: field(0)?,
            file_id: FileId(rest.get(8..24)?.try_into().ok()?),
            mac: rest.get(24..56)?.try_into().ok()?,
            file_bytes: field(56)?,
            payload_bytes: field(64)?,
            tombstone: flags & 1 != 0,
            tensors: flags & 2 != 0,
            on_l2: flags & 4 != 0,
            on_l3: flags & 8 != 0,
            reads: u32::from_le_bytes(rest.get(72..76)?.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn records_come_back_and_nothing_else_is_one() {
        let mut random = Random::new(3);
        for flags in 0..16_u8 {
            let mut bytes = vec![LAYOUT, flags];
            bytes.resize(BYTES, 0);
            random.fill(&mut bytes[2..]);
            let record = Record::decode(&bytes).unwrap();
            assert_eq!(record.encode(), bytes);
            assert_eq!(record.is_dirty(), record.on_l2 && !record.on_l3);
            for len in 0..BYTES {
                assert_eq!(Record::decode(&bytes[..len]), None);
            }
            bytes[0] = 2;
            assert_eq!(Record::decode(&bytes), None);
        }
    }
}
