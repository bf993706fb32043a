//! What a real ring does when it is too small, and when operations are cancelled under it.

use std::collections::HashSet;
use std::os::fd::AsFd;

use super::*;
use crate::buf::HeapAllocator;
use crate::device::{Access, DeviceFile, Directory};
use crate::testing::skip;

fn without_uring() -> bool {
    UringEngine::new(1, None).err().inspect(|error| skip("io_uring", &error.to_string())).is_some()
}

fn arena(slots: usize) -> Arc<Arena> {
    Arena::new("test", 4096, slots, &HeapAllocator).unwrap()
}

/// A pipe with a name, open at both ends: a file whose reads wait.
fn pipe() -> (tempfile::TempDir, Arc<DeviceFile>) {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    directory.leave_direct("pipes have no O_DIRECT as files do");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), mode).unwrap();
    let file = DeviceFile::open(&directory, "pipe", Access::ReadWrite).unwrap();
    (dir, file)
}

/// Hands the kernel what was submitted, without waiting for it.
fn push(engine: &mut UringEngine, completed: &mut Vec<Completion>) {
    engine.waker().wake();
    engine.wait(completed).unwrap();
}

#[test]
fn a_ring_that_is_much_smaller_than_the_depth_loses_and_repeats_nothing() {
    if without_uring() {
        return;
    }
    const OPS: usize = 96;
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let bytes: Vec<u8> = (0..OPS * 4096).map(|at| u8::try_from(at / 4096).unwrap()).collect();
    std::fs::write(dir.path().join("f"), bytes).unwrap();
    let file = DeviceFile::open(&directory, "f", Access::Read).unwrap();
    let arena = arena(OPS);
    // Two entries to submit, four for completions: far more complete than fit, and the kernel keeps them aside.
    let mut engine = UringEngine::with_entries(OPS, 2, Some(&arena)).unwrap();
    for round in 0..20 {
        for number in 0..OPS {
            let buf = arena.try_take(0).unwrap();
            let mut op = Op::read(Arc::clone(&file), to_u64(number) * 4096, 4096, buf);
            op.tag = to_u64(number);
            engine.submit(op);
        }
        let mut seen = HashSet::new();
        let mut completed = Vec::new();
        while engine.in_flight() > 0 {
            engine.wait(&mut completed).unwrap();
            for Completion { op, result } in completed.drain(..) {
                assert!(seen.insert(op.tag), "round {round}: {} completed twice", op.tag);
                assert_eq!(result.unwrap(), 4096);
                assert!(op.buf.unwrap().iter().all(|byte| u64::from(*byte) == op.tag));
            }
        }
        assert_eq!((seen.len(), arena.free_slots()), (OPS, OPS));
    }
}

#[test]
fn a_cancelled_operation_comes_back_with_its_buffer_and_can_be_tried_again() {
    if without_uring() {
        return;
    }
    let (_dir, file) = pipe();
    let arena = arena(3);
    let mut engine = UringEngine::new(4, Some(&arena)).unwrap();
    let mut completed = Vec::new();
    for tag in 0..3 {
        let mut op = Op::read(Arc::clone(&file), 0, 4096, arena.try_take(0).unwrap());
        op.tag = tag;
        engine.submit(op);
    }
    // Twice: a file that does not know RWF_DONTCACHE is asked again without.
    push(&mut engine, &mut completed);
    push(&mut engine, &mut completed);
    assert!(completed.is_empty() && engine.in_flight() == 3);
    // The poll on the waker is cancelled with them: it must be armed again.
    engine.cancel_all();
    while completed.len() < 3 {
        engine.wait(&mut completed).unwrap();
    }
    assert_eq!((engine.in_flight(), arena.free_slots()), (0, 0), "the buffers are the operations'");
    for Completion { op, result } in completed.drain(..) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        engine.submit(op);
    }
    push(&mut engine, &mut completed);
    assert!(completed.is_empty());
    rustix::io::write(file.as_fd(), b"at last").unwrap();
    engine.wait(&mut completed).unwrap();
    let Completion { op, result } = completed.pop().unwrap();
    assert_eq!((result.unwrap(), &op.buf.unwrap()[..7]), (7, &b"at last"[..]));
    // Two are still in flight: the drop must not free their buffers, nor wait for ever for a pipe.
    engine.cancel_all();
    drop(engine);
    assert_eq!(arena.free_slots(), 3);
}
