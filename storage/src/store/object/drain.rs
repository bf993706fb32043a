//! Moving dirty objects to L3, one step at a time: copy, check, sync, name, commit; then L2's copy may go.

use std::time::Duration;

use super::area::Area;
use super::objects::{Objects, State};
use super::record::Record;
use super::report::Drained;
use crate::codec::{Scratch, open_header};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, HEADER_BYTES, plain_bytes};
use crate::io::Priority;
use crate::store::core::Core;
use crate::store::sealed_file::{Expected, SealedFile};
use crate::store::stream::Reader;
use crate::store::write::WriteBehind;
use crate::units::to_usize;

/// After a step that failed the next is tried after this long, then after twice as long, up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What a step of the drain came to.
enum Step {
    Nothing,
    Drained(Drained),
    /// L2 does not give the object: it is damaged there, gone, or unreadable. Those behind it go on.
    SetAside(Error),
}

impl Core {
    /// Drains the oldest dirty object. None when there is nothing to drain.
    ///
    /// # Errors
    /// As the devices say; the object is then as dirty as before. When L2 does not give it, it is set aside, and the
    /// next call goes on with the next one; else the next call tries it again.
    pub(in crate::store) fn drain_one(&self) -> Result<Option<Drained>> {
        match self.drain_step()? {
            Step::Nothing => Ok(None),
            Step::Drained(drained) => Ok(Some(drained)),
            Step::SetAside(error) => Err(error),
        }
    }

    fn drain_step(&self) -> Result<Step> {
        let objects = self.objects()?;
        let _step = objects.draining.take();
        let Some((name, record)) = objects.oldest_dirty() else { return Ok(Step::Nothing) };
        let version = record.version;
        // While files that could not be opened may hold an older version, the deletion itself is kept, on L3.
        let drained = if record.tombstone && objects.lock().recovery.unreadable == 0 {
            self.finish_deletion(&name, version).map(|()| 0)
        } else {
            match self.copy_to_l3(objects, &name, &record) {
                // Once more: a transfer can go wrong between device and memory while the device holds the right bytes.
                Err(error) if error.kind() == ErrorKind::Corrupt => self.copy_to_l3(objects, &name, &record),
                copied => copied,
            }
        };
        let mut state = objects.lock();
        match drained {
            Ok(bytes) => {
                state.drain_error = None;
                drop(state);
                objects.notify();
                Ok(Step::Drained(Drained { name, version, bytes }))
            }
            // Replaced or deleted while it was copied, its file went.
            Err(_) if state.entries.get(&name).is_none_or(|entry| entry.record.version != version) => {
                Ok(Step::Drained(Drained { name, version, bytes: 0 }))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                state.drain_error = Some(error.to_string());
                if !objects.is_of_l2(&error) {
                    return Err(error);
                }
                tracing::error!(%error, name, "L2 does not give a dirty object: it stays, and is tried again later");
                state.ledger.set_aside(version);
                Ok(Step::SetAside(error))
            }
        }
    }

    fn copy_to_l3(&self, objects: &Objects, name: &str, record: &Record) -> Result<u64> {
        let l2 = objects.l2.as_ref().expect("what is dirty is on L2");
        let reader = Reader { priority: Priority::Background, ..self.reader() };
        let expected = Expected { id: record.file_id, mac: record.mac };
        let from = Area::final_name(record.file_id);
        let file = SealedFile::open(&reader, &*l2.home, &from, &*self.keys, Some(expected))?;
        self.copy(objects, &reader, &file).inspect_err(|_| objects.l3.discard(record.file_id))?;
        let order = objects.order();
        let current = objects.update(name, record.version, |record| record.on_l3 = true)?;
        if current.is_some() {
            objects.lock().ledger.drained(record.version);
            self.metrics.drained(record.file_bytes);
        }
        drop(order);
        match current {
            Some(_) => objects.remove_superseded(name),
            None => objects.l3.remove(record.file_id),
        }
        Ok(record.file_bytes)
    }

    /// Copies the sealed bytes, each block authenticated on the way, and publishes them: what is marked clean is right on L3.
    fn copy(&self, objects: &Objects, reader: &Reader<'_>, file: &SealedFile) -> Result<()> {
        let header = file.header();
        let upload = objects.l3.begin(header.params.file_id)?;
        let mut behind = WriteBehind::new(self.output(objects), upload);
        let mut scratch = Scratch::new()?;
        let mut plain = vec![0; header.block_slot_bytes()];
        // Of writing to L3: the reader would put it down to the block of L2 that it had just read.
        let mut of_l3 = None;
        for kind in [BlockKind::Data, BlockKind::Index] {
            let total = if kind == BlockKind::Data { header.payload_bytes } else { header.index_bytes };
            let read = reader.for_each(file, kind, |number, stored| {
                if objects.stopped() {
                    return Err(Error::new(ErrorKind::Interrupted, "drain", "the store is closing"));
                }
                let len = to_usize(plain_bytes(total, header.params.block_bytes, number));
                file.codec().open(kind, number, len, stored, &mut plain, &mut scratch)?;
                let offset = file.place(kind, number)?.offset;
                let written = behind.buffer().and_then(|mut block| {
                    block[..stored.len()].copy_from_slice(stored);
                    behind.submit(block, offset, stored.len())
                });
                written.inspect_err(|error| of_l3 = Some(error.clone()))
            });
            match of_l3.take() {
                Some(error) => return Err(error),
                None => read?,
            }
        }
        let bytes = reader.read(file.file(), 0, HEADER_BYTES)?;
        // Read anew, so that it is checked anew: L3's copy is about to be the only one.
        let again = open_header(bytes[..HEADER_BYTES].try_into().expect("4096 bytes"), &*self.keys)?;
        if again.mac != *file.mac() {
            return Err(Error::new(ErrorKind::Corrupt, "drain", "another header was read").at(file.path()));
        }
        let mut block = behind.buffer()?;
        block[..HEADER_BYTES].copy_from_slice(&bytes[..HEADER_BYTES]);
        drop(bytes);
        behind.submit(block, 0, HEADER_BYTES)?;
        behind.publish()
    }

    /// Drains until nothing is dirty; what was set aside is tried again.
    ///
    /// # Errors
    /// The first of a step that L3 failed; else, when all others are drained, why L2 did not give the rest.
    pub(in crate::store) fn flush(&self) -> Result<()> {
        self.objects()?.lock().ledger.try_again();
        let mut refused = None;
        loop {
            match self.drain_step()? {
                Step::Drained(_) => {}
                Step::SetAside(error) => drop(refused.get_or_insert(error)),
                Step::Nothing => break,
            }
        }
        let stuck = self.objects()?.status().stuck_objects;
        match refused {
            None => Ok(()),
            Some(error) => {
                Err(error.hint(format!("{stuck} objects are on L2 alone and damaged there: put them again")))
            }
        }
    }

    /// What the drain's thread does until the store closes.
    pub(in crate::store) fn drain_until_stopped(&self) {
        let Ok(objects) = self.objects() else { return };
        let mut pause = RETRY_FIRST;
        while !objects.stopped() {
            match self.drain_step() {
                Ok(Step::Drained(_)) => pause = RETRY_FIRST,
                Ok(Step::Nothing) => objects.wait_for_dirty(),
                Ok(Step::SetAside(_)) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => return,
                Err(error) => {
                    tracing::warn!(%error, "an object was not drained to L3; it stays on L2 until it is");
                    objects.pause(pause);
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }
}

impl Objects {
    fn oldest_dirty(&self) -> Option<(String, Record)> {
        let state = self.lock();
        let version = state.ledger.oldest_dirty()?;
        let name = state.names.get(&version)?;
        Some((name.clone(), state.entries.get(name)?.record))
    }

    /// Whether an error is of reading what lies on L2.
    fn is_of_l2(&self, error: &Error) -> bool {
        let l2 = self.l2.as_ref().map(|l2| l2.home.location());
        l2.is_some_and(|l2| error.place().is_some_and(|place| place.path.starts_with(l2)))
    }

    /// Waits for something to drain; what was set aside is tried again after a while.
    fn wait_for_dirty(&self) {
        let stuck = self.lock().ledger.set_aside_count() > 0;
        let at_most = stuck.then_some(RETRY_LONGEST);
        let idle = |state: &mut State| state.ledger.oldest_dirty().is_none() && !self.stopped();
        let mut state = self.state.wait_while(at_most, idle);
        if state.ledger.oldest_dirty().is_none() {
            state.ledger.try_again();
        }
    }

    /// Waits for `time` to pass or the store to close.
    fn pause(&self, time: Duration) {
        drop(self.state.wait_while(Some(time), |_| !self.stopped()));
    }
}
