//! The command line: fio's job options as flags, job files, and what is asked of the whole run.

use std::path::{Path, PathBuf};

use super::file::{self, Sections};
use super::set::{OptionSet, Origin};
use super::table::{self, Kind};
use super::{misuse, nearest, value};
use crate::Result;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As fio prints it for people.
    Normal,
    /// fio's JSON.
    Json,
    /// fio's JSON with every bin of the latency histograms.
    JsonPlus,
}

/// When the line with the time left is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eta {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What is asked of the whole run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Formats to print, in this order.
    pub formats: Vec<Format>,
    /// File for the report; stdout without.
    pub output: Option<PathBuf>,
    /// File for the page.
    pub report: Option<PathBuf>,
    /// Nanoseconds between two lines of status as NDJSON.
    pub status_interval_nanos: Option<u64>,
    /// The line with the time left.
    pub eta: Eta,
    /// Whether writing is refused.
    pub readonly: bool,
    /// Only check the jobs.
    pub parse_only: bool,
    /// Print jobs as command lines.
    pub showcmd: bool,
    /// Two files to compare.
    pub compare: Vec<PathBuf>,
    /// Directory to find the best settings for.
    pub tune: Option<PathBuf>,
    /// Nanoseconds that may take.
    pub tune_budget_nanos: u64,
    /// Show help: empty for all options, or the name of one.
    pub help: Option<String>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            formats: vec![Format::Normal],
            output: None,
            report: None,
            status_interval_nanos: None,
            eta: Eta::Auto,
            readonly: false,
            parse_only: false,
            showcmd: false,
            compare: Vec::new(),
            tune: None,
            tune_budget_nanos: 60_000_000_000,
            help: None,
        }
    }
}

/// A command line, read.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Options of the run.
    pub run: RunOptions,
    pub(crate) jobs: Vec<OptionSet>,
    pub(crate) global: OptionSet,
}

const SECOND: u64 = 1_000_000_000;

/// Flags of the run and not of a job, for suggestions.
const RUN_FLAGS: [&str; 15] = [
    "output",
    "output-format",
    "report",
    "status-interval",
    "eta",
    "readonly",
    "parse-only",
    "showcmd",
    "compare",
    "tune",
    "tune-budget",
    "section",
    "cmdhelp",
    "json",
    "version",
];

struct Reader<'a> {
    read: Arguments,
    sections: Vec<String>,
    files: Vec<PathBuf>,
    job: Option<OptionSet>,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Arguments {
    /// Reads `args`, and the job files that they name.
    ///
    /// # Errors
    /// `Misuse` for what is no option, has no value, or names a file that cannot be read; with the place.
    pub fn read<S: AsRef<str>>(args: &[S], environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut reader =
            Reader { read: Self::default(), sections: Vec::new(), files: Vec::new(), job: None, environment };
        let mut rest = args.iter().map(AsRef::as_ref).peekable();
        while let Some(arg) = rest.next() {
            let Some(flag) =
                arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|flag| !flag.is_empty())
            else {
                reader.files.push(PathBuf::from(arg));
                continue;
            };
            let (name, mut given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            // As getopt_long(3): an option that needs a value may have it as the next word.
            let takes_next = match table::find(name) {
                Some(key) => !matches!(key.kind, Kind::Switch) && !key.optional_value,
                None => matches!(
                    name,
                    "output"
                        | "output-format"
                        | "report"
                        | "status-interval"
                        | "eta"
                        | "section"
                        | "tune"
                        | "tune-budget"
                        | "compare"
                ),
            };
            if given.is_none() && takes_next {
                given = rest.next_if(|next| !next.starts_with("--")).map(str::to_owned);
            }
            reader.flag(name, given)?;
            if name == "compare" {
                while let Some(second) = rest.next_if(|next| !next.starts_with('-')) {
                    reader.read.run.compare.push(PathBuf::from(second));
                }
            }
        }
        reader.finish()
    }

    /// Each job as a command line, as fio's `--showcmd` prints it.
    #[must_use]
    pub fn commands(&self) -> String {
        let quoted = |value: &str| {
            let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._:,%+-".contains(&byte));
            if plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
        };
        let mut text = String::from("tierstream bench");
        for job in &self.jobs {
            text.push_str(&format!(" --name={}", quoted(&job.name)));
            for (name, value) in job.effective().into_iter().filter(|(name, _)| *name != "name") {
                text.push_str(&format!(" --{name}={}", quoted(value)));
            }
        }
        text + "\n"
    }
}

impl Reader<'_> {
    fn flag(&mut self, name: &str, given: Option<String>) -> Result<()> {
        let run = &mut self.read.run;
        let need = |given: Option<String>| {
            given.ok_or_else(|| {
                misuse(format!("command line: `--{name}` has no value, expected --{name}=VALUE"))
            })
        };
        match name {
            "output" | "o" => run.output = Some(need(given)?.into()),
            "output-format" => {
                let words = [("normal", Format::Normal), ("json", Format::Json), ("json+", Format::JsonPlus)];
                run.formats = need(given)?
                    .split(',')
                    .map(|word| {
                        let found = value::word("output-format", word, &words.map(|(word, _)| word))?;
                        Ok(words
                            .iter()
                            .find(|(word, _)| *word == found)
                            .map_or(Format::Normal, |(_, is)| *is))
                    })
                    .collect::<Result<_>>()?;
            }
            "json" => run.formats = vec![Format::Json],
            "report" => run.report = Some(need(given)?.into()),
            "status-interval" => {
                run.status_interval_nanos = Some(value::nanos(name, &need(given)?, SECOND)?);
            }
            "eta" => {
                run.eta = match value::word(name, &need(given)?, &["auto", "always", "never"])? {
                    "always" => Eta::Always,
                    "never" => Eta::Never,
                    _ => Eta::Auto,
                };
            }
            "readonly" => run.readonly = true,
            "parse-only" => run.parse_only = true,
            "showcmd" => run.showcmd = true,
            "compare" => run.compare.push(need(given)?.into()),
            "tune" => run.tune = Some(need(given)?.into()),
            "tune-budget" => run.tune_budget_nanos = value::nanos(name, &need(given)?, SECOND)?,
            "section" => self.sections.push(need(given)?),
            "cmdhelp" => run.help = Some(given.filter(|of| of != "all").unwrap_or_default()),
            "minimal" | "client" | "server" | "debug" | "max-jobs" | "alloc-size" | "warnings-fatal"
            | "terse-version" => {
                return Err(misuse(format!("command line: `--{name}` of fio is not carried out"))
                    .hint("docs/reference/bench.md lists what is left out and why"));
            }
            _ => self.job_option(name, given)?,
        }
        Ok(())
    }

    fn job_option(&mut self, name: &str, given: Option<String>) -> Result<()> {
        if table::find(name).is_none() {
            let known = table::names().chain(RUN_FLAGS);
            let nearest = nearest(name, known);
            let why =
                format!("command line: unknown option `--{name}`, the nearest known one is `--{nearest}`");
            return Err(misuse(why)
                .hint("`tierstream bench --cmdhelp` lists all options, `--cmdhelp=NAME` explains one"));
        }
        if name == "name" {
            let job = given.ok_or_else(|| misuse("command line: `--name` has no value"))?;
            self.end_job();
            // fio: `--name=global` goes back to what holds for all.
            self.job = (job != "global").then(|| OptionSet::inherit(&job, &self.read.global));
            return Ok(());
        }
        let set = self.job.as_mut().unwrap_or(&mut self.read.global);
        set.add(name, given.as_deref(), Origin::CommandLine)
    }

    fn end_job(&mut self) {
        self.read.jobs.extend(self.job.take());
    }

    fn finish(mut self) -> Result<Arguments> {
        self.end_job();
        for path in std::mem::take(&mut self.files) {
            let mut sections = Sections::new(self.read.global.clone(), self.environment);
            file::read(&path, &mut sections)?;
            self.read.jobs.extend(sections.finish());
        }
        if !self.sections.is_empty() {
            for wanted in &self.sections {
                if !self.read.jobs.iter().any(|job| &job.name == wanted) {
                    let names: Vec<&str> = self.read.jobs.iter().map(|job| job.name.as_str()).collect();
                    let nearest = nearest(wanted, names.iter().copied());
                    let why = format!("--section={wanted}: no job has that name, the nearest is `{nearest}`");
                    return Err(misuse(why));
                }
            }
            self.read.jobs.retain(|job| self.sections.contains(&job.name));
        }
        let other =
            self.read.run.help.is_some() || self.read.run.tune.is_some() || !self.read.run.compare.is_empty();
        if self.read.jobs.is_empty() && !other {
            if self.read.global.effective().is_empty() {
                return Err(misuse("there is no job").hint(
                    "give a job file, or a job: --name=test --filename=FILE --size=1g --rw=randread --bs=4k",
                ));
            }
            // Options without a name are one job, as `bench io` takes them.
            self.read.jobs.push(OptionSet::inherit("job", &self.read.global));
        }
        Ok(self.read)
    }
}

/// A path relative to the file that names it.
pub(super) fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().map_or_else(|| PathBuf::from(name), |parent| parent.join(name))
}
