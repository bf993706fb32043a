//! What becomes of I/Os: counted, checked, told; and the end of a thread.

use super::super::super::pattern::{Direction, Step};
use super::super::super::record::Times;
use super::super::source::{Next, Source};
use super::{Done, Unit, Worker};
use crate::io::job::EngineName;
use crate::io::run::depth::DepthSearch;
use crate::os::Usage;
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

impl Worker<'_> {
    /// Counts what became of the I/O of `tag`; false when it has to go on.
    pub(super) fn complete(&mut self, tag: usize, result: std::io::Result<usize>) -> Result<bool> {
        let len = to_usize(u64::from(self.units[tag].step.len));
        let step = self.units[tag].step;
        match result {
            Ok(0) => {
                let path = &self.target.files[to_usize(u64::from(step.file))].path;
                let why = "no bytes were moved: the file has become shorter";
                let error = Error::new(ErrorKind::Corrupt, step.direction.word(), why).at(path);
                return Err(error.at_offset(step.offset, to_u64(len)));
            }
            Ok(moved) => {
                let unit = &mut self.units[tag];
                unit.done += moved;
                if unit.done < len {
                    self.record.directions[step.direction as usize].short_ios += 1;
                    return Ok(false);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && self.job.engine.nowait => {
                return Ok(false);
            }
            Err(error) => {
                if !self.job.continue_on_error {
                    return Err(self.failed(tag, error));
                }
                self.record.directions[step.direction as usize].failed_ios += 1;
                self.free.push(tag);
                return Ok(true);
            }
        }
        let unit = self.units[tag];
        let times = Times { start: unit.start, issue: unit.issue, end: self.now };
        self.record.done(step.direction, u64::from(step.len), times);
        if let Some(search) = &mut self.search {
            search.add(self.now.saturating_sub(unit.issue.unwrap_or(unit.start)));
        }
        if let Some(logs) = &mut self.logs {
            logs.add(&step, times, &self.record)?;
        }
        if let Some(most) = self.job.max_latency_nanos
            && self.now.saturating_sub(unit.start) > most
        {
            let took = (self.now - unit.start) / 1000;
            let why = format!("it took {took} us, max_latency is {} us", most / 1000);
            let path = &self.target.files[to_usize(u64::from(step.file))].path;
            let error = Error::new(ErrorKind::Device, step.direction.word(), why).at(path);
            return Err(error.at_offset(step.offset, to_u64(len)));
        }
        if step.direction == Direction::Read && (self.checks_reads || self.finishing) {
            self.check(tag, &step, len)?;
        }
        self.free.push(tag);
        Ok(true)
    }

    fn check(&mut self, tag: usize, step: &Step, len: usize) -> Result<()> {
        let Some(verify) = &self.verify else { return Ok(()) };
        let buffer = &self.engine.buffer(tag)[..len];
        self.record.verified += 1;
        let Err(error) = verify.check(buffer, step.offset, &mut self.scratch) else { return Ok(()) };
        self.record.verify_errors += 1;
        let path = &self.target.files.get(to_usize(u64::from(step.file))).map(|file| file.path.clone());
        let path = path.clone().unwrap_or_default();
        if verify.dump {
            let dump = format!("{}.{}.received", path.display(), step.offset);
            std::fs::write(&dump, buffer)
                .map_err(|error| Error::io("write", std::path::Path::new(&dump), error))?;
        }
        let error = error.at(&path);
        if verify.fatal || !self.job.continue_on_error {
            return Err(
                error.hint("the bytes changed after they were written, or other jobs wrote there too")
            );
        }
        if self.record.verify_errors <= 10 {
            self.notes.push(error.to_string());
        }
        Ok(())
    }

    pub(super) fn failed(&self, tag: usize, error: std::io::Error) -> Error {
        let step = &self.units[tag].step;
        let path = self.target.files.get(to_usize(u64::from(step.file))).map(|file| file.path.clone());
        let error = Error::io(step.direction.word(), &path.unwrap_or_default(), error);
        let aligned = step.offset.is_multiple_of(512) && step.len.is_multiple_of(512);
        let error = error.at_offset(step.offset, u64::from(step.len));
        if self.target.direct && !aligned {
            return error
                .hint("direct=1 needs offsets and lengths of whole sectors: use another bs, or direct=0");
        }
        error
    }

    pub(super) fn sync(&mut self, file: u32, data_only: bool) -> Result<()> {
        let Some(file) = self.target.files.get(to_usize(u64::from(file))) else { return Ok(()) };
        let before = self.timer.now();
        let synced = if data_only { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) };
        synced.map_err(|error| Error::io("sync", &file.path, error.into()))?;
        self.now = self.timer.now();
        self.record.synced(self.now - before);
        Ok(())
    }

    pub(super) fn sync_all(&mut self) -> Result<()> {
        (0..u32::try_from(self.target.files.len()).unwrap_or(u32::MAX))
            .try_for_each(|file| self.sync(file, false))
    }

    /// Reads back and checks at most `most` of the blocks that were written.
    pub(super) fn verify_written(&mut self, source: &mut Source<'_>, most: u64) -> Result<()> {
        if self.job.engine.name == EngineName::Null {
            return Ok(());
        }
        let before = self.finishing;
        self.finishing = true;
        let mut list = Source::Listed { steps: source.take_written(most) };
        let outcome = loop {
            if self.shared.is_stopped() {
                break Ok(());
            }
            let Some(tag) = self.free.pop() else {
                if let Err(error) = self.make_room() {
                    break Err(error);
                }
                continue;
            };
            self.now = self.timer.now();
            match self.next_step(&mut list) {
                Next::Move(step, start) => {
                    self.units[tag] = Unit { step, done: 0, start, issue: None };
                    if let Err(error) = self.push(tag) {
                        break Err(error);
                    }
                }
                _ => {
                    self.free.push(tag);
                    break self.drain();
                }
            }
        };
        self.finishing = before;
        outcome
    }

    pub(super) fn finish(mut self, usage: Usage, elapsed_nanos: u64) -> Result<Done> {
        self.record.close_samples(self.now);
        self.progress.tell(&self.record, 0);
        if let Some(logs) = self.logs.take() {
            logs.finish(self.now, &self.record)?;
        }
        if let Some(writer) = self.log_writer.take() {
            writer.finish()?;
        }
        if self.job.files.unlink {
            for file in &self.target.files {
                let _already_gone = std::fs::remove_file(&file.path);
            }
        }
        let found_depth = self.search.as_ref().map(DepthSearch::found);
        Ok(Done {
            engine: self.engine.report(),
            direct: self.target.direct,
            depth: found_depth.unwrap_or(self.depth),
            laid_out_bytes: self.target.laid_out_bytes,
            notes: self.notes,
            record: self.record,
            usage,
            elapsed_nanos,
        })
    }
    /// Adds notes for the report.
    pub(in crate::io::run) fn note(&mut self, notes: &[String]) {
        self.notes.extend_from_slice(notes);
    }

    /// Ends without any I/O: fio's `create_only`.
    pub(in crate::io::run) fn idle(self) -> Result<Done> {
        self.finish(Usage::default(), 0)
    }
}
