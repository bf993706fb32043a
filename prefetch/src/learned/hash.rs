//! Mixing of block ids, for tables that are indexed by some bits of a hash.

/// Spreads an id over 64 bits (the finaliser of `SplitMix64`).
pub(super) fn spread(id: u64) -> u64 {
    let mut mixed = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Mixes two numbers into one hash, cheaper than twice [`spread`].
pub(super) fn join(first: u64, second: u64) -> u64 {
    let mixed = (first ^ second.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The lowest `bits` bits, as an index.
pub(super) fn index(hash: u64, mask: usize) -> usize {
    // Both sides fit: the mask is below the length of a table in memory.
    usize::try_from(hash & u64::try_from(mask).unwrap_or(u64::MAX)).unwrap_or(0)
}

/// Some 32 bits of a hash that [`index`] does not use for small tables.
pub(super) fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(0)
}

/// Position of the highest set bit plus one: 0 for 0, 1 for 1, 2 for 2 and 3, at most `max`.
pub(super) fn magnitude(value: u64, max: u32) -> u32 {
    (u64::BITS - value.leading_zeros()).min(max)
}

/// The whole part of a number that is not negative, at most 65535.
pub(super) fn whole(number: f32) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the conversion saturates, and the range is checked")]
    let whole = number.clamp(0.0, 65535.0) as u16;
    whole
}
