use std::sync::Arc;

use super::*;
use crate::buf::Arena;
use crate::testing::{self, FaultEngine, FaultPlan, conformance};

fn tmp() -> tempfile::TempDir {
    // Not /tmp, which may be a tmpfs without O_DIRECT: the build directory lies on a disk.
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

#[test]
fn psync_conforms() {
    conformance::io_engine(tmp().path(), 1, &|depth, _| Box::new(PsyncEngine::new(depth).unwrap()));
}

#[test]
fn uring_conforms() {
    let arena = Arena::new("probe", 4096, 1, &crate::buf::HeapAllocator).unwrap();
    if let Err(error) = UringEngine::new(1, Some(&arena)) {
        return testing::skip("io_uring", &error.to_string());
    }
    conformance::io_engine(tmp().path(), 2, &|depth, arena| {
        Box::new(UringEngine::new(depth, Some(arena)).unwrap())
    });
    conformance::io_engine(tmp().path(), 3, &|depth, _| Box::new(UringEngine::new(depth, None).unwrap()));
}

#[test]
fn a_fault_engine_without_faults_conforms() {
    conformance::io_engine(tmp().path(), 4, &|depth, _| {
        Box::new(FaultEngine::new(Box::new(PsyncEngine::new(depth).unwrap()), FaultPlan::default()))
    });
}

mod service {
    use super::*;
    use crate::buf::HeapAllocator;
    use crate::device::{Access, DeviceFile, Directory};
    use crate::error::ErrorKind;

    const SLOT: usize = 64 * 1024;

    fn service(plan: FaultPlan) -> IoService {
        let config = ServiceConfig { fast_depth: 4, slow_depth: 1, ..ServiceConfig::default() };
        IoService::start_with(&config, move || {
            let engine = FaultEngine::new(Box::new(PsyncEngine::new(5)?), plan);
            let report = engine.report();
            Ok((Box::new(engine) as Box<dyn IoEngine>, report))
        })
        .unwrap()
    }

    #[test]
    fn short_and_interrupted_transfers_are_finished() {
        let dir = tmp();
        let directory = Directory::open(dir.path()).unwrap();
        let arena = Arena::new("test", SLOT, 4, &HeapAllocator).unwrap();
        for seed in 0..20 {
            let service = service(FaultPlan { seed, short: 2, interrupted: 3, ..FaultPlan::default() });
            let file = DeviceFile::open(&directory, &format!("f{seed}"), Access::CreateNew).unwrap();
            let mut slot = arena.try_take(0).unwrap();
            crate::testing::Random::new(seed).fill(&mut slot);
            let expected = slot.to_vec();
            let op = Op::write(Arc::clone(&file), 0, SLOT, slot);
            let mut slot = service.run(op, Lane::Fast, Priority::Demand).unwrap().buf.unwrap();
            slot.fill(0);
            let slot = service.read(&file, 0, SLOT, slot, Lane::Slow).unwrap();
            assert!(slot[..] == expected, "seed {seed}");
            let error = service.read(&file, 4096, SLOT, slot, Lane::Slow).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "reading past the end, seed {seed}");
        }
        assert_eq!(arena.free_slots(), 4);
    }

    #[test]
    fn device_errors_name_file_and_offset() {
        let dir = tmp();
        let directory = Directory::open(dir.path()).unwrap();
        let arena = Arena::new("test", SLOT, 1, &HeapAllocator).unwrap();
        let service = service(FaultPlan { read_error: 1, no_space: 1, ..FaultPlan::default() });
        let file = DeviceFile::open(&directory, "f", Access::CreateNew).unwrap();
        let op = Op::write(Arc::clone(&file), 8192, SLOT, arena.try_take(0).unwrap());
        assert_eq!(service.run(op, Lane::Fast, Priority::Demand).unwrap_err().kind(), ErrorKind::Full);
        let error = service.read(&file, 8192, SLOT, arena.try_take(0).unwrap(), Lane::Fast).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.to_string().contains("/f` (offset 8192, 65536 bytes)"), "{error}");
    }

    #[test]
    fn urgent_requests_overtake() {
        let dir = tmp();
        let queue = Queue::new(&dir);
        let (gate, opened) = crossbeam::channel::bounded::<()>(0);
        // The first holds the I/O thread until all others are queued behind it.
        queue.submit(0, Priority::Demand, 0, Some(opened));
        (1..=10).for_each(|tag| queue.submit(tag, Priority::Background, 0, None));
        (11..=20).for_each(|tag| queue.submit(tag, Priority::Announced, 100 - tag, None));
        queue.submit(21, Priority::Demand, 0, None);
        queue.service.raise(Lane::Slow, 10, Priority::Demand);
        drop(gate);
        let order: Vec<u64> = (0..22).map(|_| queue.finished.recv().unwrap().unwrap()).collect();
        let expected: Vec<u64> = [0, 10, 21].into_iter().chain((11..=20).rev()).chain(1..=9).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn dropping_the_service_answers_every_request() {
        let dir = tmp();
        let queue = Queue::new(&dir);
        (0..30).for_each(|tag| queue.submit(tag, Priority::Background, 0, None));
        let Queue { service, arena, send, finished, .. } = queue;
        drop(service);
        drop(send);
        let answers: Vec<_> = finished.iter().collect();
        assert_eq!(answers.len(), 30);
        let refused = |answer: &crate::Result<u64>| {
            answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Closed)
        };
        assert!(answers.iter().all(|answer| answer.is_ok() || refused(answer)));
        assert_eq!(arena.free_slots(), arena.slots());
    }

    /// A service with one operation in flight on the slow lane, and requests that report their tag when done.
    struct Queue {
        service: IoService,
        arena: Arc<Arena>,
        file: Arc<DeviceFile>,
        send: crossbeam::channel::Sender<crate::Result<u64>>,
        finished: crossbeam::channel::Receiver<crate::Result<u64>>,
    }

    impl Queue {
        fn new(dir: &tempfile::TempDir) -> Self {
            let directory = Directory::open(dir.path()).unwrap();
            let file = DeviceFile::open(&directory, "f", Access::CreateNew).unwrap();
            file.reserve(crate::units::to_u64(SLOT)).unwrap();
            let (send, finished) = crossbeam::channel::unbounded();
            let arena = Arena::new("test", SLOT, 40, &HeapAllocator).unwrap();
            Self { service: service(FaultPlan::default()), arena, file, send, finished }
        }

        fn submit(
            &self,
            tag: u64,
            priority: Priority,
            deadline: u64,
            hold: Option<crossbeam::channel::Receiver<()>>,
        ) {
            let mut op = Op::read(Arc::clone(&self.file), 0, SLOT, self.arena.try_take(0).unwrap());
            op.tag = tag;
            let send = self.send.clone();
            let done: Done = Box::new(move |op, result| {
                if let Some(hold) = hold {
                    let _opened = hold.recv();
                }
                let tag = op.unwrap().tag;
                send.send(result.map(|()| tag)).unwrap();
            });
            self.service.submit(Request { op, lane: Lane::Slow, priority, deadline, done });
        }
    }
}
