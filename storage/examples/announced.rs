//! Announced random reads of a disk, with what its queue does to them and without: `announced DIR [READS]`.
//!
//! Reads of 64 KiB at random places of a file of 1 GiB and of one of 128 MiB, each announced 64 ahead. Printed for each:
//! MB/s of what was asked for, reads that the device did, and how far its head went per read.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tierstream_storage::buf::{Arena, HeapAllocator};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::device::{Access, DeviceFile, Directory};
use tierstream_storage::host::channel::bounded;
use tierstream_storage::io::{IoService, Lane, MergeLimits, Op, Priority, Request, ServiceConfig};
use tierstream_storage::testing::{Random, tell};

const BLOCK: usize = 64 << 10;
const AHEAD: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let directory = Directory::open(Path::new(args.first().ok_or("usage: announced DIR [READS]")?))?;
    let reads: u64 = args.get(1).map_or(Ok(1000), |reads| reads.parse())?;
    for mib in [1024, 128] {
        let name = format!("announced-{mib}");
        let file = match DeviceFile::open(&directory, &name, Access::Read) {
            Ok(file) => file,
            Err(_) => write(&directory, &name, mib << 20)?,
        };
        let disk = MergeLimits::DISK;
        for (what, slow_merge, slow_sweep) in [
            ("one by one, as they come", MergeLimits::NONE, 0),
            ("neighbours become one", disk, 0),
            ("in a sweep, neighbours become one", disk, 64),
        ] {
            let config = ServiceConfig { slow_merge, slow_sweep, ..ServiceConfig::default() };
            run(&config, &file, mib << 20, reads, &format!("{mib:5} MiB, {what}"))?;
        }
    }
    Ok(())
}

fn write(
    directory: &Arc<Directory>,
    name: &str,
    bytes: u64,
) -> Result<Arc<DeviceFile>, Box<dyn std::error::Error>> {
    let file = DeviceFile::open(directory, name, Access::CreateNew)?;
    let arena = Arena::new("write", 1 << 20, 2, &HeapAllocator)?;
    let io = IoService::start(&ServiceConfig::default(), Some(&arena))?;
    for offset in (0..bytes).step_by(1 << 20) {
        let mut buf = arena.take(std::time::Duration::from_secs(60))?;
        Random::new(offset).fill(&mut buf);
        let op = Op::write(Arc::clone(&file), offset, 1 << 20, buf);
        io.run(op, Lane::Slow, Priority::Background)?;
    }
    io.run(Op::sync(Arc::clone(&file)), Lane::Slow, Priority::Background)?;
    Ok(file)
}

fn run(
    config: &ServiceConfig,
    file: &Arc<DeviceFile>,
    bytes: u64,
    reads: u64,
    what: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let arena = Arena::new("read", BLOCK, AHEAD, &HeapAllocator)?;
    let io = IoService::start(config, Some(&arena))?;
    let mut random = Random::new(7);
    let blocks = bytes / BLOCK as u64;
    let (send, receive) = bounded(AHEAD);
    // Where the reads ended, in the order in which the device answered.
    let answered = Arc::new(Mutex::new(Vec::new()));
    let clock = SystemClock::new();
    let (mut asked, mut done) = (0, 0);
    while done < reads {
        while asked < reads
            && let Ok(buf) = arena.take(std::time::Duration::ZERO)
        {
            let offset = random.below(blocks) * BLOCK as u64;
            let op = Op::read(Arc::clone(file), offset, BLOCK, buf);
            let (send, answered) = (send.clone(), Arc::clone(&answered));
            let done = Box::new(move |op: Option<Op>, result: tierstream_storage::Result<()>| {
                if let (Some(op), Ok(mut answered)) = (&op, answered.lock()) {
                    answered.push(op.offset);
                }
                drop(op);
                drop(send.send(result));
            });
            io.submit(Request { op, lane: Lane::Slow, priority: Priority::Announced, deadline: asked, done });
            asked += 1;
        }
        receive.recv()??;
        done += 1;
    }
    let seconds = clock.now().as_secs_f64();
    let answered = answered.lock().map_err(|_| "a callback panicked")?;
    let way: u64 = answered.windows(2).map(|two| two[1].abs_diff(two[0])).sum();
    tell(&format!(
        "{what:48} {:6.1} MB/s, {:4} reads of the device for {reads}, {:7.1} MiB of way each",
        (reads * BLOCK as u64) as f64 / 1e6 / seconds,
        io.counters().snapshot().reads,
        way as f64 / reads as f64 / f64::from(1 << 20),
    ));
    Ok(())
}
