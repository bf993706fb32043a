//! What is kept per stream: a client and a file, say. A fixed number of them; a stream that is not heard of for long
//! makes room.

use super::hash::{index, spread};
use super::history::Place;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    // The stream's number plus one; zero in an empty cell.
    name: u64,
    /// Its last miss.
    pub(super) last: Place,
    touched: u32,
}

pub(super) struct Streams {
    cells: Box<[[Stream; 4]]>,
}

impl Streams {
    pub(super) fn new(bits: u32) -> Self {
        Self { cells: vec![[Stream::default(); 4]; 1 << bits].into() }
    }

    pub(super) fn get(&mut self, stream: u64, now: u32) -> &mut Stream {
        let name = stream.wrapping_add(1).max(1);
        let at = index(spread(name), self.cells.len() - 1);
        let bucket = &mut self.cells[at];
        let way = bucket.iter().position(|cell| cell.name == name).unwrap_or_else(|| {
            let age = |cell: &Stream| if cell.name == 0 { u32::MAX } else { now.wrapping_sub(cell.touched) };
            let way = (0..4).max_by_key(|way| age(&bucket[*way])).unwrap_or(0);
            bucket[way] = Stream { name, ..Stream::default() };
            way
        });
        bucket[way].touched = now;
        &mut bucket[way]
    }
}
