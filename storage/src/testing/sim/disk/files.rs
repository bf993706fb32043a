//! The system calls of simulated files, with their faults.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::content::{Content, PAGE, SECTOR};
use super::directory::{Inode, NameChange, Names};
use super::{Disk, Fault, Node, Part, Sabotage, State, fail};
use crate::host::{Entry, SimulatedFile, SimulatedFiles};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// An open file.
#[derive(Debug)]
struct Open {
    disk: Disk,
    inode: Inode,
    part: Part,
    writable: bool,
    life: u64,
}

/// A lock that is held; dropping it unlocks.
struct Held {
    disk: Disk,
    inode: Inode,
    life: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life {
            state.locks.retain(|locked| *locked != self.inode);
        }
    }
}

impl State {
    /// Changes names of one or more directories in one step, or crashes before or after it.
    fn change(&mut self, path: &Path, changes: Vec<(Inode, Vec<NameChange>)>) -> io::Result<()> {
        self.note(3, changes[0].0, 0, 0);
        if self.strikes(Part::of(path), Fault::NameError) {
            return fail(libc::EIO);
        }
        let crashes = self.step();
        if crashes && self.random.one_in(2) {
            return fail(libc::EIO);
        }
        self.changes += 1;
        let number = self.changes;
        self.say(|| format!("  {} of {}: {changes:?}", number, path.display()));
        for (directory, names) in changes {
            self.names(directory)?.change(number, names);
        }
        self.alive()
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<Inode> {
        let (parent, name) = self.parent(path)?;
        if self.names(parent)?.get(&name).is_some() {
            return fail(libc::EEXIST);
        }
        self.inodes.push(node);
        let inode = self.inodes.len() - 1;
        self.change(path, vec![(parent, vec![(name, Some(inode))])])?;
        Ok(inode)
    }
}

impl SimulatedFiles for Disk {
    fn open(&self, path: &Path, create: bool, write: bool) -> io::Result<Arc<dyn SimulatedFile>> {
        let mut state = self.lock();
        state.alive()?;
        let inode = if create {
            state.add(path, Node::File(Content::default()))?
        } else {
            let inode = state.find(path)?;
            state.content(inode)?;
            inode
        };
        let (part, life) = (Part::of(path), state.life);
        state.say(|| format!("{} is {inode}", path.display()));
        Ok(Arc::new(Open { disk: self.clone(), inode, part, writable: write || create, life }))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        state.add(path, Node::Directory(Names::default())).map(drop)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let inode = state.find(path)?;
        state.content(inode)?;
        let (parent, name) = state.parent(path)?;
        state.change(path, vec![(parent, vec![(name, None)])])
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let inode = state.find(path)?;
        if !state.names(inode)?.is_empty() {
            return fail(libc::ENOTEMPTY);
        }
        let (parent, name) = state.parent(path)?;
        state.change(path, vec![(parent, vec![(name, None)])])
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool, exchange: bool) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let inode = state.find(from)?;
        let (old_parent, old_name) = state.parent(from)?;
        let (new_parent, new_name) = state.parent(to)?;
        let there = state.names(new_parent)?.get(&new_name);
        if exchange && there.is_none() {
            return fail(libc::ENOENT);
        }
        if let Some(there) = there.filter(|_| !exchange) {
            if !replace {
                return fail(libc::EEXIST);
            }
            match (&state.inodes[inode], &state.inodes[there]) {
                (Node::File(_), Node::File(_)) => {}
                (Node::Directory(_), Node::Directory(names)) if names.is_empty() => {}
                (Node::Directory(_), Node::Directory(_)) => return fail(libc::ENOTEMPTY),
                (Node::Directory(_), Node::File(_)) => return fail(libc::ENOTDIR),
                (Node::File(_), Node::Directory(_)) => return fail(libc::EISDIR),
            }
        }
        let stays = (state.config.sabotage == Some(Sabotage::Renames)).then_some(inode);
        let leaves = (old_name, there.filter(|_| exchange).or(stays));
        let comes = (new_name, Some(inode));
        let changes = if old_parent == new_parent {
            vec![(old_parent, vec![leaves, comes])]
        } else {
            vec![(old_parent, vec![leaves]), (new_parent, vec![comes])]
        };
        state.change(to, changes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.lock();
        state.alive()?;
        match &state.inodes[state.find(path)?] {
            Node::File(_) => fail(libc::ENOTDIR),
            Node::Directory(names) => Ok(names
                .iter()
                .map(|(name, inode)| {
                    let is_directory = matches!(state.inodes[inode], Node::Directory(_));
                    Entry { name: name.clone(), is_directory }
                })
                .collect()),
        }
    }

    fn is_directory(&self, path: &Path) -> io::Result<bool> {
        let state = self.lock();
        state.alive()?;
        Ok(matches!(state.inodes[state.find(path)?], Node::Directory(_)))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let inode = state.find(path)?;
        state.note(4, inode, 0, 0);
        if state.strikes(Part::of(path), Fault::NameError) || state.step() {
            return fail(libc::EIO);
        }
        if state.config.sabotage != Some(Sabotage::DirectorySyncs) {
            state.names(inode)?.sync();
        }
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.lock();
        state.alive()?;
        Ok(if Part::of(path) == Part::L3 { 1 << 40 } else { state.l2_free() })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = Self::lock(self);
        state.alive()?;
        let inode = state.find(path)?;
        if state.locks.contains(&inode) {
            return fail(libc::EWOULDBLOCK);
        }
        state.locks.push(inode);
        let life = state.life;
        Ok(Box::new(Held { disk: self.clone(), inode, life }))
    }
}

impl Open {
    fn state(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.alive()?;
        assert_eq!(state.life, self.life, "a file of an earlier life is used: somebody survived the crash");
        Ok(state)
    }

    fn room(&self, state: &State, needed: u64) -> io::Result<()> {
        // The catalog's pages are few; its device is the same.
        if self.part != Part::L3 && needed > 0 && needed > state.l2_free() {
            return fail(libc::ENOSPC);
        }
        Ok(())
    }
}

/// Half of `len`, in whole sectors of the buffers' alignment.
fn half(len: usize) -> usize {
    (len / 2).next_multiple_of(ALIGN_BYTES).min(len)
}

impl SimulatedFile for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.content(self.inode)?.len())
    }

    fn version(&self) -> io::Result<String> {
        drop(self.state()?);
        Ok(self.inode.to_string())
    }

    fn order(&self) -> u64 {
        to_u64(self.inode)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.note(5, self.inode, len, 0);
        if state.step() {
            return fail(libc::EIO);
        }
        state.content(self.inode)?.set_len(len);
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.note(6, self.inode, len, 0);
        if state.strikes(self.part, Fault::NoSpace) {
            return fail(libc::ENOSPC);
        }
        let allocated = state.content(self.inode)?.allocated();
        self.room(&state, len.saturating_sub(allocated))?;
        if state.step() {
            return fail(libc::EIO);
        }
        state.content(self.inode)?.reserve(len);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.note(0, self.inode, offset, buf.len());
        if state.strikes(self.part, Fault::Interrupted) {
            return fail(libc::EINTR);
        }
        if state.strikes(self.part, Fault::ReadError) {
            return fail(libc::EIO);
        }
        let mut from = offset;
        if state.strikes(self.part, Fault::MisdirectedRead) {
            from = if from >= PAGE && state.random.one_in(2) { from - PAGE } else { from + PAGE };
        }
        let mut read = state.content(self.inode)?.read(buf, offset);
        if from != offset {
            let whole = read;
            state.content(self.inode)?.read(&mut buf[..whole], from);
        }
        if state.strikes(self.part, Fault::Short) {
            read = half(read);
        }
        if read > 0 && state.strikes(self.part, Fault::FlippedRead) {
            let at = to_usize(state.random.below(to_u64(read)));
            buf[at] ^= 1 << state.random.below(8);
        }
        Ok(read)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        if !self.writable {
            return fail(libc::EBADF);
        }
        let mut state = self.state()?;
        let range = offset..offset + to_u64(buf.len());
        state.note(1, self.inode, offset, buf.len());
        if state.strikes(self.part, Fault::Interrupted) {
            return fail(libc::EINTR);
        }
        if state.strikes(self.part, Fault::NoSpace) {
            return fail(libc::ENOSPC);
        }
        let needed = state.content(self.inode)?.needed(&range);
        self.room(&state, needed)?;
        let fails = state.strikes(self.part, Fault::WriteError);
        if state.step() || fails {
            // Any of its sectors may have got there.
            let mut random = state.random.clone();
            state.content(self.inode)?.write(buf, offset, |_| random.one_in(2));
            state.random = random;
            return fail(libc::EIO);
        }
        let whole = buf;
        let buf = if state.strikes(self.part, Fault::Short) { &buf[..half(buf.len())] } else { buf };
        let range = offset..offset + to_u64(buf.len());
        if state.strikes(self.part, Fault::LostWrite) {
            let content = state.content(self.inode)?;
            content.write(buf, offset, |_| false);
            content.damage(range);
        } else if state.strikes(self.part, Fault::TornWrite) {
            let sectors = to_u64(buf.len().div_ceil(SECTOR));
            let torn_at = offset / to_u64(SECTOR) + state.random.below(sectors.max(1));
            let content = state.content(self.inode)?;
            content.write(buf, offset, |sector| sector < torn_at);
            content.damage(range);
        } else if state.strikes(self.part, Fault::MisdirectedWrite) {
            let distance = PAGE * (1 + state.random.below(3));
            let astray = offset.checked_sub(distance).unwrap_or(offset + distance);
            let content = state.content(self.inode)?;
            let len = content.len();
            content.write(buf, offset, |_| false);
            let fits = to_usize(len.saturating_sub(astray).min(to_u64(buf.len())));
            content.write(&buf[..fits], astray, |_| true);
            content.damage(range);
            content.damage(astray..astray + to_u64(fits));
        } else if state.strikes(self.part, Fault::FlippedWrite) && !whole.is_empty() {
            let mut flipped = buf.to_vec();
            let at = state.random.below(to_u64(flipped.len()));
            flipped[to_usize(at)] ^= 1 << state.random.below(8);
            let content = state.content(self.inode)?;
            content.write(&flipped, offset, |_| true);
            content.damage(offset + at..offset + at + 1);
        } else {
            state.content(self.inode)?.write(buf, offset, |_| true);
        }
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.note(2, self.inode, 0, 0);
        if state.step() {
            return fail(libc::EIO);
        }
        if state.strikes(self.part, Fault::SyncError) {
            if self.part == Part::Catalog {
                // Its pages stay to be written: redb, opened again over a cache that Linux took for clean after a
                // failed sync, builds on pages that a crash then takes away, and no later check of its finds them.
                return fail(libc::EIO);
            }
            let mut random = state.random.clone();
            state.content(self.inode)?.sync(|| random.one_in(2));
            state.random = random;
            return fail(libc::EIO);
        }
        if state.config.sabotage != Some(Sabotage::FileSyncs) {
            state.content(self.inode)?.sync(|| true);
        }
        Ok(())
    }
}
