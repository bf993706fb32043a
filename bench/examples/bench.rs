//! `tierstream bench` without the rest of the command, for who works on it: builds in a fraction of the time.
//!
//! `cargo run --release -p tierstream-bench --example bench -- bench --name=a --filename=/tmp/f --size=64m`

use std::process::ExitCode;
use std::sync::Arc;

use tierstream_bench::io::{Arguments, Format, Plan, Unwatched};
use tierstream_bench::{Error, Result};
use tierstream_storage::clock::{Clock, SystemClock};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "an example is a command")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).skip_while(|arg| arg == "bench").collect();
    match run(&args) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!(
                "error: {error}\n\nhint: {}",
                error.hint_text().unwrap_or("see docs/reference/bench.md")
            );
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a command reads the environment: ${NAME} in job files")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn run(args: &[String]) -> Result<String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let arguments = Arguments::read(args, &environment)?;
    let report = Plan::new(&arguments)?.run(&clock, &mut Unwatched)?;
    if let Some(path) = &arguments.run.report {
        std::fs::write(path, report.html()).map_err(|error| Error::io("write", path, error))?;
    }
    if arguments.run.formats == [Format::Normal] {
        return Ok(report.normal());
    }
    let plus = arguments.run.formats.contains(&Format::JsonPlus);
    Ok(serde_json::to_string(&report.json(plus)).unwrap_or_default())
}
