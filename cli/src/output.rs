//! The only place that prints: results to stdout, errors and progress to stderr.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tierstream_storage::{Error, ErrorKind, Result};

/// How often a progress bar is drawn, per second.
const DRAWS_PER_SECOND: u8 = 10;
/// Nobody types more than this.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Prints a result. That nobody reads it any more (a closed pipe) is the reader's choice, not an error.
pub(crate) fn result(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// As [`result`], for what need not be text.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", std::path::Path::new("stdout"), error))
        }
        _ => Ok(()),
    }
}

/// Prints a result as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Misuse, "print", format!("JSON: {error}")))?;
    result(&(text + "\n"))
}

/// Says something to the person who watches.
pub(crate) fn say(text: &str) {
    // Nothing can be said when stderr is closed.
    let _closed = writeln!(std::io::stderr().lock(), "{text}");
}

/// Asks something of the person who watches: no line end.
pub(crate) fn ask(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _closed = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

/// Asks, and reads a line from the terminal; `None` where stdin is none.
pub(crate) fn answer(text: &str) -> Result<Option<String>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    ask(text);
    let mut line = String::new();
    let read = stdin.lock().take(ANSWER_BYTES_MAX).read_line(&mut line);
    read.map_err(|error| Error::io("read", std::path::Path::new("stdin"), error))?;
    Ok(Some(line))
}

/// Prints an error and its hint.
pub(crate) fn error(error: &Error) {
    say(&format!("error: {error}"));
    if let Some(hint) = error.hint_text().or_else(|| usual_hint(error.kind())) {
        say(&format!("\nhint: {hint}"));
    }
}

/// The next step where whoever met the error knew none of its own.
fn usual_hint(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Retry => "something else is using it: try again in a while",
        ErrorKind::Missing => "is the path right, and is the device mounted?",
        ErrorKind::Corrupt => "restore it from its source; `tierstream verify` shows what else is damaged",
        ErrorKind::Full => "free some space or memory, or use another place",
        ErrorKind::Misuse => "`tierstream help` shows the commands and their options",
        ErrorKind::Unsupported => "`tierstream doctor` shows what this machine gives",
        ErrorKind::Denied => "look at its owner and mode with ls -ld, and whether it is mounted read-only",
        ErrorKind::Device => "the kernel's log may say more: dmesg",
        ErrorKind::Closed => "start it again",
        ErrorKind::Interrupted => return None,
    })
}

/// A bar on stderr for `total` bytes; invisible where stderr is no terminal.
pub(crate) fn byte_bar(total: u64, what: &str) -> ProgressBar {
    let style = "{msg:10} [{bar:32}] {bytes:>11} of {total_bytes:11} {bytes_per_sec:>13}  {eta}";
    bar(total, what, style)
}

/// A bar on stderr for `total` steps; the message is the caller's.
pub(crate) fn step_bar(total: u64) -> ProgressBar {
    bar(total, "", "[{bar:24}] {pos:>4}/{len}  {msg}  {eta}")
}

fn bar(total: u64, message: &str, style: &str) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    // The templates are constants; a wrong one falls back to the default bar.
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Aligns rows of a label and a value.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(label, value)| format!("{label:width$}  {value}\n")).collect()
}
