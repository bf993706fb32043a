//! The write path: seal, write, sync, name, commit, acknowledge.

use std::sync::Arc;

use super::area::Area;
use super::config::PutOptions;
use super::descriptor::{DESCRIPTOR, Descriptor, TENSORS, check_name};
use super::objects::Objects;
use super::payload::Payload;
use super::record::Record;
use super::report::PutReport;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FileId, HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX, SealParams, raw_stored_bytes};
use crate::store::core::Core;
use crate::store::publish::random_id;
use crate::store::write::{Finished, Output, SealedWriter};
use crate::units::to_u64;

/// An object about to be written.
struct Draft<'a> {
    payload: &'a dyn Payload,
    descriptor: Vec<u8>,
    version: u64,
    deleted: bool,
}

impl Core {
    pub(in crate::store) fn objects(&self) -> Result<&Objects> {
        self.objects.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "open", "this store keeps no objects")
                .hint("give the directory where they live (--l3 DIR)")
        })
    }

    /// See [`Store::put`](crate::Store::put).
    pub(in crate::store) fn put(
        self: &Arc<Self>,
        name: &str,
        payload: &dyn Payload,
        options: &PutOptions,
    ) -> Result<PutReport> {
        check_name(name)?;
        let descriptor =
            Descriptor { name: name.to_owned(), deleted: false, metadata: options.metadata.clone() };
        self.write_version(name, payload, &descriptor, options.write_through)
    }

    /// See [`Store::delete`](crate::Store::delete).
    pub(in crate::store) fn delete(self: &Arc<Self>, name: &str) -> Result<bool> {
        let objects = self.objects()?;
        let (known, unreadable) = {
            let state = objects.lock();
            (state.entries.get(name).map(|entry| entry.record.tombstone), state.recovery.unreadable > 0)
        };
        let in_doubt = unreadable || objects.areas().any(Area::may_find_refused);
        match known {
            Some(true) => return Ok(false),
            // A file may hold it that could not be opened, or not be removed: it must not come back.
            None if !in_doubt => return Ok(false),
            _ => {}
        }
        let descriptor = Descriptor { name: name.to_owned(), deleted: true, metadata: Default::default() };
        let report = self.write_version(name, &Vec::new(), &descriptor, false)?;
        // Durable already: what is left to remove, the next opening removes as well.
        if report.on_l3
            && let Err(error) = self.finish_deletion(name, report.version)
        {
            tracing::warn!(%error, name, "the files of a deleted object stay for now");
        }
        Ok(known.is_some())
    }

    fn write_version(
        &self,
        name: &str,
        payload: &dyn Payload,
        descriptor: &Descriptor,
        write_through: bool,
    ) -> Result<PutReport> {
        let objects = self.objects()?;
        let bytes = payload.payload_bytes(objects.capacity());
        if let Some(bytes) = bytes.filter(|bytes| *bytes > PAYLOAD_BYTES_MAX) {
            let why = format!("{bytes} bytes, at most {PAYLOAD_BYTES_MAX} fit an object");
            return Err(Error::new(ErrorKind::Misuse, "put", why).hint("put it in parts"));
        }
        let encoded = descriptor.encode()?;
        let table = payload.tensors().map_or(0, |table| table.header().len());
        let most =
            bytes.map(|bytes| most_stored_bytes(bytes, to_u64(encoded.len() + table), objects.block_bytes));
        let version = objects.next_version();
        let draft = Draft { payload, descriptor: encoded, version, deleted: descriptor.deleted };
        if let Some(most) = most.filter(|_| !write_through)
            && let Some(reserved) = objects.reserve(most)?
        {
            match self.write_to_l2(objects, name, &draft) {
                Ok(report) => return Ok(report),
                // L2's fault, not the payload's: what was written there is gone, and is written anew to L3.
                Err(Failed::Device(error)) if error.kind() == ErrorKind::Full => {
                    tracing::warn!(%error, "L2 has no room for an object: it goes to L3 at once");
                }
                Err(Failed::Device(error)) => objects.refuse_l2(&error),
                Err(Failed::Payload(error)) => return Err(error),
            }
            drop(reserved);
        }
        let record = self.write_file(objects, &objects.l3, &draft).map_err(Failed::into_error)?;
        let record = Record { on_l3: true, ..record };
        objects.commit(&self.io, name, record).inspect_err(|_| objects.l3.discard(record.file_id))?;
        Ok(PutReport { version, file_bytes: record.file_bytes, on_l3: true })
    }

    fn write_to_l2(
        &self,
        objects: &Objects,
        name: &str,
        draft: &Draft<'_>,
    ) -> std::result::Result<PutReport, Failed> {
        let Some(l2) = &objects.l2 else {
            return Err(Failed::Device(Error::new(ErrorKind::Full, "put", "there is no L2")));
        };
        let record = Record { on_l2: true, ..self.write_file(objects, l2, draft)? };
        objects.commit(&self.io, name, record).map_err(|error| {
            l2.discard(record.file_id);
            Failed::Device(error)
        })?;
        Ok(PutReport { version: draft.version, file_bytes: record.file_bytes, on_l3: false })
    }

    /// Writes the file of a draft to `area` under a fresh id and key, durable with its name; on failure nothing is left.
    fn write_file(
        &self,
        objects: &Objects,
        area: &Area,
        draft: &Draft<'_>,
    ) -> std::result::Result<Record, Failed> {
        let id = random_id().map_err(Failed::Payload)?;
        let written = self.publish_draft(objects, area, id, draft);
        let finished = written.inspect_err(|_| area.discard(id))?;
        Ok(Record {
            version: draft.version,
            file_id: id,
            mac: finished.mac,
            file_bytes: finished.file_bytes,
            payload_bytes: finished.payload_bytes,
            tombstone: draft.deleted,
            tensors: draft.payload.tensors().is_some(),
            on_l2: false,
            on_l3: false,
            reads: 0,
        })
    }

    fn publish_draft(
        &self,
        objects: &Objects,
        area: &Area,
        id: FileId,
        draft: &Draft<'_>,
    ) -> std::result::Result<Finished, Failed> {
        let params = SealParams {
            kind: Kind::Object,
            cipher: objects.config.cipher,
            compressed: objects.config.compressed,
            file_id: id,
            data_set_id: FileId([0; 16]),
            generation: draft.version,
            block_bytes: objects.block_bytes,
            record_align: 1,
        };
        let upload = area.begin(id).map_err(Failed::Device)?;
        let mut writer = SealedWriter::create(self.output(objects), upload, params, &*self.keys)
            .map_err(Failed::Device)?;
        // The sink's error is the device's; any other is the payload's own.
        let mut device = None;
        let given = draft.payload.write(objects.capacity(), &mut |piece| {
            writer.write(piece).inspect_err(|error| device = Some(error.clone()))
        });
        if let Some(error) = device {
            return Err(Failed::Device(error));
        }
        given.map_err(Failed::Payload)?;
        let expected = draft.payload.payload_bytes(objects.capacity());
        if let Some(expected) = expected.filter(|expected| writer.payload_bytes() != *expected) {
            let why = format!("the payload gave {} bytes, it said {expected}", writer.payload_bytes());
            return Err(Failed::Payload(Error::new(ErrorKind::Misuse, "put", why)));
        }
        let mut sections = vec![(DESCRIPTOR, draft.descriptor.clone())];
        if let Some(table) = draft.payload.tensors() {
            sections.push((TENSORS, table.header().to_vec()));
        }
        writer.finish(1, sections).map_err(Failed::Device)
    }

    pub(super) fn output<'a>(&'a self, objects: &'a Objects) -> Output<'a> {
        Output { io: &self.io, arena: &objects.arena, patience: self.config.patience }
    }

    /// Makes a deletion final: nothing of the object is left on L3, then nothing of its deletion.
    pub(super) fn finish_deletion(&self, name: &str, version: u64) -> Result<()> {
        let objects = self.objects()?;
        let _order = objects.order();
        let (current, in_doubt) = {
            let state = objects.lock();
            (state.entries.get(name).map(|entry| entry.record), state.recovery.unreadable > 0)
        };
        let Some(record) = current.filter(|record| record.version == version && record.tombstone) else {
            return Ok(());
        };
        if in_doubt {
            // A file that could not be opened may hold an older version, which nothing else would say is gone.
            return Ok(());
        }
        objects.remove_superseded(name);
        // On L2 as well: an older version there must not come back once its tombstone is gone.
        for area in objects.areas() {
            area.remove_what_stayed()?;
            area.sync()?;
        }
        let mut batch = crate::catalog::Batch::default();
        batch.delete(crate::catalog::Table::Objects, name.as_bytes());
        // Without the catalog the tombstone stays: it is the only word of the deletion that lasts.
        objects.apply(&batch)?;
        let mut state = objects.lock();
        state.entries.remove(name);
        state.names.remove(&version);
        state.ledger.superseded(version);
        drop(state);
        objects.notify();
        if record.on_l2 {
            objects.remove_l2(record.file_id);
        }
        if record.on_l3 {
            objects.l3.remove(record.file_id);
        }
        Ok(())
    }
}

/// Why a file was not written.
enum Failed {
    /// The tier failed; another may do.
    Device(Error),
    /// The payload or its parameters did.
    Payload(Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Self::Device(error) | Self::Payload(error) => error,
        }
    }
}

/// No file of so much payload and such sections is longer.
fn most_stored_bytes(payload: u64, sections: u64, block_bytes: u32) -> u64 {
    // A directory of the index, padding between its sections, and a table of u32 per block.
    let blocks = crate::format::block_count(payload, block_bytes);
    let index = sections + 4 * blocks + 4096;
    to_u64(HEADER_BYTES) + raw_stored_bytes(payload, block_bytes) + raw_stored_bytes(index, block_bytes)
}
