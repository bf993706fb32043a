//! The frames that travel over the socket.
//!
//! ```text
//! request:   u32 length | u8 verb   | body
//! response:  u32 length | u8 status | body        length counts everything behind it
//! ```
//!
//! Bodies are JSON, except for bytes of payload and index, which follow their status as they are. A range request is
//! JSON with shard numbers and byte ranges; its answer is those bytes, one range after the other. All integers are
//! little endian. Version 2; the first request on a connection is `Hello`, which carries it.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

/// Version of the protocol.
pub(crate) const VERSION: u32 = 2;
/// Longest request.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Longest answer, and most bytes that one range request may ask for.
pub(crate) const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Hello,
    Open,
    Section,
    Read,
    Metrics,
    /// L1, a ring and two event counters, for a client on this host.
    Share,
    /// Who one is, tokens and users: a [`Control`].
    Control,
    /// Bytes of data sets that the client will read, in their order: a [`ReadRequest`].
    Announce,
}

impl Verb {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Open,
        Self::Section,
        Self::Read,
        Self::Metrics,
        Self::Share,
        Self::Control,
        Self::Announce,
    ];

    fn id(self) -> u8 {
        match self {
            Self::Hello => 0,
            Self::Open => 1,
            Self::Section => 2,
            Self::Read => 3,
            Self::Metrics => 4,
            Self::Share => 5,
            Self::Control => 6,
            Self::Announce => 7,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.id() == id)
    }
}

/// Body of `Hello`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
}

/// Body of `Open`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) location: String,
}

/// Body of `Section`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SectionRequest {
    pub(crate) handle: u32,
    pub(crate) shard: usize,
    pub(crate) section: u32,
}

/// Body of `Read`: shard, start and end of each range.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReadRequest {
    pub(crate) handle: u32,
    pub(crate) ranges: Vec<(usize, u64, u64)>,
}

/// Answer to `Share`; its descriptors travel with it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// Length of L1.
    pub(crate) l1_bytes: u64,
    /// Requests that may be open.
    pub(crate) entries: usize,
    /// Words of the ring's memory.
    pub(crate) words: usize,
}

/// Body of `Control`. Its answer is JSON.
#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Control {
    /// A token for a user and a one-time code.
    Login { user: String, code: String },
    /// What follows on this connection is asked by the token's owner.
    Present { token: String },
    /// The next token.
    Renew { token: String },
    /// Who asks, and what that one may do.
    Whoami,
    /// Data sets that the asker may see.
    List,
    /// Logins.
    Tokens,
    /// Ends a login, or all of a user.
    Revoke { what: String },
    /// Signs with a new key from now on.
    RotateKeys,
    /// Users.
    Users,
    /// Makes a user, or gives one a new secret.
    AddUser { name: String },
    /// Removes a user.
    RemoveUser { name: String },
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the code or the token.
        f.write_str("Control")
    }
}

/// Answer to `Login` and `Renew`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    /// The token: a secret.
    pub token: String,
    /// Whose it is.
    pub identity: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} until {})", self.identity, self.expires)
    }
}

/// Answer to `Whoami`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Whoami {
    /// Who asks: `uid:1000`, `user:ada`, `cert:...`.
    pub identity: String,
    /// When the token ends, for who has one.
    pub expires: Option<u64>,
    /// What each role grants: its rights, and patterns of data sets.
    pub roles: Vec<Role>,
}

/// One grant of a role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub role: String,
    /// What it allows.
    pub rights: Vec<String>,
    /// On which data sets.
    pub data_sets: Vec<String>,
}

/// A login, among the answers to `Tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub identity: String,
    /// When it began, in seconds since 1970.
    pub began: u64,
}

/// Status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    /// A section that the shard does not have.
    None,
    /// The body is an [`ErrorBody`].
    Error,
}

impl Status {
    fn id(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::None => 1,
            Self::Error => 2,
        }
    }
}

/// An error on its way to a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    kind: String,
    text: String,
    hint: Option<String>,
}

const KINDS: [(ErrorKind, &str); 10] = [
    (ErrorKind::Retry, "retry"),
    (ErrorKind::Missing, "missing"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Full, "full"),
    (ErrorKind::Misuse, "misuse"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::Device, "device"),
    (ErrorKind::Closed, "closed"),
    (ErrorKind::Interrupted, "interrupted"),
];

impl ErrorBody {
    pub(crate) fn of(error: &Error) -> Self {
        let kind = KINDS.iter().find(|(kind, _)| *kind == error.kind()).map_or("device", |(_, name)| name);
        Self { kind: kind.to_owned(), text: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }

    /// The error as the client's user sees it.
    pub(crate) fn into_error(self) -> Error {
        let kind =
            KINDS.iter().find(|(_, name)| *name == self.kind).map_or(ErrorKind::Device, |(kind, _)| *kind);
        let error = Error::new(kind, "daemon request", self.text);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads the body as JSON.
    pub(crate) fn json<T: for<'de> Deserialize<'de>>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| misuse(format!("the body of {:?} is not what it should be: {error}", self.verb)))
    }
}

pub(crate) fn misuse(why: String) -> Error {
    Error::new(ErrorKind::Misuse, "daemon request", why)
}

/// An error of the socket.
pub(crate) fn broken(error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::WouldBlock | Io::TimedOut | Io::Interrupted => ErrorKind::Retry,
        Io::UnexpectedEof | Io::BrokenPipe | Io::ConnectionReset => ErrorKind::Closed,
        _ => ErrorKind::Device,
    };
    Error::new(kind, "daemon request", format!("connection: {error}")).caused_by(error)
}

/// Reads the length of the next frame, which must be at most `max`.
fn read_len(stream: &mut impl Read, max: usize) -> Result<usize> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).map_err(broken)?;
    let len =
        usize::try_from(u32::from_le_bytes(len)).map_err(|_| misuse("a frame beyond memory".to_owned()))?;
    if len == 0 || len > max {
        return Err(misuse(format!("a frame of {len} bytes, expected 1 to {max}")));
    }
    Ok(len)
}

/// Reads a body of `len` bytes, allocating only as fast as they arrive.
fn read_body(stream: &mut impl Read, len: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let expected = u64::try_from(len).map_err(|_| misuse("a frame beyond memory".to_owned()))?;
    let read = stream.take(expected).read_to_end(&mut body).map_err(broken)?;
    if read == len { Ok(body) } else { Err(broken(std::io::ErrorKind::UnexpectedEof.into())) }
}

/// Reads a request.
///
/// # Errors
/// `Closed` when the client is gone, `Retry` when it was silent for longer than the socket's timeout, `Misuse` for what
/// is no request.
pub(crate) fn read_request(stream: &mut impl Read) -> Result<Request> {
    let len = read_len(stream, REQUEST_BYTES_MAX)?;
    let mut verb = [0];
    stream.read_exact(&mut verb).map_err(broken)?;
    let verb = Verb::from_id(verb[0]).ok_or_else(|| misuse(format!("verb {}", verb[0])))?;
    Ok(Request { verb, body: read_body(stream, len - 1)? })
}

/// Writes a request with a JSON body.
pub(crate) fn write_request(stream: &mut impl Write, verb: Verb, body: &impl Serialize) -> Result<()> {
    let body = serde_json::to_vec(body).map_err(|error| misuse(format!("request: {error}")))?;
    write_frame(stream, verb.id(), &[&body], REQUEST_BYTES_MAX)
}

/// Writes an answer.
pub(crate) fn write_response(stream: &mut impl Write, status: Status, body: &[u8]) -> Result<()> {
    write_frame(stream, status.id(), &[body], RESPONSE_BYTES_MAX)
}

/// A whole answer as it travels, for who sends it together with descriptors.
pub(crate) fn response(status: Status, body: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    write_frame(&mut frame, status.id(), &[body], RESPONSE_BYTES_MAX)?;
    Ok(frame)
}

fn write_frame(stream: &mut impl Write, tag: u8, parts: &[&[u8]], max: usize) -> Result<()> {
    let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let len_field = u32::try_from(len).ok().filter(|_| len <= max);
    let len_field =
        len_field.ok_or_else(|| misuse(format!("a frame of {len} bytes, at most {max} are allowed")))?;
    let mut head = len_field.to_le_bytes().to_vec();
    head.push(tag);
    stream.write_all(&head).map_err(broken)?;
    parts.iter().try_for_each(|part| stream.write_all(part)).map_err(broken)?;
    stream.flush().map_err(broken)
}

/// Reads the head of an answer: its status, and how many bytes of body follow.
pub(crate) fn read_response_head(stream: &mut impl Read) -> Result<(Status, usize)> {
    let len = read_len(stream, RESPONSE_BYTES_MAX)?;
    let mut status = [0];
    stream.read_exact(&mut status).map_err(broken)?;
    let status = match status[0] {
        0 => Status::Ok,
        1 => Status::None,
        2 => Status::Error,
        other => return Err(misuse(format!("status {other}"))),
    };
    Ok((status, len - 1))
}

/// Reads an answer's body, or the error it carries.
pub(crate) fn read_response(stream: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let (status, len) = read_response_head(stream)?;
    let body = read_body(stream, len)?;
    match status {
        Status::Ok => Ok(Some(body)),
        Status::None => Ok(None),
        Status::Error => Err(error_of(&body)),
    }
}

/// The error in the body of an answer.
pub(crate) fn error_of(body: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.into_error(),
        Err(error) => misuse(format!("an error that cannot be read: {error}")),
    }
}
