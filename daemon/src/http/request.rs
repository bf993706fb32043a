//! Reading an HTTP/1.1 request: the little that GET and HEAD need, every length bounded, and nothing else understood.

use std::io::Read;
use std::time::Duration;

use tierstream_storage::clock::Clock;

/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A head must be there within this time of its first byte, however slowly it drips.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) head_only: bool,
    /// Decoded, without the query.
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) bearer: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) close: bool,
}

/// Why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client has gone, or says nothing.
    Gone,
    /// The status to answer before hanging up.
    Status(u16),
}

/// Reads one head, byte by byte behind a buffer that the caller keeps between requests.
pub(crate) fn read(
    stream: &mut impl Read,
    held: &mut Vec<u8>,
    clock: &dyn Clock,
) -> Result<Request, Refusal> {
    let began = clock.now();
    loop {
        if let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..end + 4).collect();
            return parse(head.get(..end).unwrap_or_default()).map_err(Refusal::Status);
        }
        if held.len() > HEAD_BYTES_MAX {
            return Err(Refusal::Status(431));
        }
        if clock.now().saturating_sub(began) > HEAD_TIME {
            return Err(if held.is_empty() { Refusal::Gone } else { Refusal::Status(408) });
        }
        let mut bytes = [0; 2048];
        match stream.read(&mut bytes) {
            Ok(0) => return Err(Refusal::Gone),
            Ok(read) => held.extend(bytes.iter().take(read)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !held.is_empty() => {}
            Err(_) => return Err(Refusal::Gone),
        }
    }
}

/// Parses a head without its last blank line; the status of the refusal otherwise.
pub(crate) fn parse(head: &[u8]) -> Result<Request, u16> {
    let text = std::str::from_utf8(head).map_err(|_| 400_u16)?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target, version) = (first.next(), first.next(), first.next());
    if first.next().is_some()
        || text.contains(|c: char| c.is_control() && c != '\r' && c != '\n' && c != '\t')
    {
        return Err(400);
    }
    let head_only = match method {
        Some("GET") => false,
        Some("HEAD") => true,
        Some("") | None => return Err(400),
        Some(_) => return Err(405),
    };
    match version {
        Some("HTTP/1.1") => {}
        Some(version) if version.starts_with("HTTP/") => return Err(505),
        _ => return Err(400),
    }
    let target = target.filter(|target| target.starts_with('/')).ok_or(400_u16)?;
    let path = decode(target.split('?').next().unwrap_or_default()).ok_or(400_u16)?;
    let mut request =
        Request { head_only, path, host: String::new(), bearer: None, range: None, close: false };
    let mut hosts = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(400_u16)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(400);
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => {
                hosts += 1;
                value.clone_into(&mut request.host);
            }
            "authorization" => {
                let (scheme, token) = value.split_once(' ').ok_or(401_u16)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(401);
                }
                request.bearer = Some(token.trim().to_owned());
            }
            "range" => request.range = Some(value.to_owned()),
            "connection" => request.close |= value.eq_ignore_ascii_case("close"),
            // A body would be taken for the next request by one of two parties.
            "transfer-encoding" => return Err(400),
            "content-length" if value != "0" => return Err(400),
            _ => {}
        }
    }
    if hosts == 1 { Ok(request) } else { Err(400) }
}

fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let text = std::str::from_utf8(&digits)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(text, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains(char::is_control)).then_some(text)
}

/// What a `Range` header asks of `len` bytes: none for all (also where it is not understood, as RFC 9110 wants), an error
/// for a range that is not there.
pub(crate) fn range_of(header: Option<&str>, len: u64) -> Result<Option<std::ops::Range<u64>>, ()> {
    let Some(spec) = header.and_then(|header| header.strip_prefix("bytes=")) else { return Ok(None) };
    let Some((from, to)) = spec.split_once('-').filter(|_| !spec.contains(',')) else { return Ok(None) };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let range = match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => from..len.min(to.saturating_add(1)),
        (Some(from), None) if to.is_empty() => from..len,
        (None, Some(last)) if from.is_empty() => len.saturating_sub(last)..len,
        _ => return Ok(None),
    };
    if range.start < range.end { Ok(Some(range)) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = b"GET /v1/a%20b?x=1 HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer abc\r\nRange: bytes=1-2";
        let request = parse(head).unwrap();
        assert_eq!((request.path.as_str(), request.bearer.as_deref()), ("/v1/a b", Some("abc")));
        assert_eq!((request.host.as_str(), request.range.as_deref()), ("localhost:1", Some("bytes=1-2")));
        for (head, status) in [
            ("POST / HTTP/1.1\r\nHost: a", 405),
            ("GET / HTTP/2.0\r\nHost: a", 505),
            ("GET / HTTP/1.1", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a", 400),
            ("GET /%0d HTTP/1.1\r\nHost: a", 400),
            ("GET /%zz HTTP/1.1\r\nHost: a", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic abc", 401),
            ("GET / HTTP/1.1\r\nHost : a", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded", 400),
            ("\x16\x03\x01", 400),
            ("", 400),
        ] {
            assert_eq!(parse(head.as_bytes()).unwrap_err(), status, "{head}");
        }
    }

    #[test]
    fn ranges() {
        for (header, expected) in [
            ("bytes=0-9", Ok(Some(0..10))),
            ("bytes=90-", Ok(Some(90..100))),
            ("bytes=-5", Ok(Some(95..100))),
            ("bytes=-500", Ok(Some(0..100))),
            ("bytes=50-500", Ok(Some(50..100))),
            ("bytes=100-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=9-3", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("bytes=+1-2", Ok(None)),
            ("bytes=0-18446744073709551615", Ok(Some(0..100))),
        ] {
            assert_eq!(range_of(Some(header), 100), expected, "{header}");
        }
        assert_eq!((range_of(None, 100), range_of(Some("bytes=0-0"), 0)), (Ok(None), Err(())));
    }
}
