//! What a key becomes before it goes to a device: planes of the round keys and powers of the hash key.
//!
//! The layout is that of `KeyTable` in `kernels/open.cu`. Wiped on drop here; on the device it lies as long as the
//! buffer that holds it, as the plaintext does.

use std::fmt;

use tierstream_crypto::Sm4Schedule;
use zeroize::Zeroizing;

use super::field::Element;

/// Bytes of a table.
pub const KEY_TABLE_BYTES: usize = 4 * WORDS;

const WORDS: usize = 256 + 8 * 36 + 4 * THREADS + 4 + 4 * SEGMENTS_MAX;
const THREADS: usize = 128;
/// Segments of the longest message: 16 MiB, the longest block of a sealed file, and its AAD.
pub(super) const SEGMENTS_MAX: usize = 256;
/// Slots of a segment: 2 to the power of this.
pub(super) const SEGMENT_SLOTS_LOG2: u32 = 12;

/// One key, expanded.
pub struct KeyTable(Zeroizing<Vec<u8>>);

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyTable(key hidden)")
    }
}

impl KeyTable {
    /// The table of a key.
    #[must_use]
    pub fn new(schedule: &Sm4Schedule) -> Self {
        let mut table = Writer(Zeroizing::new(Vec::with_capacity(KEY_TABLE_BYTES)));
        for key in &schedule.circuit_keys {
            (0..8).for_each(|bit| table.word(plane(*key, bit)));
        }
        let h = Element::from_block(&schedule.hash_key);
        let step = h.squared(5);
        // H^32, H^64, ... H^256, the highest first.
        let steps: Vec<Element> = powers(step).take(8).collect();
        steps.iter().rev().for_each(|power| table.operands(*power));
        // For warp 3 H^32 ... H^1, for those before it the same times H^1024 each.
        let last: Vec<Element> = powers(h).take(32).collect();
        for warp in 0..4 {
            let later = powers(h.squared(10)).take(3 - warp).last();
            for power in last.iter().rev() {
                table.element(later.map_or(*power, |later| power.times(later)));
            }
        }
        table.element(h);
        // Segment 0 from the end is not multiplied.
        table.element(Element(0));
        powers(h.squared(SEGMENT_SLOTS_LOG2)).take(SEGMENTS_MAX - 1).for_each(|power| table.element(power));
        assert_eq!(table.0.len(), KEY_TABLE_BYTES);
        Self(table.0)
    }

    /// Its bytes, as they go to the device.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `base`, its square, its cube, ...
fn powers(base: Element) -> impl Iterator<Item = Element> {
    std::iter::successors(Some(base), move |power| Some(power.times(base)))
}

/// Bit `bit` of each byte of `key`, as bytes of ones or zeroes. The key's highest byte is the first in memory.
fn plane(key: u32, bit: u32) -> u32 {
    (key.swap_bytes() >> bit & 0x0101_0101) * 0xff
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn word(&mut self, word: u32) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn element(&mut self, element: Element) {
        element.words().into_iter().for_each(|word| self.word(word));
    }

    /// The nine operands of Karatsuba's products, each by lanes of every fourth bit (`kernels/ghash.cu`).
    fn operands(&mut self, element: Element) {
        let [a, b, c, d] = element.words();
        for operand in [a, b, c, d, a ^ b, c ^ d, a ^ c, b ^ d, a ^ b ^ c ^ d] {
            (0..4).for_each(|lane| self.word(operand & 0x1111_1111 << lane));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_length_of_the_kernels() {
        let table = KeyTable::new(&Sm4Schedule::expand(&[7; 16]));
        assert_eq!(table.as_bytes().len(), 8336);
        assert_eq!(format!("{table:?}"), "KeyTable(key hidden)");
    }

    #[test]
    fn a_plane_has_one_bit_of_each_byte() {
        assert_eq!(plane(0x8000_0001, 7), 0x0000_00ff, "the highest byte is the first");
        assert_eq!(plane(0x8000_0001, 0), 0xff00_0000);
    }
}
