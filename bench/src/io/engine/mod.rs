//! What carries out a job: each engine takes I/Os from its [`Session`] until there are no more.

mod mmap;
mod psync;
mod tokio_uring;
mod uring;

use super::job::EngineName;
use super::session::Session;
use crate::Result;

/// Carries out the job of `session` on the calling thread and gives it back with its counts.
///
/// # Errors
/// `Unsupported` when this machine does not give the engine; else the first I/O that failed.
pub(super) fn run(name: EngineName, mut session: Session) -> Result<Session> {
    if name.is_synchronous() && session.depth > 1 {
        // In fio's words.
        let note =
            "both iodepth >= 1 and synchronous I/O engine are selected, queue depth will be capped at 1";
        session.notes.push(note.to_owned());
        session.depth = 1;
    }
    if session.fixedbufs && name != EngineName::IoUring {
        session.notes.push("fixedbufs=1 is ignored: only io_uring registers its buffers".to_owned());
    }
    match name {
        EngineName::Psync => psync::run(&mut session)?,
        EngineName::Mmap => mmap::run(&mut session)?,
        EngineName::IoUring => uring::run(&mut session)?,
        EngineName::TokioUring => return tokio_uring::run(session),
    }
    Ok(session)
}

#[cfg(test)]
mod tests;
