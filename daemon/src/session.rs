//! One client's connection: requests in their order, each answered or refused with its reason.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tierstream_storage::format::SectionType;
use tierstream_storage::tier::FileNo;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use tierstream_prefetch::{Announcement, PlannedRead};

use crate::auth::policy::Right;
use crate::auth::tokens::Claims;
use crate::local::fds;
use crate::local::service::{LocalRing, Woken};
use crate::protocol::{
    Control, ErrorBody, Hello, Login, Open, RESPONSE_BYTES_MAX, ReadRequest, Request, Role, SectionRequest,
    Status, Token, VERSION, Verb, Whoami, broken, misuse, read_request, response, write_response,
};
use crate::server::Shared;

/// A client that began a frame, or takes an answer, must go on within this time.
pub(crate) const FRAME_PATIENCE: Duration = Duration::from_secs(30);
/// Data sets that one client may have open.
const DATA_SETS_MAX: usize = 1024;

pub(crate) fn answer_error(stream: &mut UnixStream, error: &Error) -> Result<()> {
    let body = serde_json::to_vec(&ErrorBody::of(error)).map_err(|error| misuse(error.to_string()))?;
    write_response(stream, Status::Error, &body)
}

/// A data set that the client has open.
struct OpenSet {
    name: String,
    info: Arc<DataSetInfo>,
    files: Arc<[FileNo]>,
}

/// One client's connection.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    data_sets: HashMap<u32, OpenSet>,
    greeted: bool,
    ring: Option<LocalRing<'a>>,
    announced: Option<Announcement>,
    // Who the kernel says it is, and whose token was shown.
    peer: String,
    claims: Option<Claims>,
    // Of the policy, when what is open was allowed.
    version: u64,
}

impl<'a> Session<'a> {
    pub(crate) fn new(shared: &'a Shared, peer: String) -> Self {
        let version = shared.gate.version();
        Self {
            shared,
            data_sets: HashMap::new(),
            greeted: false,
            ring: None,
            announced: None,
            peer,
            claims: None,
            version,
        }
    }

    /// Serves until the client hangs up, breaks the protocol, or the server stops.
    pub(crate) fn serve(&mut self, stream: &mut UnixStream) -> Result<()> {
        stream.set_read_timeout(Some(FRAME_PATIENCE)).map_err(broken)?;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match &mut self.ring {
                None => wait_for_request(stream)?,
                Some(ring) => {
                    let sets = &self.data_sets;
                    let turn = ring.turn(&self.shared.store, |set| sets.get(&set).map(|set| &*set.files));
                    if let Err(error) = turn {
                        return answer_error(stream, &error);
                    }
                    if ring.wait(stream)? == Woken::Ring {
                        if self.check_again() {
                            continue;
                        }
                        return Ok(());
                    }
                }
            }
            if !self.check_again() {
                return Ok(());
            }
            // What is no request leaves the stream in an unknown place: answer and hang up.
            let request = match read_request(stream) {
                Ok(request) => request,
                Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
                Err(error) => return answer_error(stream, &error),
            };
            let answered = match request.verb {
                Verb::Share => self.share(stream),
                _ => self.answer(&request).and_then(|(status, body)| write_response(stream, status, &body)),
            };
            if let Err(error) = answered {
                answer_error(stream, &error)?;
            }
        }
        Ok(())
    }

    /// Hands L1 and a ring to the client.
    fn share(&mut self, stream: &UnixStream) -> Result<()> {
        self.must_be_greeted()?;
        if self.ring.is_some() {
            return Err(misuse("this connection has its ring".to_owned()));
        }
        let who = self.who()?;
        self.shared.gate.check_everything(&who)?;
        let weight = usize::try_from(self.shared.gate.tenant(&who).weight).unwrap_or(1);
        let (ring, shared, sent) = LocalRing::open(&self.shared.store, &self.shared.leases, weight)?;
        let body = serde_json::to_vec(&shared).map_err(|error| misuse(error.to_string()))?;
        fds::send(stream, &response(Status::Ok, &body)?, sent.each_ref().map(AsFd::as_fd))?;
        self.ring = Some(ring);
        Ok(())
    }

    fn must_be_greeted(&self) -> Result<()> {
        if self.greeted { Ok(()) } else { Err(misuse("the first request must be Hello".to_owned())) }
    }

    fn answer(&mut self, request: &Request) -> Result<(Status, Vec<u8>)> {
        if request.verb == Verb::Hello {
            let hello: Hello = request.json()?;
            if hello.version != VERSION {
                let why = format!("protocol version {}, this daemon speaks {VERSION}", hello.version);
                return Err(Error::new(ErrorKind::Unsupported, "connect", why)
                    .hint("use client and daemon of the same release"));
            }
            self.greeted = true;
            return Ok((Status::Ok, Vec::new()));
        }
        self.must_be_greeted()?;
        match request.verb {
            Verb::Hello | Verb::Share => Ok((Status::Ok, Vec::new())),
            Verb::Open => self.open(&request.json()?),
            Verb::Section => self.section(&request.json()?),
            Verb::Read => self.read(&request.json()?),
            Verb::Metrics => json(&self.shared.store.metrics()),
            Verb::Control => self.control(&request.json()?),
            Verb::Announce => self.announce(&request.json()?),
        }
    }

    fn open(&mut self, request: &Open) -> Result<(Status, Vec<u8>)> {
        let who = self.who()?;
        let gate = &self.shared.gate;
        let asked = self.shared.roots.name(&request.location)?;
        gate.check(&who, Right::Read, &asked.name)?;
        let found = self.shared.roots.resolve(&asked)?;
        if found.name != asked.name {
            gate.check(&who, Right::Read, &found.name)?;
        }
        if self.data_sets.len() >= DATA_SETS_MAX {
            return Err(Error::new(ErrorKind::Full, "open", format!("{DATA_SETS_MAX} data sets are open")));
        }
        let path = found.path.to_str().ok_or_else(|| misuse("the path is not UTF-8".to_owned()))?;
        let set = self.shared.store.open_data_set(path)?;
        let answer = json(&*set)?;
        let files = self.shared.store.files(&set)?;
        self.data_sets.insert(set.handle, OpenSet { name: found.name, info: set, files });
        Ok(answer)
    }

    /// Who asks: the token's owner, or the user that the kernel names.
    fn who(&self) -> Result<String> {
        match &self.claims {
            None => Ok(self.peer.clone()),
            Some(claims) if self.shared.gate.is_still_good(claims) => Ok(claims.sub.clone()),
            Some(_) => Err(Error::new(ErrorKind::Denied, "check token", "it has ended or was revoked")
                .hint("log in again: tierstream login")),
        }
    }

    /// Takes back what the asker may not have any more; false when that is the ring, which ends with its connection.
    fn check_again(&mut self) -> bool {
        let gate = &self.shared.gate;
        let ended = self.claims.as_ref().is_some_and(|claims| !gate.is_still_good(claims));
        if gate.version() == self.version && !ended {
            return true;
        }
        self.version = gate.version();
        let (policy, who) = (gate.policy(), self.who());
        let may_read =
            |name: &str| who.as_ref().is_ok_and(|who| policy.role_for(who, Right::Read, name).is_some());
        self.data_sets.retain(|_, set| may_read(&set.name));
        self.ring.is_none() || who.as_ref().is_ok_and(|who| policy.reads_everything(who))
    }

    fn announce(&mut self, request: &ReadRequest) -> Result<(Status, Vec<u8>)> {
        let set = self.open_set(request.handle)?;
        self.shared.gate.check(&self.who()?, Right::Announce, &set.name)?;
        let payload = |shard: usize| set.info.shards.get(shard).map_or(0, |shard| shard.payload_bytes);
        let mut reads = Vec::with_capacity(request.ranges.len());
        for (shard, start, end) in &request.ranges {
            if start > end || *end > payload(*shard) {
                return Err(misuse(format!(
                    "bytes {start}..{end} of shard {shard}, which has {}",
                    payload(*shard)
                )));
            }
            reads.push(PlannedRead { shard: *shard, range: *start..*end });
        }
        let plan = Box::new(reads.into_iter());
        let announcement = self.shared.prefetcher.announce(&set.info, plan)?;
        // The plan before it is over: what it held ahead is let go.
        self.announced = Some(announcement);
        Ok((Status::Ok, Vec::new()))
    }

    fn control(&mut self, request: &Control) -> Result<(Status, Vec<u8>)> {
        let gate = &self.shared.gate;
        let token =
            |(token, claims): (String, Claims)| Token { token, identity: claims.sub, expires: claims.exp };
        match request {
            Control::Login { user, code } => json(&token(gate.login(user, code)?)),
            Control::Renew { token: old } => json(&token(gate.renew(old)?)),
            Control::Present { token } => {
                let claims = gate.identify(token)?;
                // What was opened was opened as somebody else.
                self.data_sets.clear();
                (self.ring, self.announced) = (None, None);
                self.claims = Some(claims);
                self.whoami()
            }
            Control::Whoami => self.whoami(),
            Control::List => {
                let who = self.who()?;
                let names = self.shared.roots.list().into_iter().filter(|name| gate.sees(&who, name));
                json(&names.collect::<Vec<_>>())
            }
            Control::Tokens => {
                let logins = gate.sessions(&self.who()?)?.into_iter();
                json(&logins.map(|(id, identity, began)| Login { id, identity, began }).collect::<Vec<_>>())
            }
            Control::Revoke { what } => json(&gate.revoke(&self.who()?, what)?),
            Control::RotateKeys => json(&gate.rotate_keys(&self.who()?)?),
            Control::Users => json(&gate.users(&self.who()?)?),
            Control::AddUser { name } => json(&gate.add_user(&self.who()?, name)?),
            Control::RemoveUser { name } => json(&gate.remove_user(&self.who()?, name)?),
        }
    }

    fn whoami(&self) -> Result<(Status, Vec<u8>)> {
        let identity = self.who()?;
        let role = |(role, rights, data_sets): (String, Vec<Right>, Vec<String>)| Role {
            role,
            rights: rights.into_iter().map(|right| right.name().to_owned()).collect(),
            data_sets,
        };
        let roles = self.shared.gate.policy().describe(&identity).into_iter().map(role).collect();
        json(&Whoami { roles, expires: self.claims.as_ref().map(|claims| claims.exp), identity })
    }

    fn open_set(&self, handle: u32) -> Result<&OpenSet> {
        self.data_sets
            .get(&handle)
            .ok_or_else(|| misuse(format!("data set {handle} is not open on this connection")))
    }

    fn set(&self, handle: u32) -> Result<&Arc<DataSetInfo>> {
        self.open_set(handle).map(|set| &set.info)
    }

    fn section(&self, request: &SectionRequest) -> Result<(Status, Vec<u8>)> {
        let set = self.set(request.handle)?;
        if request.shard >= set.shards.len() {
            return Err(misuse(format!("shard {} of {}", request.shard, set.shards.len())));
        }
        let section = self.shared.store.section(set, request.shard, SectionType(request.section))?;
        Ok(section.map_or((Status::None, Vec::new()), |section| (Status::Ok, section.to_vec())))
    }

    fn read(&self, request: &ReadRequest) -> Result<(Status, Vec<u8>)> {
        let set = self.set(request.handle)?;
        let mut total = 0_u64;
        for (_, start, end) in &request.ranges {
            let len = end.checked_sub(*start).ok_or_else(|| misuse(format!("range {start}..{end}")))?;
            total = total.saturating_add(len);
        }
        // One byte of the frame is the status.
        if total >= to_u64(RESPONSE_BYTES_MAX) {
            return Err(misuse(format!(
                "{total} bytes in one request, at most {RESPONSE_BYTES_MAX} are allowed"
            )));
        }
        let mut bytes = vec![0; to_usize(total)];
        let mut rest = &mut bytes[..];
        let mut reads = Vec::with_capacity(request.ranges.len());
        for (shard, start, end) in &request.ranges {
            let (to, later) = rest.split_at_mut(to_usize(end - start));
            reads.push(RangeRead { shard: *shard, range: *start..*end, to });
            rest = later;
        }
        self.shared.store.read(set, &mut reads)?;
        Ok((Status::Ok, bytes))
    }
}

/// Waits for the first byte of a request without limit, and leaves it there; the rest must follow in time.
fn wait_for_request(stream: &UnixStream) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(broken(error.into())),
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<(Status, Vec<u8>)> {
    let body = serde_json::to_vec(value).map_err(|error| misuse(format!("answer: {error}")))?;
    Ok((Status::Ok, body))
}
