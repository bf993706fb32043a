//! Simulated disks: files and directories in memory, what of them is durable, what goes wrong, and crashes.
//!
//! One tree of names with two devices: `/l2`, `/l2-b` and `/l2-c` share one, `/l3` is the other. A crash comes with an operation that changes something, chosen
//! by number: the operation is done in part or not at all, and from then on every call fails, until
//! [`Disk::restart`] shows what the crash left.

mod content;
mod directory;
mod faults;
mod files;

pub use faults::{Fault, FaultCounts, FaultRates, Part};

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content::Content;
use directory::{Inode, Names};

use super::host::mix;
use crate::testing::Random;
use crate::units::{to_u64, to_usize};

const ROOT: Inode = 0;
/// Directories in the root, which are there from the start; the last is L3.
const TOP: [&str; 4] = ["l2", "l2-b", "l2-c", "l3"];

/// What disks are like.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// Bytes that fit L2's device.
    pub l2_bytes: u64,
    /// How often faults strike while they are on.
    pub faults: FaultRates,
    /// What the disks only pretend to do.
    pub sabotage: Option<Sabotage>,
    /// Whether names reach the disk in the order of their changes, as on a file system with one journal; else each
    /// directory keeps an order of its own, which is all that POSIX lets a program hope for.
    pub one_journal: bool,
}

/// A disk that lies. The store cannot stand that, so that the simulation must find it: see
/// [`super::simulate_sabotaged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A sync of a file does nothing.
    FileSyncs,
    /// A sync of a directory does nothing.
    DirectorySyncs,
    /// Whoever renames leaves the old name there too.
    Renames,
}

/// The disks of a machine. Clones are the same disks.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

struct State {
    config: DiskConfig,
    random: Random,
    inodes: Vec<Node>,
    changes: u64,
    faults_on: bool,
    counts: FaultCounts,
    // Changing operations until the crash.
    crash_in: Option<u64>,
    crashed: bool,
    // Which life of the machine this is: what an earlier one had open is closed.
    life: u64,
    locks: Vec<Inode>,
    operations: u64,
    trace: u64,
    // What was done, in words; only for a seed that somebody looks into.
    log: Option<Vec<String>>,
}

#[derive(Debug)]
enum Node {
    File(Content),
    Directory(Names),
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({:?})", self.lock().config)
    }
}

fn fail<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl Disk {
    /// Empty disks with the directories of L2 and L3, without faults until they are turned on.
    #[must_use]
    pub fn new(seed: u64, config: DiskConfig) -> Self {
        let mut root = Names::default();
        for (name, inode) in TOP.into_iter().zip(1..) {
            root.change(0, vec![(name.into(), Some(inode))]);
        }
        root.sync();
        let mut inodes = vec![Node::Directory(root)];
        inodes.extend(TOP.map(|_| Node::Directory(Names::default())));
        let state = State {
            config,
            random: Random::new(seed ^ 0xd15c),
            inodes,
            changes: 0,
            faults_on: false,
            counts: FaultCounts::default(),
            crash_in: None,
            crashed: false,
            life: 0,
            locks: Vec::new(),
            operations: 0,
            trace: seed,
            log: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down every operation from now on.
    pub fn keep_log(&self) {
        self.lock().log = Some(Vec::new());
    }

    /// What was written down since the last call.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        self.lock().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Lets faults strike, or no longer.
    pub fn turn_faults(&self, on: bool) {
        self.lock().faults_on = on;
    }

    /// Crashes the machine with the `operations`-th operation from now that changes something; 0 for never.
    pub fn crash_in(&self, operations: u64) {
        self.lock().crash_in = (operations > 0).then_some(operations);
    }

    /// Whether the machine crashed and was not restarted.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Loses what was not durable, as a crash does, and starts the next life.
    pub fn restart(&self) {
        let mut state = self.lock();
        let State { inodes, random, config, .. } = &mut *state;
        let pending: Vec<u64> = inodes
            .iter()
            .flat_map(
                |node| if let Node::Directory(names) = node { names.pending().collect() } else { vec![] },
            )
            .collect();
        let cut = |random: &mut Random| {
            let choice = to_usize(random.below(to_u64(pending.len()) + 1));
            pending.get(choice).copied().unwrap_or(u64::MAX)
        };
        let common = cut(random).saturating_sub(1);
        for node in inodes {
            match node {
                Node::File(content) => content.crash(random),
                Node::Directory(names) if config.one_journal => names.crash(common),
                Node::Directory(names) => names.crash(cut(random).saturating_sub(1)),
            }
        }
        state.crashed = false;
        state.crash_in = None;
        state.life += 1;
        state.locks.clear();
        state.free_lost();
    }

    /// Counts of faults that struck.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// Operations done.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(super) fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// How long the next operation on a file takes.
    pub(super) fn latency(&self, path: &Path) -> Duration {
        let mut state = self.lock();
        let part = Part::of(path);
        let (least, most) = if part == Part::L3 { (2_000, 12_000) } else { (20, 200) };
        if state.strikes(part, Fault::Slow) {
            return Duration::from_millis(state.random.below(120_000));
        }
        Duration::from_micros(least + state.random.below(most - least))
    }

    /// Flips a stored bit in a file of `part`, if there is one with something in it. Returns which file.
    pub fn rot(&self, part: Part) -> Option<PathBuf> {
        let files = self.files_of(part);
        let mut state = self.lock();
        let candidates: Vec<&PathBuf> = files.iter().filter(|file| !state.pages(file).is_empty()).collect();
        let count = to_u64(candidates.len());
        if count == 0 {
            return None;
        }
        let file = candidates[to_usize(state.random.below(count))].clone();
        let pages = state.pages(&file);
        let page = pages[to_usize(state.random.below(to_u64(pages.len())))];
        let (at, bit) = (page * content::PAGE + state.random.below(content::PAGE), state.random.below(8));
        state.counts.note(Part::of(&file), Fault::Rot);
        let inode = state.find(&file).expect("listed a moment ago");
        if let Node::File(content) = &mut state.inodes[inode] {
            content.flip(at, u8::try_from(bit).expect("one of eight"));
        }
        Some(file)
    }

    /// Whether a fault left wrong bytes in a file's `range` (all of it: `0..u64::MAX`). False where there is no file.
    #[must_use]
    pub fn is_damaged(&self, path: &Path, range: std::ops::Range<u64>) -> bool {
        let state = self.lock();
        let Ok(inode) = state.find(path) else { return false };
        match &state.inodes[inode] {
            Node::File(content) => content.is_damaged(range.start..range.end.min(1 << 40)),
            Node::Directory(_) => false,
        }
    }

    /// All files of a part of the machine.
    #[must_use]
    pub fn files_of(&self, part: Part) -> Vec<PathBuf> {
        let mut files = self.files_below(Path::new("/"));
        files.retain(|file| Part::of(file) == part);
        files
    }

    /// All files below a directory.
    #[must_use]
    pub fn files_below(&self, path: &Path) -> Vec<PathBuf> {
        let state = self.lock();
        let mut found = Vec::new();
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let Ok(inode) = state.find(&path) else { continue };
            match &state.inodes[inode] {
                Node::File(_) => found.push(path),
                Node::Directory(names) => todo.extend(names.iter().map(|(name, _)| path.join(name))),
            }
        }
        found.sort();
        found
    }
}

impl State {
    fn pages(&self, path: &Path) -> Vec<u64> {
        match self.find(path).map(|inode| &self.inodes[inode]) {
            Ok(Node::File(content)) => content.pages(),
            _ => Vec::new(),
        }
    }

    /// Whether `fault` strikes now.
    fn strikes(&mut self, part: Part, fault: Fault) -> bool {
        let often = self.config.faults.one_in(part, fault);
        let strikes = self.faults_on && self.random.one_in(often);
        if strikes {
            self.counts.note(part, fault);
            self.say(|| format!("  {fault:?} strikes {part:?}"));
            self.trace = mix(self.trace, 1 << 32 | fault as u64);
        }
        strikes
    }

    fn note(&mut self, what: u64, inode: Inode, offset: u64, len: usize) {
        self.operations += 1;
        let words = ["read", "write", "sync", "change names of", "sync names of", "set length of", "reserve"];
        self.say(|| format!("{} {inode} at {offset}, {len} bytes", words[to_usize(what)]));
        let place = mix(to_u64(inode) << 40 ^ offset, to_u64(len));
        self.trace = mix(self.trace, place ^ what);
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(what());
        }
    }

    /// Counts an operation that changes something. True when the machine crashes with it.
    fn step(&mut self) -> bool {
        if let Some(left) = &mut self.crash_in {
            *left -= 1;
            if *left == 0 {
                self.crashed = true;
                self.say(|| "  the machine crashes".to_owned());
                self.trace = mix(self.trace, 0xdead);
            }
        }
        self.crashed
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { fail(libc::EIO) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for component in path.components() {
            let name = match component {
                Component::RootDir => continue,
                Component::Normal(name) => name,
                _ => return fail(libc::EINVAL),
            };
            match &self.inodes[inode] {
                Node::File(_) => return fail(libc::ENOTDIR),
                Node::Directory(names) => {
                    let Some(found) = names.get(name) else { return fail(libc::ENOENT) };
                    inode = found;
                }
            }
        }
        Ok(inode)
    }

    /// The directory that a path is in, and the name there.
    fn parent(&self, path: &Path) -> io::Result<(Inode, std::ffi::OsString)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return fail(libc::EINVAL) };
        Ok((self.find(parent)?, name.to_owned()))
    }

    fn names(&mut self, inode: Inode) -> io::Result<&mut Names> {
        match &mut self.inodes[inode] {
            Node::Directory(names) => Ok(names),
            Node::File(_) => fail(libc::ENOTDIR),
        }
    }

    fn content(&mut self, inode: Inode) -> io::Result<&mut Content> {
        match &mut self.inodes[inode] {
            Node::File(content) => Ok(content),
            Node::Directory(_) => fail(libc::EISDIR),
        }
    }

    /// Bytes that L2's device has left.
    fn l2_free(&self) -> u64 {
        let on_l3 = self.below(TOP.len());
        let used: u64 = self
            .below(ROOT)
            .into_iter()
            // L3's device is as large as it must be.
            .filter(|inode| !on_l3.contains(inode))
            .map(|inode| if let Node::File(content) = &self.inodes[inode] { content.allocated() } else { 0 })
            .sum();
        self.config.l2_bytes.saturating_sub(used)
    }

    fn below(&self, top: Inode) -> Vec<Inode> {
        let (mut found, mut todo) = (Vec::new(), vec![top]);
        while let Some(inode) = todo.pop() {
            found.push(inode);
            if let Node::Directory(names) = &self.inodes[inode] {
                todo.extend(names.iter().map(|(_, inode)| inode));
            }
        }
        found
    }

    /// Empties what no name leads to any more.
    fn free_lost(&mut self) {
        let reachable = self.below(ROOT);
        for inode in 0..self.inodes.len() {
            if !reachable.contains(&inode) {
                self.inodes[inode] = Node::File(Content::default());
            }
        }
    }
}
