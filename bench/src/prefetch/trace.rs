//! Access traces as CSV, plain or compressed with zstd: columns `t,id,size,op,stream` by name, `id` alone is enough.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use tierstream_storage::{Error, ErrorKind, Result};

/// Rows that one request has at most, as in the traces' own description.
const REQUEST_ROWS_MAX: usize = 4096;

/// Reads or writes that were asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRequest {
    /// Who asked.
    pub stream: u64,
    /// Its rows in the trace.
    pub first: usize,
    /// The row behind its last.
    pub end: usize,
}

/// A trace in memory.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Block of each row.
    pub ids: Vec<u64>,
    /// Bytes of each row.
    pub sizes: Vec<u64>,
    /// Rows by request, in order.
    pub requests: Vec<TraceRequest>,
    /// How many blocks there are.
    pub objects: usize,
    /// Bytes of all blocks, each at the size it has first.
    pub footprint_bytes: u64,
}

fn bad(path: &Path, line: usize, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Misuse, "read trace", format!("line {line}: {why}"))
        .at(path)
        .hint("expected CSV with a header line that names id, and perhaps t, size, op and stream")
}

/// Which column has what.
struct Columns {
    t: Option<usize>,
    id: usize,
    size: Option<usize>,
    stream: Option<usize>,
}

impl Columns {
    fn of(header: &str, path: &Path) -> Result<Self> {
        let names: Vec<&str> = header.trim().split(',').map(str::trim).collect();
        let find = |name: &str| names.iter().position(|found| *found == name);
        let id = find("id").ok_or_else(|| bad(path, 1, format!("no column id in `{}`", header.trim())))?;
        Ok(Self { t: find("t"), id, size: find("size"), stream: find("stream") })
    }
}

impl Trace {
    /// Reads a trace, decompressing it where its name ends in `.zst`.
    ///
    /// # Errors
    /// `Missing` when there is no such file, `Misuse` for what is not a trace, with its line.
    pub fn read(path: &Path) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a trace is a text file, read once and buffered")]
        let file = std::fs::File::open(path).map_err(|error| {
            let kind = if error.kind() == std::io::ErrorKind::NotFound {
                ErrorKind::Missing
            } else {
                ErrorKind::Misuse
            };
            Error::new(kind, "read trace", error.to_string()).at(path)
        })?;
        let compressed = path.extension().is_some_and(|extension| extension == "zst");
        if compressed {
            let decoder = zstd::Decoder::new(file).map_err(|error| bad(path, 0, error))?;
            Self::parse(BufReader::with_capacity(1 << 20, decoder), path)
        } else {
            Self::parse(BufReader::with_capacity(1 << 20, file), path)
        }
    }

    fn parse(mut from: BufReader<impl Read>, path: &Path) -> Result<Self> {
        let mut line = String::new();
        let mut next = |line: &mut String, number: usize| {
            line.clear();
            from.read_line(line).map_err(|error| bad(path, number, error))
        };
        next(&mut line, 1)?;
        let columns = Columns::of(&line, path)?;
        let mut trace = Self::default();
        let mut sizes_of: HashMap<u64, u64> = HashMap::new();
        let mut previous = None;
        for number in 2.. {
            if next(&mut line, number)? == 0 {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let fields: Vec<&str> = line.trim_end().split(',').collect();
            let field = |column: Option<usize>, name: &str, otherwise: i64| -> Result<i64> {
                let Some(column) = column else { return Ok(otherwise) };
                let text = fields.get(column).ok_or_else(|| bad(path, number, format!("no {name}")))?.trim();
                text.parse()
                    .map_err(|_| bad(path, number, format!("{name} is `{text}`, expected an integer")))
            };
            let text = fields.get(columns.id).ok_or_else(|| bad(path, number, "no id"))?.trim();
            let id: u64 = text
                .parse()
                .map_err(|_| bad(path, number, format!("id is `{text}`, expected an integer")))?;
            let size = field(columns.size, "size", 1)?;
            let size = u64::try_from(size).map_err(|_| bad(path, number, format!("size is {size}")))?.max(1);
            let stream = field(columns.stream, "stream", 0)?.cast_unsigned();
            // Without a clock each row is a request.
            let t = field(columns.t, "t", i64::try_from(number).unwrap_or(i64::MAX))?;
            let row = trace.ids.len();
            trace.ids.push(id);
            trace.sizes.push(size);
            sizes_of.entry(id).or_insert(size);
            match trace.requests.last_mut() {
                Some(request) if previous == Some((t, stream)) && row - request.first < REQUEST_ROWS_MAX => {
                    request.end = row + 1;
                }
                _ => trace.requests.push(TraceRequest { stream, first: row, end: row + 1 }),
            }
            previous = Some((t, stream));
        }
        if trace.ids.is_empty() {
            return Err(bad(path, 2, "the trace is empty"));
        }
        trace.objects = sizes_of.len();
        trace.footprint_bytes = sizes_of.values().sum();
        Ok(trace)
    }

    /// Share of first-seen ids that are one more than the largest before. Near one, blocks are numbered in order of
    /// their first use, and reading ahead foresees what no prefetcher can know.
    #[must_use]
    pub fn numbering_leak(&self) -> f64 {
        let mut seen = std::collections::HashSet::with_capacity(self.objects);
        let (mut largest, mut leaks) = (None, 0);
        for id in &self.ids {
            if seen.insert(*id) {
                leaks += usize::from(largest.is_some_and(|largest: u64| *id == largest.wrapping_add(1)));
                largest = largest.max(Some(*id));
            }
        }
        leaks as f64 / self.objects as f64
    }

    /// Blocks of a cache of `percent` of all.
    #[must_use]
    pub fn capacity(&self, percent: f64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a part of a number of blocks in memory")]
        let blocks = (self.objects as f64 * percent / 100.0) as usize;
        blocks.max(1)
    }
}
