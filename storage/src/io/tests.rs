use std::sync::Arc;

use super::*;
use crate::buf::Arena;
use crate::device::{Access, DeviceFile, Directory};
use crate::testing::{self, FaultEngine, FaultPlan, conformance};

fn tmp() -> tempfile::TempDir {
    // Not /tmp, which may be a tmpfs without O_DIRECT: the build directory lies on a disk.
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// The rungs of the ladder that go through the page cache are asked for one that takes no O_DIRECT.
fn directory(dir: &tempfile::TempDir, direct: bool) -> Arc<Directory> {
    let directory = Directory::open(dir.path()).unwrap();
    if !direct {
        directory.leave_direct("a test asks for it");
    }
    directory
}

fn psync(depth: usize, _: &Arc<Arena>) -> Box<dyn IoEngine> {
    Box::new(PsyncEngine::new(depth).unwrap())
}

#[test]
fn psync_conforms() {
    for direct in [true, false] {
        conformance::io_engine_in(&directory(&tmp(), direct), 1, &psync, &psync);
    }
}

#[test]
fn mmap_conforms() {
    let mmap = |depth, _: &Arc<Arena>| Box::new(MmapEngine::new(depth)) as Box<dyn IoEngine>;
    for direct in [true, false] {
        conformance::io_engine_in(&directory(&tmp(), direct), 5, &psync, &mmap);
    }
}

fn without_uring() -> bool {
    let missing = UringEngine::new(1, None).err();
    missing.inspect(|error| testing::skip("io_uring", &error.to_string())).is_some()
}

#[test]
fn uring_conforms() {
    if without_uring() {
        return;
    }
    let registered = |depth, arena: &Arc<Arena>| {
        Box::new(UringEngine::new(depth, Some(arena)).unwrap()) as Box<dyn IoEngine>
    };
    let plain = |depth, _: &Arc<Arena>| Box::new(UringEngine::new(depth, None).unwrap()) as Box<dyn IoEngine>;
    for direct in [true, false] {
        conformance::io_engine_in(&directory(&tmp(), direct), 2, &registered, &registered);
        conformance::io_engine_in(&directory(&tmp(), direct), 3, &plain, &plain);
    }
}

#[test]
fn a_limit_on_locked_memory_registers_less_and_says_so() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    if without_uring() {
        return;
    }
    let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Memlock).current else {
        return testing::skip("memlock", "there is no limit on locked memory here");
    };
    // Capabilities are a thread's own: the other tests keep theirs.
    let test = move || {
        let mut mine = capabilities(None).unwrap();
        mine.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, mine).unwrap();
        let slots = crate::units::to_usize(limit).div_ceil(1 << 20) + 4;
        let arena = Arena::new("large", 1 << 20, slots, &crate::buf::HeapAllocator).unwrap();
        let dir = tmp();
        let file = DeviceFile::open(&directory(&dir, true), "f", Access::CreateNew).unwrap();
        file.reserve(4096).unwrap();
        let mut engine = UringEngine::new(slots, Some(&arena)).unwrap();
        let report = engine.report().to_string();
        assert!(report.contains("RLIMIT_MEMLOCK"), "{report}");
        // Slots of both kinds are read into.
        for _ in 0..slots {
            engine.submit(Op::read(Arc::clone(&file), 0, 4096, arena.try_take(0).unwrap()));
        }
        let mut completed = Vec::new();
        while completed.len() < slots {
            engine.wait(&mut completed).unwrap();
        }
        assert!(completed.iter().all(|done| done.result.as_ref().is_ok_and(|moved| *moved == 4096)));
    };
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn a_ring_lets_go_of_a_closed_file() {
    use rustix::fs::{FlockOperation, flock};
    if without_uring() {
        return;
    }
    let dir = tmp();
    let directory = directory(&dir, true);
    let arena = Arena::new("test", 4096, 1, &crate::buf::HeapAllocator).unwrap();
    let mut engine = UringEngine::new(1, Some(&arena)).unwrap();
    let mut completed = Vec::new();
    // More than a ring knows at a time.
    for number in 0..300 {
        let file = DeviceFile::open(&directory, &format!("f{number}"), Access::CreateNew).unwrap();
        // Held as long as anybody has this open file, the kernel included.
        flock(&file, FlockOperation::LockExclusive).unwrap();
        engine.submit(Op::read(file, 0, 4096, arena.try_take(0).unwrap()));
        engine.wait(&mut completed).unwrap();
        assert_eq!(completed.pop().unwrap().result.unwrap(), 0);
    }
    // The last one closed wakes the engine, which then takes all of them out.
    engine.wait(&mut completed).unwrap();
    engine.waker().wake();
    engine.wait(&mut completed).unwrap();
    for number in 0..300 {
        let again = DeviceFile::open(&directory, &format!("f{number}"), Access::Read).unwrap();
        flock(&again, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}

#[test]
fn a_fault_engine_without_faults_conforms() {
    conformance::io_engine(tmp().path(), 4, &|depth, _| {
        Box::new(FaultEngine::new(Box::new(PsyncEngine::new(depth).unwrap()), FaultPlan::default()))
    });
}

mod queue;
mod service;
