//! The queues and their thread.

use std::time::Duration;

use super::*;
use crate::buf::HeapAllocator;
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
    let refused =
        |answer: &crate::Result<u64>| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Closed);
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
        Self::with(dir, FaultPlan::default())
    }

    fn with(dir: &tempfile::TempDir, plan: FaultPlan) -> Self {
        let directory = Directory::open(dir.path()).unwrap();
        let file = DeviceFile::open(&directory, "f", Access::CreateNew).unwrap();
        file.reserve(crate::units::to_u64(SLOT)).unwrap();
        let (send, finished) = crossbeam::channel::unbounded();
        let arena = Arena::new("test", SLOT, 40, &HeapAllocator).unwrap();
        Self { service: service(plan), arena, file, send, finished }
    }

    fn submit(
        &self,
        tag: u64,
        priority: Priority,
        deadline: u64,
        hold: Option<crossbeam::channel::Receiver<()>>,
    ) {
        self.service.submit(self.request(tag, priority, deadline, hold));
    }

    fn request(
        &self,
        tag: u64,
        priority: Priority,
        deadline: u64,
        hold: Option<crossbeam::channel::Receiver<()>>,
    ) -> Request {
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
        Request { op, lane: Lane::Slow, priority, deadline, done }
    }
}

/// Reads of `SLOT` bytes at these offsets, queued behind one that holds the thread, come back with the right bytes.
/// Returns what was counted of them, and which failed.
fn read_behind_a_gate(plan: FaultPlan, offsets: &[u64]) -> (crate::metrics::IoSnapshot, Vec<u64>) {
    let dir = tmp();
    let queue = Queue::with(&dir, plan);
    let mut content = vec![0; 16 * SLOT];
    crate::testing::Random::new(9).fill(&mut content);
    std::fs::write(queue.file.path(), &content).unwrap();
    let (gate, opened) = crossbeam::channel::bounded::<()>(0);
    let (enter, entered) = crossbeam::channel::bounded::<()>(1);
    let op = Op::read(Arc::clone(&queue.file), 0, SLOT, queue.arena.try_take(0).unwrap());
    let done: Done = Box::new(move |_, _| {
        enter.send(()).unwrap();
        assert!(opened.recv().is_err(), "the gate is dropped");
    });
    let first = Request { op, lane: Lane::Fast, priority: Priority::Demand, deadline: 0, done };
    queue.service.submit(first);
    // From here on the thread waits at the gate, and looks at everything that follows at once.
    entered.recv().unwrap();
    let (send, results) = crossbeam::channel::unbounded();
    for offset in offsets.iter().copied() {
        let op = Op::read(Arc::clone(&queue.file), offset, SLOT, queue.arena.try_take(0).unwrap());
        let send = send.clone();
        let done: Done = Box::new(move |op, result| send.send((offset, op.unwrap(), result)).unwrap());
        let request =
            Request { op, lane: Lane::Slow, priority: Priority::Announced, deadline: offset % 7, done };
        queue.service.submit(request);
    }
    drop((gate, send));
    let mut failed = Vec::new();
    for (offset, op, result) in results {
        match result {
            Ok(()) => {
                let start = crate::units::to_usize(offset);
                assert!(op.buf.unwrap()[..] == content[start..start + SLOT], "offset {offset}");
            }
            Err(error) => {
                assert!(error.to_string().contains(&format!("offset {offset}, ")), "{error}");
                failed.push(offset);
            }
        }
    }
    failed.sort_unstable();
    (queue.service.counters().snapshot(), failed)
}

const S: u64 = SLOT as u64;

#[test]
fn neighbours_are_read_at_once_whatever_their_order() {
    // A gap of one slot is read, one of nine is beyond the limit of 512 KiB.
    let (counted, failed) = read_behind_a_gate(FaultPlan::default(), &[6 * S, 3 * S, 7 * S, 4 * S]);
    assert!(failed.is_empty());
    // The gate's read, and one for all four.
    assert_eq!((counted.reads, counted.merged_reads, counted.merged_gap_bytes), (2, 3, S));
    assert_eq!(counted.read_bytes, S + 5 * S);
    let (counted, _) = read_behind_a_gate(FaultPlan::default(), &[0, 10 * S, 11 * S]);
    assert_eq!((counted.reads, counted.merged_reads, counted.merged_gap_bytes), (3, 1, 0));
}

#[test]
fn of_merged_reads_that_fail_each_is_answered_for_itself() {
    // The last two lie at and behind the end of the file.
    let (counted, failed) = read_behind_a_gate(FaultPlan::default(), &[14 * S, 15 * S, 16 * S, 17 * S]);
    assert_eq!(failed, [16 * S, 17 * S]);
    assert!(counted.merged_reads >= 3);
    for seed in 0..20 {
        let plan = FaultPlan { seed, short: 2, interrupted: 3, ..FaultPlan::default() };
        let (counted, failed) = read_behind_a_gate(plan, &[2 * S, S, 0, 3 * S]);
        assert!(failed.is_empty() && counted.merged_reads == 3, "seed {seed}: {counted:?}");
    }
}

#[test]
fn many_at_once_cost_one_message() {
    let dir = tmp();
    let queue = Queue::new(&dir);
    let mut requests: Vec<Request> =
        (0..20).map(|tag| queue.request(tag, Priority::Demand, 0, None)).collect();
    queue.service.submit_all(&mut requests);
    assert!(requests.is_empty());
    let mut tags: Vec<u64> = (0..20).map(|_| queue.finished.recv().unwrap().unwrap()).collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..20));
}

#[test]
fn idle_threads_do_nothing() {
    let arena = Arena::new("test", SLOT, 4, &HeapAllocator).unwrap();
    let dir = tmp();
    for engine in [EngineChoice::Auto, EngineChoice::Psync, EngineChoice::Mmap] {
        let config = ServiceConfig { engine, ..ServiceConfig::default() };
        let service = IoService::start(&config, Some(&arena)).unwrap();
        let name = format!("{engine}");
        std::fs::write(dir.path().join(&name), vec![1; SLOT]).unwrap();
        let file = DeviceFile::open(&directory(&dir, true), &name, Access::Read).unwrap();
        let (send, thread) = crossbeam::channel::bounded(1);
        let op = Op::read(file, 0, SLOT, arena.try_take(0).unwrap());
        let done: Done = Box::new(move |_, _| send.send(rustix::thread::gettid()).unwrap());
        service.submit(Request { op, lane: Lane::Fast, priority: Priority::Demand, deadline: 0, done });
        let thread = thread.recv().unwrap().as_raw_nonzero();
        // How often it ran, for how long in all, and the system call it is in.
        let look = || {
            let of = |what| std::fs::read_to_string(format!("/proc/self/task/{thread}/{what}")).unwrap();
            (of("schedstat"), of("syscall"))
        };
        // Nothing comes on this channel: only time passes, until the thread has gone to sleep, then over the window.
        let (_nobody_sends, silence) = crossbeam::channel::bounded::<()>(1);
        let mut before = look();
        for _ in 0..100 {
            assert!(silence.recv_timeout(Duration::from_millis(20)).is_err());
            let now = look();
            if now == before {
                break;
            }
            before = now;
        }
        assert!(silence.recv_timeout(Duration::from_millis(300)).is_err());
        assert_eq!(look(), before, "{} ran while there was nothing to do", service.report());
    }
}
