//! Post-processing: every pixel value in every format, and tokens, against plain Rust.

use tierstream_storage::testing::{Random, announce_seed};

use super::launch::{Argument, Kernel, Launch, Machine};
use super::on_every_machine;

const BF16: u32 = 0;
const FP16: u32 = 1;
const FP32: u32 = 2;

/// Runs normalize_u8 over `pixels`; returns the bytes of `pixels.len()` elements of `width` bytes.
fn normalize(
    machine: &mut dyn Machine,
    pixels: &[u8],
    channels: &[(f32, f32)],
    inner: u32,
    format: u32,
) -> Vec<u8> {
    let width = if format == FP32 { 4 } else { 2 };
    let mut memory = pixels.to_vec();
    memory.resize(memory.len().next_multiple_of(16), 0);
    let scale_at = memory.len();
    channels.iter().for_each(|(scale, _)| memory.extend_from_slice(&scale.to_le_bytes()));
    let shift_at = memory.len();
    channels.iter().for_each(|(_, shift)| memory.extend_from_slice(&shift.to_le_bytes()));
    memory.resize(memory.len().next_multiple_of(16), 0);
    let to = memory.len();
    memory.resize(to + pixels.len() * width + 16, 0xee);
    let launch = Launch {
        kernel: Kernel::Normalize,
        grid: 2,
        block: 64,
        arguments: vec![
            Argument::Address(0),
            Argument::Address(to as u64),
            Argument::U64(pixels.len() as u64),
            Argument::Address(scale_at as u64),
            Argument::Address(shift_at as u64),
            Argument::U32(u32::try_from(channels.len()).unwrap()),
            Argument::U32(inner),
            Argument::U32(format),
        ],
        memory,
    };
    let after = machine.run(&launch);
    assert!(after[to + pixels.len() * width..].iter().all(|byte| *byte == 0xee), "written beyond the end");
    after[to..to + pixels.len() * width].to_vec()
}

/// Scales that reach zero, subnormals, all of the normal range and infinity in both half formats.
fn channels() -> Vec<(f32, f32)> {
    let mut channels =
        vec![(1.0 / 255.0 / 0.229, -0.485 / 0.229), (1.0, 0.0), (257.5, 0.0), (300.0, -38000.0)];
    channels.extend((0..20).map(|power| (0.37 * 2f32.powi(-power - 10), 0.0)));
    channels.push((1e36, 0.0));
    channels.push((1e37, f32::MAX));
    channels
}

#[test]
fn pixels_become_what_rust_says() {
    let channels = channels();
    let pixels: Vec<u8> =
        (0..=255_u8).flat_map(|pixel| vec![pixel; channels.len()]).chain([7, 200, 9]).collect();
    on_every_machine(|machine| {
        for format in [BF16, FP16, FP32] {
            let found = normalize(machine, &pixels, &channels, 1, format);
            for (at, pixel) in pixels.iter().enumerate() {
                let (scale, shift) = channels[at % channels.len()];
                let value = f32::from(*pixel).mul_add(scale, shift);
                let (found, expected) = match format {
                    BF16 => (
                        u32::from(half_at(&found, at)),
                        nearest(value, |bits| f32::from_bits(u32::from(bits) << 16)),
                    ),
                    FP16 => (u32::from(half_at(&found, at)), nearest(value, fp16_value)),
                    _ => (u32::from_le_bytes(found[4 * at..4 * at + 4].try_into().unwrap()), value.to_bits()),
                };
                assert_eq!(found, expected, "format {format}: {pixel} * {scale} + {shift} = {value}");
            }
        }
    });
}

fn half_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[2 * at..2 * at + 2].try_into().unwrap())
}

/// What the bits of an FP16 stand for.
fn fp16_value(bits: u16) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => mantissa * 2f32.powi(-24),
        31 => f32::INFINITY,
        _ => (1024.0 + mantissa) * 2f32.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// The 16 bits nearest to `value`, ties to even, by search: independent of how the kernel rounds.
fn nearest(value: f32, value_of: impl Fn(u16) -> f32) -> u32 {
    let sign = if value.is_sign_negative() { 0x8000_u16 } else { 0 };
    let target = f64::from(value.abs());
    // The magnitudes of a format grow with their bits. Infinity counts as the next step beyond the largest.
    let magnitude = |bits: u16| f64::from(value_of(bits));
    let (mut low, mut high) = (0_u16, 0x7fff);
    while low + 1 < high {
        let middle = low.midpoint(high);
        let seen = magnitude(middle);
        if seen <= target && seen.is_finite() { low = middle } else { high = middle }
    }
    let below = magnitude(low);
    let above =
        if magnitude(high).is_finite() { magnitude(high) } else { below + (below - magnitude(low - 1)) };
    let up = target - below > above - target || target - below == above - target && low % 2 == 1;
    u32::from(sign | if up { high } else { low })
}

#[test]
fn planes_before_pixels_have_their_channels() {
    let channels = [(1.0, 0.0), (2.0, 100.0), (3.0, 1000.0)];
    // Two images of three planes of 5 pixels.
    let pixels: Vec<u8> = (0..30).collect();
    on_every_machine(|machine| {
        let found = normalize(machine, &pixels, &channels, 5, FP32);
        for (at, pixel) in pixels.iter().enumerate() {
            let (scale, shift) = channels[at / 5 % 3];
            let value = f32::from_le_bytes(found[4 * at..4 * at + 4].try_into().unwrap());
            assert_eq!(value, f32::from(*pixel) * scale + shift, "element {at}");
        }
    });
}

#[test]
fn tokens_widen() {
    let seed = 0x7e57_000a;
    announce_seed("tokens_widen", seed);
    on_every_machine(|machine| {
        let mut random = Random::new(seed);
        for (count, wide) in [(1, 0), (1, 1), (2, 0), (999, 0), (1000, 1), (1001, 1)] {
            let mut memory = vec![0; 2 * count];
            random.fill(&mut memory);
            let tokens: Vec<u16> =
                memory.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            memory.resize((2 * count).next_multiple_of(16), 0);
            let (to, width) = (memory.len(), if wide == 0 { 4 } else { 8 });
            memory.resize(to + count * width + 16, 0xee);
            let arguments = vec![
                Argument::Address(0),
                Argument::Address(to as u64),
                Argument::U64(count as u64),
                Argument::U32(wide),
            ];
            let launch = Launch { kernel: Kernel::Widen, grid: 3, block: 64, arguments, memory };
            let after = machine.run(&launch);
            for (at, token) in tokens.iter().enumerate() {
                let mut word = [0; 8];
                word[..width].copy_from_slice(&after[to + width * at..][..width]);
                assert_eq!(u64::from_le_bytes(word), u64::from(*token), "token {at} of {count}");
            }
            assert!(after[to + count * width..].iter().all(|byte| *byte == 0xee), "written beyond the end");
        }
    });
}

#[test]
fn pieces_move_at_any_alignment() {
    let seed = 0x7e57_000b;
    announce_seed("pieces_move_at_any_alignment", seed);
    on_every_machine(|machine| {
        let mut random = Random::new(seed);
        let (from_bytes, mut at) = (64_u64 << 10, 64_u64 << 10);
        let mut pieces = Vec::new();
        for number in 0..200 {
            let bytes = if number % 3 == 0 { random.below(20) } else { random.below(3000) };
            let from = random.below(from_bytes - bytes);
            // Every other piece has the alignment of its source, as blocks and samples often have.
            let to = if number % 2 == 0 { at.next_multiple_of(16) + from % 16 } else { at };
            pieces.push((from, to, bytes));
            at = to + bytes + random.below(3);
        }
        let mut memory = vec![0; usize::try_from(from_bytes).unwrap()];
        random.fill(&mut memory);
        memory.resize(usize::try_from(at.next_multiple_of(16)).unwrap() + 16, 0xee);
        let mut expected = memory.clone();
        let table = memory.len() as u64;
        for (from, to, bytes) in &pieces {
            let [from, to, bytes] = [*from, *to, *bytes].map(|n| usize::try_from(n).unwrap());
            expected.copy_within(from..from + bytes, to);
            [from, to, bytes, 0]
                .iter()
                .for_each(|word| memory.extend_from_slice(&(*word as u64).to_le_bytes()));
        }
        let count = u32::try_from(pieces.len()).unwrap();
        let arguments = vec![Argument::Address(0), Argument::Address(table), Argument::U32(count)];
        let launch = Launch { kernel: Kernel::Gather, grid: 7, block: 64, arguments, memory };
        let after = machine.run(&launch);
        assert!(after[..expected.len()] == expected);
    });
}
