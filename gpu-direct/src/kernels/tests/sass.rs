//! Reads the machine code in a cubin as far as a model of speed needs it: how many instructions of each kind a loop has.
//!
//! A cubin is an ELF file; section `.text.NAME` has 16 bytes for each instruction, whose lowest 9 bits are its operation.
//! The distance of a branch is in bits 34 to 81, in steps of 4 bytes, up to compute capability 8.9.

use std::fmt;
use std::ops::Range;

const LOP3: u64 = 0x12;
const SHF: u64 = 0x19;
const PRMT: u64 = 0x16;
const IMAD_WIDE: u64 = 0x25;
const BRA: u64 = 0x147;

/// The instructions of a kernel.
pub(super) struct Sass {
    operations: Vec<u64>,
    loops: Vec<Range<usize>>,
}

/// What the cipher's kernel does to 128 bytes, by the pipes of a multiprocessor.
pub(super) struct Model {
    logic: usize,
    wide_products: usize,
    all: usize,
}

impl Sass {
    pub(super) fn of(cubin: &[u8], kernel: &str) -> Option<Self> {
        let text = section(cubin, &format!(".text.{kernel}"))?;
        let words = |at: usize| u64::from_le_bytes(text[at..at + 8].try_into().unwrap());
        let instructions: Vec<(u64, u64)> =
            (0..text.len()).step_by(16).map(|at| (words(at), words(at + 8))).collect();
        let operations: Vec<u64> = instructions.iter().map(|(low, _)| low & 0x1ff).collect();
        let mut loops = Vec::new();
        for (at, (low, high)) in instructions.iter().enumerate() {
            if low & 0x1ff == BRA {
                let raw = low >> 34 | (high & 0x3_ffff) << 30;
                let steps = ((raw << 16).cast_signed() >> 16) * 4 / 16;
                let target = i64::try_from(at).unwrap() + 1 + steps;
                if let Some(target) = usize::try_from(target).ok().filter(|target| *target < at) {
                    loops.push(target..at + 1);
                }
            }
        }
        Some(Self { operations, loops })
    }

    fn count(&self, place: &Range<usize>, wanted: &[u64]) -> usize {
        self.operations[place.clone()].iter().filter(|operation| wanted.contains(operation)).count()
    }

    /// The loops by what they are: products, rounds, and the tile that has both.
    pub(super) fn model(&self) -> Model {
        let most = |wanted: &[u64], unwanted: &[u64]| {
            let fit = self.loops.iter().filter(|place| self.count(place, unwanted) == 0);
            fit.max_by_key(|place| self.count(place, wanted)).unwrap()
        };
        // Rounds shift and have no products; the loop of products is the smallest with all of them.
        let rounds = most(&[LOP3], &[IMAD_WIDE]);
        let products = self.loops.iter().filter(|place| self.count(place, &[IMAD_WIDE]) >= 144);
        let products = products.min_by_key(|place| place.len()).unwrap();
        let tiles =
            self.loops.iter().filter(|place| place.start <= products.start && place.end >= rounds.end);
        let tile = tiles.min_by_key(|place| place.len()).unwrap();
        // Eight slots of a thread in each, four rounds to a turn.
        let of = |wanted: &[u64]| {
            let (tile, products, rounds) =
                (self.count(tile, wanted), self.count(products, wanted), self.count(rounds, wanted));
            tile + 7 * products + 7 * rounds
        };
        Model {
            logic: of(&[LOP3, SHF, PRMT, 0x10, 0x0c, 0x07]),
            wide_products: of(&[IMAD_WIDE]),
            all: tile.len() + 7 * products.len() + 7 * rounds.len(),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Lanes a cycle and multiprocessor by NVIDIA's tables for 8.0 and 9.0: 64 logic, 32 wide products (taken as half
        // of 64), 128 instructions issued.
        let cycles = |count: usize, lanes: f64| count as f64 / lanes;
        let (logic, wide, issue) =
            (cycles(self.logic, 64.0), cycles(self.wide_products, 32.0), cycles(self.all, 128.0));
        let bound = logic.max(wide).max(issue);
        let gbps = |multiprocessors: f64, ghz: f64| multiprocessors * ghz * 128.0 / bound;
        write!(
            f,
            "{} instructions for 128 bytes, {} on the logic pipe, {} wide products; if that pipe never waits, \
             A100 (108 SMs at 1.41 GHz) {:.0} GB/s, H100 (132 at 1.755) {:.0} GB/s",
            self.all,
            self.logic,
            self.wide_products,
            gbps(108.0, 1.41),
            gbps(132.0, 1.755)
        )
    }
}

fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let word = |at: usize, bytes: usize| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&elf[at..at + bytes]);
        usize::try_from(u64::from_le_bytes(word)).unwrap()
    };
    let (table, count, names) = (word(0x28, 8), word(0x3c, 2), word(0x3e, 2));
    let header = |number: usize| table + 64 * number;
    let strings = word(header(names) + 24, 8);
    (0..count).find_map(|number| {
        let (at, bytes) = (word(header(number) + 24, 8), word(header(number) + 32, 8));
        let label = &elf[strings + word(header(number), 4)..];
        label.starts_with(format!("{name}\0").as_bytes()).then(|| &elf[at..at + bytes])
    })
}
