//! `tierstream get`: an object becomes a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Args;
use tierstream_storage::store::object::Sink;
use tierstream_storage::{Error, Object, Result};

use super::file::NewFile;
use super::{ObjectArgs, stopped};
use crate::interrupt::Interrupt;
use crate::output;

/// Bytes read at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// Write an object to a file
///
/// The file appears under its name when it is complete; `-` writes to standard output.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name of the object
    name: String,

    /// File to make or replace, or - for standard output
    file: PathBuf,

    #[command(flatten)]
    objects: ObjectArgs,

    /// Print what was written as JSON; not with -
    #[arg(long)]
    json: bool,
}

impl Get {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = self.objects.open(|_| {})?;
        let object = store.get(&self.name)?;
        save(&object, &self.file, object.payload_bytes(), |sink| pieces(&object, sink))?;
        if self.json && self.file != Path::new("-") {
            output::json(&object.info())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Hands all of an object to `sink`.
fn pieces(object: &Object, sink: &mut Sink<'_>) -> Result<()> {
    let total = object.payload_bytes();
    let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(total)).expect("a few MiB")];
    let mut at = 0;
    while at < total {
        let now = usize::try_from(PIECE_BYTES.min(total - at)).expect("a few MiB");
        object.read(at, &mut piece[..now])?;
        sink(&piece[..now])?;
        at += PIECE_BYTES;
    }
    Ok(())
}

/// Writes what `give` gives to `path`, with a bar for `total` bytes.
pub(super) fn save(
    object: &Object,
    path: &Path,
    total: u64,
    give: impl FnOnce(&mut Sink<'_>) -> Result<()> + Send,
) -> Result<()> {
    let interrupt = Interrupt::catch(|| {})?;
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let bar = output::byte_bar(total, "reading");
    let saved = interrupt.watch(&bar, &done, &stop, || {
        let counted = |write: &mut dyn FnMut(&[u8]) -> Result<()>, piece: &[u8]| {
            if stop.load(Ordering::Relaxed) {
                return Err(stopped("get"));
            }
            write(piece)?;
            done.fetch_add(u64::try_from(piece.len()).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        if path == Path::new("-") {
            let mut stdout = |piece: &[u8]| output::bytes(piece);
            return give(&mut |piece| counted(&mut stdout, piece));
        }
        let mut file = NewFile::create(path)?;
        give(&mut |piece| counted(&mut |piece| file.write(piece), piece))?;
        file.publish()
    });
    bar.finish_and_clear();
    saved.map_err(|error: Error| error.hint(format!("`{}` is as it was", object.info().name)))
}
