//! Descriptors that travel with an answer (SCM_RIGHTS), and the event counters among them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::protocol::{broken, misuse};

/// Descriptors of one answer: L1, the ring, and an event counter for each direction.
pub(crate) const FDS: usize = 4;

/// Sends all of `bytes` with `fds`.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], fds: [BorrowedFd<'_>; FDS]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(misuse(format!("{FDS} descriptors do not fit one message")));
    }
    let sent = loop {
        match sendmsg(stream, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => break sent.map_err(|error| broken(error.into()))?,
        }
    };
    use std::io::Write;
    (&mut &*stream).write_all(bytes.get(sent..).unwrap_or_default()).map_err(broken)
}

/// Receives up to `bytes.len()` bytes and the descriptors that came with them. They are closed in children of this
/// process (ray#52622).
pub(crate) fn receive(stream: &UnixStream, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [std::io::IoSliceMut::new(bytes)];
        match recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received.map_err(|error| broken(error.into()))?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((received.bytes, fds))
}

/// A counter to wake the other side with.
pub(crate) fn event() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| Error::new(ErrorKind::Full, "share memory", format!("eventfd: {error}")))
}

/// Rings the other side's bell. The other side has the same open file and may have made it blocking, and full: then it
/// is readable already, and its owner's to empty.
#[expect(clippy::host_endian_bytes, reason = "eventfd(2) counts in the host's byte order")]
pub(crate) fn ring_bell(event: &OwnedFd) {
    let mut room = [PollFd::new(event, PollFlags::OUT)];
    if poll(&mut room, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1) {
        let _readable_already = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

/// Waits until the bell was rung or the stream has something to say; without a `timeout` for ever. Returns whether the
/// stream has.
pub(crate) fn wait(stream: &UnixStream, bell: &OwnedFd, timeout: Option<Timespec>) -> Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(broken(error.into())),
    }
    let (said, rung) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
    if rung {
        // Emptied, if the other side has not done so.
        let mut count = [0; 8];
        let _empty_already = rustix::io::read(bell.as_fd(), &mut count);
    }
    Ok(said)
}
