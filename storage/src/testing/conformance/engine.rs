//! The suite of [`IoEngine`].

use std::path::Path;
use std::sync::Arc;

use crate::buf::{Arena, HeapAllocator};
use crate::device::{Access, DeviceFile, Directory};
use crate::io::{Completion, IoEngine, Op};
use crate::testing::{Random, announce_seed};

const SLOT: usize = 16 * 1024;
const SLOTS: usize = 16;

type Make<'a> = &'a dyn Fn(usize, &Arc<Arena>) -> Box<dyn IoEngine>;

/// Runs the suite on engines that `make` gives for a depth and an arena, with files in `dir`.
///
/// # Panics
/// When the engine breaks a promise of the trait.
pub fn io_engine(dir: &Path, seed: u64, make: Make<'_>) {
    let directory = Directory::open(dir).expect("the test's directory");
    io_engine_in(&directory, seed, make, make);
}

/// As [`io_engine`], in `directory` as it is set up, with what is read written by the engines that `write` gives: for an
/// engine that only reads.
///
/// # Panics
/// When the engine breaks a promise of the trait.
pub fn io_engine_in(directory: &Directory, seed: u64, write: Make<'_>, make: Make<'_>) {
    announce_seed("io_engine conformance", seed);
    let arena = Arena::new("conformance", SLOT, SLOTS, &HeapAllocator).expect("memory for a test");
    whole_files_come_back(write, make, &arena, directory, seed);
    end_of_file_and_errors_are_told(make, &arena, directory);
    a_waker_ends_the_wait(make, &arena);
    drop_gives_every_buffer_back(make, &arena, directory);
    assert_eq!(arena.free_slots(), SLOTS, "a buffer was lost");
}

fn finish(engine: &mut dyn IoEngine) -> Vec<Completion> {
    let mut completed = Vec::new();
    while engine.in_flight() > 0 {
        engine.wait(&mut completed).expect("a working engine");
    }
    completed
}

fn whole_files_come_back(
    write: Make<'_>,
    make: Make<'_>,
    arena: &Arc<Arena>,
    directory: &Directory,
    seed: u64,
) {
    let mut random = Random::new(seed);
    let mut engine = write(SLOTS, arena);
    let file = DeviceFile::open(directory, "whole", Access::CreateNew).expect("a new file");
    let mut expected = vec![0; SLOT * 64];
    random.fill(&mut expected);
    // Writes go out in random order, many at once; the tag comes back with its operation.
    let mut blocks: Vec<usize> = (0..64).collect();
    for index in (1..blocks.len()).rev() {
        blocks.swap(index, crate::units::to_usize(random.below(crate::units::to_u64(index) + 1)));
    }
    for batch in blocks.chunks(SLOTS) {
        for block in batch {
            let mut slot = arena.try_take(0).expect("a slot for each operation");
            slot.copy_from_slice(&expected[block * SLOT..(block + 1) * SLOT]);
            let mut op = Op::write(Arc::clone(&file), crate::units::to_u64(block * SLOT), SLOT, slot);
            op.tag = crate::units::to_u64(*block);
            engine.submit(op);
        }
        for Completion { op, result } in finish(&mut *engine) {
            assert_eq!(result.expect("a write"), SLOT);
            assert!(batch.contains(&crate::units::to_usize(op.tag)), "a foreign tag came back");
        }
    }
    engine.submit(Op::sync(Arc::clone(&file)));
    assert_eq!(finish(&mut *engine).len(), 1);
    let mut engine = make(SLOTS, arena);
    for batch in blocks.chunks(SLOTS) {
        for block in batch {
            let slot = arena.try_take(0).expect("a slot for each operation");
            let mut op = Op::read(Arc::clone(&file), crate::units::to_u64(block * SLOT), SLOT, slot);
            op.tag = crate::units::to_u64(*block);
            engine.submit(op);
        }
        for Completion { op, result } in finish(&mut *engine) {
            assert_eq!(result.expect("a read"), SLOT);
            let block = crate::units::to_usize(op.tag);
            let found = op.buf.expect("a read has its buffer");
            assert!(found[..] == expected[block * SLOT..(block + 1) * SLOT], "block {block} differs");
        }
    }
}

fn end_of_file_and_errors_are_told(make: Make<'_>, arena: &Arc<Arena>, directory: &Directory) {
    let mut engine = make(2, arena);
    let file = DeviceFile::open(directory, "whole", Access::Read).expect("the file of before");
    let past = file.size_bytes().expect("a length") + crate::units::to_u64(SLOT);
    let slot = arena.try_take(0).expect("a slot");
    engine.submit(Op::read(Arc::clone(&file), past, SLOT, slot));
    let done = finish(&mut *engine).pop().expect("one completion");
    assert_eq!(done.result.expect("end of file is no error"), 0);
    // The file is open for reading alone.
    engine.submit(Op::write(file, 0, SLOT, done.op.buf.expect("the buffer")));
    let done = finish(&mut *engine).pop().expect("one completion");
    assert!(done.result.is_err(), "a write to a read-only descriptor passed");
}

fn a_waker_ends_the_wait(make: Make<'_>, arena: &Arc<Arena>) {
    let mut engine = make(2, arena);
    for _ in 0..3 {
        let waker = engine.waker();
        std::thread::scope(|scope| {
            scope.spawn(move || waker.wake());
            let mut completed = Vec::new();
            engine.wait(&mut completed).expect("a working engine");
            assert!(completed.is_empty());
        });
    }
}

fn drop_gives_every_buffer_back(make: Make<'_>, arena: &Arc<Arena>, directory: &Directory) {
    let file = DeviceFile::open(directory, "whole", Access::Read).expect("the file of before");
    for started in 0..SLOTS {
        let mut engine = make(SLOTS, arena);
        for block in 0..started {
            let slot = arena.try_take(0).expect("the last engine gave its buffers back");
            engine.submit(Op::read(Arc::clone(&file), crate::units::to_u64(block * SLOT), SLOT, slot));
        }
        if started % 2 == 1 {
            engine.wait(&mut Vec::new()).expect("a working engine");
        }
        drop(engine);
        assert_eq!(arena.free_slots(), SLOTS, "dropped with {started} submitted");
    }
}
