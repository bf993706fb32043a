//! `tierstream bench JOBFILE` and `tierstream bench --name=...`: fio's command line.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tierstream_bench::io::{self, Arguments, Eta, Format, Plan, RunOptions, Status, Watcher};
use tierstream_storage::clock::Clock;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::interrupt::Interrupt;
use crate::output;

/// Bytes of the file that `--tune` reads.
const TUNE_BYTES: u64 = 1 << 30;

/// Runs fio's command line `args`. Wrong usage exits with 2.
pub(super) fn run(args: &[String], clock: &Arc<dyn Clock>) -> Result<ExitCode> {
    let arguments = match Arguments::read(args, &environment) {
        Ok(arguments) => arguments,
        Err(error) => return Ok(wrong_usage(&error)),
    };
    let options = &arguments.run;
    if let Some(name) = &options.help {
        return match io::help(name) {
            Ok(page) => output::result(&page).map(|()| ExitCode::SUCCESS),
            Err(error) => Ok(wrong_usage(&error)),
        };
    }
    match &options.compare[..] {
        [] => {}
        [first, second] => {
            output::result(&io::compare(first, second)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        files => {
            let why = format!("--compare takes two reports, found {}", files.len());
            return Ok(wrong_usage(&Error::new(ErrorKind::Misuse, "parse", why)));
        }
    }
    if let Some(directory) = &options.tune {
        let report = io::tune(directory, TUNE_BYTES, options.tune_budget_nanos, clock)?;
        if options.formats.contains(&Format::Normal) {
            output::result(&report.text())?;
        } else {
            output::json(&report)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let plan = match Plan::new(&arguments) {
        Ok(plan) => plan,
        Err(error) => return Ok(wrong_usage(&error)),
    };
    if options.showcmd {
        output::result(&arguments.commands())?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.parse_only {
        output::result(&plan.summary())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut watch = Watch::new(options, Interrupt::catch(|| {})?);
    let interrupt = watch.interrupt.clone();
    let report = plan.run(clock, &mut watch)?;
    watch.clear();
    print(&report, options)?;
    if interrupt.is_set() {
        return Ok(ExitCode::from(130));
    }
    Ok(if report.verify_errors() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the environment: ${NAME} in job files")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn wrong_usage(error: &Error) -> ExitCode {
    output::error(error);
    ExitCode::from(2)
}

fn print(report: &io::Report, options: &RunOptions) -> Result<()> {
    let mut text = String::new();
    for format in &options.formats {
        match format {
            Format::Normal => text.push_str(&report.normal()),
            Format::Json | Format::JsonPlus => {
                let json = serde_json::to_string_pretty(&report.json(*format == Format::JsonPlus));
                let json =
                    json.map_err(|error| Error::new(ErrorKind::Misuse, "print", format!("JSON: {error}")))?;
                text.push_str(&json);
                text.push('\n');
            }
        }
    }
    match &options.output {
        Some(path) => write(path, &text)?,
        None => output::result(&text)?,
    }
    if let Some(path) = &options.report {
        write(path, &report.html())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Error::io("write", path, error))
}

/// Shows how far a run is: a line on the terminal, and lines of JSON.
struct Watch {
    interrupt: Interrupt,
    shows_line: bool,
    status_seconds: Option<f64>,
    line_at: f64,
    status_at: f64,
    last: f64,
    stages: f64,
    shown: bool,
}

/// The line is drawn so often.
const LINE_SECONDS: f64 = 0.5;

impl Watch {
    fn new(options: &RunOptions, interrupt: Interrupt) -> Self {
        let shows_line = match options.eta {
            Eta::Always => true,
            Eta::Never => false,
            // Lines of JSON and a line that is drawn again and again do not go together.
            Eta::Auto => std::io::stderr().is_terminal() && options.status_interval_nanos.is_none(),
        };
        Self {
            interrupt,
            shows_line,
            status_seconds: options.status_interval_nanos.map(|nanos| nanos as f64 / 1e9),
            line_at: 0.0,
            status_at: 0.0,
            last: 0.0,
            stages: 0.0,
            shown: false,
        }
    }

    /// Takes the line away.
    fn clear(&mut self) {
        if self.shown {
            output::ask("\r\x1b[K");
        }
    }

    fn line(status: &Status) -> String {
        let mut line = format!("\r\x1b[KJobs: {}", status.running);
        // Writing to a string does not fail.
        if let Some(percent) = status.percent {
            let _infallible = write!(line, " [{percent:.1}%]");
        }
        let [read, write] = status.bw_bytes.map(|bytes| bytes / f64::from(1 << 20));
        let _infallible = write!(line, "[r={read:.1}MiB/s,w={write:.1}MiB/s]");
        let _infallible = write!(line, "[r={:.0},w={:.0} IOPS]", status.iops[0], status.iops[1]);
        if let Some(eta) = status.eta_seconds {
            let whole = eta.round();
            let _infallible = write!(line, "[eta {:02}m:{:02}s]", (whole / 60.0).floor(), whole % 60.0);
        }
        line
    }
}

impl Watcher for Watch {
    fn look(&mut self, status: &Status) -> bool {
        if status.elapsed_seconds < self.last {
            // A new stage counts from zero.
            self.stages += self.last;
        }
        self.last = status.elapsed_seconds;
        let now = self.stages + status.elapsed_seconds;
        if self.shows_line && now >= self.line_at {
            self.line_at = now + LINE_SECONDS;
            self.shown = true;
            output::ask(&Self::line(status));
        }
        if let Some(seconds) = self.status_seconds
            && now >= self.status_at + seconds
        {
            self.status_at = now;
            let line = serde_json::json!({
                "elapsed_s": now,
                "eta_s": status.eta_seconds,
                "running": status.running,
                "percent": status.percent,
                "read": {"bw_bytes": status.bw_bytes[0], "iops": status.iops[0], "io_bytes": status.bytes[0], "total_ios": status.ios[0]},
                "write": {"bw_bytes": status.bw_bytes[1], "iops": status.iops[1], "io_bytes": status.bytes[1], "total_ios": status.ios[1]},
            });
            // Status is for who watches: a closed stderr ends nothing.
            let _closed = writeln!(std::io::stderr().lock(), "{line}");
        }
        !self.interrupt.is_set()
    }
}
