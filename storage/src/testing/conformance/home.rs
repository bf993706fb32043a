//! The suite of [`ShardHome`].

use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::buf::{Arena, HeapAllocator};
use crate::error::{ErrorKind, Result};
use crate::home::{ShardFile, ShardHome, Upload, read_at};
use crate::host::channel::bounded;
use crate::io::{IoService, Priority};
use crate::testing::{Random, announce_seed};
use crate::units::{to_u64, to_usize};

const BLOCK: usize = 8 * 1024;
const WAIT: Duration = Duration::from_secs(60);

struct Suite<'a> {
    home: &'a dyn ShardHome,
    io: &'a IoService,
    arena: Arc<Arena>,
}

/// Runs the suite on `home`, which is empty, through `io`.
///
/// # Panics
/// When the home breaks a promise of the trait.
pub fn shard_home(home: &dyn ShardHome, io: &IoService, seed: u64) {
    announce_seed("shard home", seed);
    let arena = Arena::new("test", BLOCK, 16, &HeapAllocator).expect("memory");
    let suite = Suite { home, io, arena };
    suite.what_is_not_published_is_not_there();
    suite.blocks_come_in_any_order_and_ranges_are_read(&mut Random::new(seed));
    suite.a_name_is_published_once();
    suite.what_is_open_never_turns_into_something_else();
    suite.leftovers_go_and_nothing_else();
}

impl Suite<'_> {
    fn write(&self, upload: &dyn Upload, bytes: &[u8], mut order: Vec<usize>) {
        let (send, receive) = bounded(order.len().max(1));
        let count = order.len();
        for block in order.drain(..) {
            let from = &bytes[block * BLOCK..bytes.len().min((block + 1) * BLOCK)];
            let mut buf = self.arena.take(WAIT).expect("a buffer comes back");
            buf[..from.len()].copy_from_slice(from);
            let send = send.clone();
            let done = Box::new(move |buf, result: Result<()>| {
                drop(buf);
                drop(send.send(result));
            });
            upload.write(self.io, buf, to_u64(block * BLOCK), from.len(), done);
        }
        for _ in 0..count {
            receive.recv().expect("every write is answered").expect("and ends well");
        }
    }

    fn upload(&self, name: &str, bytes: &[u8]) -> Arc<dyn Upload> {
        let upload = self.home.begin(name).expect("an upload");
        self.write(&*upload, bytes, (0..bytes.len().div_ceil(BLOCK)).collect());
        upload
    }

    fn publish(&self, name: &str, bytes: &[u8]) {
        self.upload(name, bytes).publish(self.io).expect("published");
    }

    fn read(&self, file: &dyn ShardFile, offset: usize, len: usize) -> Result<Vec<u8>> {
        let buf = self.arena.take(WAIT).expect("a buffer comes back");
        let buf = read_at(file, self.io, (to_u64(offset), len), buf, Priority::Demand)?;
        Ok(buf[..len].to_vec())
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.home.list().expect("a list");
        names.sort();
        names
    }

    fn what_is_not_published_is_not_there(&self) {
        assert!(self.names().is_empty(), "the home is empty at first");
        assert_eq!(self.home.open("a").expect_err("nothing is there").kind(), ErrorKind::Missing);
        self.home.remove("a").expect("that nothing is there is no error");
        self.home.settle().expect("settled");
        let upload = self.upload("a", &[1; 3 * BLOCK]);
        assert!(self.names().is_empty(), "not before it is published");
        assert_eq!(self.home.open("a").expect_err("not yet").kind(), ErrorKind::Missing);
        drop(upload);
        assert!(self.names().is_empty());
        assert_eq!(self.home.clean_up(&|_| true).expect("cleaned up"), 0, "nothing is left of it");
    }

    fn blocks_come_in_any_order_and_ranges_are_read(&self, random: &mut Random) {
        let mut bytes = vec![0; 9 * BLOCK + 4096];
        random.fill(&mut bytes);
        let upload = self.home.begin("a").expect("an upload");
        let mut order: Vec<usize> = (0..10).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, to_usize(random.below(to_u64(last + 1))));
        }
        self.write(&*upload, &bytes, order);
        upload.publish(self.io).expect("published");
        drop(upload);
        assert_eq!(self.names(), ["a"]);
        let file = self.home.open("a").expect("it is there");
        assert_eq!(file.size_bytes().expect("a length"), to_u64(bytes.len()));
        assert!(file.path().starts_with(self.home.location()), "{:?}", file.path());
        for _ in 0..50 {
            // Aligned, as all stored blocks are.
            let sectors = bytes.len() / 4096;
            let start = to_usize(random.below(to_u64(sectors)));
            let len = 1 + to_usize(random.below(2)).min(sectors - start - 1);
            let range = start * 4096..(start + len) * 4096;
            assert!(self.read(&*file, range.start, range.len()).expect("read") == bytes[range]);
        }
        let beyond = self.read(&*file, bytes.len(), 4096).expect_err("beyond the end");
        assert_eq!(beyond.kind(), ErrorKind::Corrupt, "{beyond}");
        self.publish("empty", &[]);
        assert_eq!(self.home.open("empty").expect("it is there").size_bytes().expect("a length"), 0);
        self.home.remove("empty").expect("removed");
    }

    fn a_name_is_published_once(&self) {
        let first = self.read(&*self.home.open("a").expect("it is there"), 0, 4096).expect("read");
        let upload = self.home.begin("a").expect("whether the name is free shows when it is published");
        self.write(&*upload, &[9; BLOCK], vec![0]);
        let refused = upload.publish(self.io).expect_err("the name is taken");
        drop(upload);
        assert_eq!(refused.kind(), ErrorKind::Misuse, "{refused}");
        let again = self.read(&*self.home.open("a").expect("it is there"), 0, 4096).expect("read");
        assert!(first == again, "what is there stays");
        let barrier = Barrier::new(4);
        let published = std::thread::scope(|scope| {
            let race = |number: u8| {
                let (barrier, suite) = (&barrier, self);
                scope.spawn(move || {
                    barrier.wait();
                    let begun = suite.home.begin("raced");
                    let upload =
                        begun.inspect_err(|error| assert_eq!(error.kind(), ErrorKind::Misuse)).ok()?;
                    suite.write(&*upload, &[number; BLOCK], vec![0]);
                    let published = upload.publish(suite.io);
                    published.inspect_err(|error| assert_eq!(error.kind(), ErrorKind::Misuse)).ok()?;
                    Some(number)
                })
            };
            let racers: Vec<_> = (1..=4).map(race).collect();
            racers.into_iter().filter_map(|racer| racer.join().expect("no panic")).collect::<Vec<u8>>()
        });
        assert_eq!(published.len(), 1, "one wins: {published:?}");
        let raced = self.home.open("raced").expect("it is there");
        assert_eq!(self.read(&*raced, 0, BLOCK).expect("read"), [published[0]; BLOCK]);
        self.home.remove("raced").expect("removed");
    }

    fn what_is_open_never_turns_into_something_else(&self) {
        self.publish("b", &[1; 2 * BLOCK]);
        let old = self.home.open("b").expect("it is there");
        let version = old.version().expect("a version");
        let same = self.home.open("b").expect("it is there").version().expect("a version");
        assert_eq!(version, same);
        self.home.remove("b").expect("removed");
        self.home.settle().expect("settled");
        assert_eq!(self.home.open("b").expect_err("removed").kind(), ErrorKind::Missing);
        self.publish("b", &[2; 2 * BLOCK]);
        let new = self.home.open("b").expect("it is there");
        assert_ne!(version, new.version().expect("a version"));
        assert_eq!(self.read(&*new, BLOCK, 4096).expect("read"), [2; 4096]);
        match self.read(&*old, BLOCK, 4096) {
            Ok(bytes) => assert_eq!(bytes, [1; 4096], "what was opened is what is read"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Missing, "{error}"),
        }
        self.home.remove("b").expect("removed");
        self.home.remove("a").expect("removed");
        assert!(self.names().is_empty());
    }

    fn leftovers_go_and_nothing_else(&self) {
        self.publish("kept", &[1; BLOCK]);
        let writing = [self.upload("ours", &[2; BLOCK]), self.upload("ours", &[4; BLOCK])];
        let theirs = self.upload("theirs", &[3; BLOCK]);
        // As a process leaves them that is killed.
        assert_eq!(self.home.clean_up(&|name| name == "ours").expect("cleaned up"), 2);
        for writing in writing {
            writing.publish(self.io).expect_err("nothing is left to publish");
        }
        theirs.publish(self.io).expect("somebody else's goes on");
        assert_eq!(self.names(), ["kept", "theirs"]);
        if let Some(lock) = self.home.lock().expect("a lock, or none") {
            assert_eq!(self.home.lock().expect_err("held").kind(), ErrorKind::Retry);
            drop(lock);
            self.home.lock().expect("free again");
        }
    }
}
