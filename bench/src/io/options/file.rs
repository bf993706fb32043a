//! Job files: sections of `key=value`, `[global]`, `include`, `${VARIABLE}`.

use std::io::ErrorKind as Io;
use std::path::Path;

use super::args::beside;
use super::misuse;
use super::set::{OptionSet, Origin};
use crate::{Error, Result};

/// Files included within each other; more is a loop.
const INCLUDE_DEPTH_MAX: usize = 16;
/// A job file is text that people write.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The jobs of the files read so far.
pub(super) struct Sections<'a> {
    global: OptionSet,
    jobs: Vec<OptionSet>,
    in_global: bool,
    depth: usize,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Sections<'a> {
    /// Nothing yet; jobs begin with what `global` has.
    pub(super) fn new(global: OptionSet, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { global, jobs: Vec::new(), in_global: false, depth: 0, environment }
    }

    pub(super) fn finish(self) -> Vec<OptionSet> {
        self.jobs
    }

    fn line(&mut self, path: &Path, number: usize, line: &str) -> Result<()> {
        let origin = Origin::File { path: path.display().to_string(), line: number };
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| misuse(format!("{origin}: found `{line}`, expected `[name]`")))?;
            self.in_global = name == "global";
            if !self.in_global {
                self.jobs.push(OptionSet::inherit(name, &self.global));
            }
            return Ok(());
        }
        if let Some(name) = line.strip_prefix("include ") {
            return self.include(&beside(path, name.trim()), &origin);
        }
        let line = self.expanded(line, &origin)?;
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (line.trim(), None),
        };
        let set = match self.jobs.last_mut() {
            Some(job) if !self.in_global => job,
            _ if self.in_global => &mut self.global,
            _ => {
                return Err(misuse(format!("{origin}: `{name}` stands before the first section"))
                    .hint("begin with [global] or [name of the job]"));
            }
        };
        set.add(name, value, origin)
    }

    fn include(&mut self, path: &Path, origin: &Origin) -> Result<()> {
        if self.depth == INCLUDE_DEPTH_MAX {
            return Err(misuse(format!(
                "{origin}: files include each other more than {INCLUDE_DEPTH_MAX} deep"
            )));
        }
        self.depth += 1;
        read(path, self)?;
        self.depth -= 1;
        Ok(())
    }

    /// The line with `${NAME}` replaced, and fio's own words `$pagesize`, `$mb_memory` and `$ncpus`.
    fn expanded(&self, line: &str, origin: &Origin) -> Result<String> {
        let mut text = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(at) = rest.find("${") {
            text.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..]
                .split_once('}')
                .ok_or_else(|| misuse(format!("{origin}: `${{` without `}}` in `{line}`")))?;
            let value = (self.environment)(name).ok_or_else(|| {
                misuse(format!("{origin}: the environment has no variable `{name}`"))
                    .hint(format!("set it: {name}=VALUE tierstream bench ..."))
            })?;
            text.push_str(&value);
            rest = after;
        }
        text.push_str(rest);
        if text.contains('$') {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            text = text
                .replace("$pagesize", &rustix::param::page_size().to_string())
                .replace("$ncpus", &cores.to_string());
        }
        Ok(text)
    }
}

/// Adds the jobs of the file at `path`.
///
/// # Errors
/// `Misuse` with file and line for what is wrong in it, or that it cannot be read.
pub(super) fn read(path: &Path, sections: &mut Sections<'_>) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if metadata.len() > FILE_BYTES_MAX {
        let why = format!("`{}` has {} bytes: no job file", path.display(), metadata.len());
        return Err(misuse(why));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        sections.line(path, number, line)?;
    }
    Ok(())
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        Io::NotFound => "an argument without `--` is a job file: is the path right?",
        Io::InvalidData => "a job file is text in UTF-8",
        _ => "an argument without `--` is a job file",
    };
    Error::io("read job file", path, error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn parse(text: &str) -> Result<Vec<OptionSet>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("other.fio"), "[global]\nbs=8k\n").unwrap();
        let path = dir.path().join("a.fio");
        std::fs::write(&path, text).unwrap();
        let environment = |name: &str| (name == "SIZE").then(|| "64m".to_owned());
        let mut sections = Sections::new(OptionSet::default(), &environment);
        read(&path, &mut sections)?;
        Ok(sections.finish())
    }

    #[test]
    fn sections_inherit_what_global_had_before_them() {
        let text = "; comment\n[global]\nrw=randread\nsize=${SIZE}\n\n[one]\n# comment\ndirect\n[global]\nbs=4k\n\
                    [two]\nbs=64k\ninclude other.fio\n[three]\n";
        let jobs = parse(text).unwrap();
        let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        assert_eq!(jobs[0].effective(), [("rw", "randread"), ("size", "64m"), ("direct", "1")]);
        assert_eq!(jobs[1].text("bs"), Some("64k"));
        assert_eq!(jobs[2].text("bs"), Some("8k"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            (
                "[a]\nrw=read\niodepht=2\n",
                "a.fio:3: unknown option `iodepht`, the nearest known one is `iodepth`",
            ),
            ("rw=read\n", "a.fio:1: `rw` stands before the first section"),
            ("[a\n", "a.fio:1: found `[a`, expected `[name]`"),
            ("[a]\nsize=${NOPE}\n", "a.fio:2: the environment has no variable `NOPE`"),
            ("[a]\nsize=${NOPE\n", "without `}`"),
            ("[a]\nbs\n", "a.fio:2: option `bs` has no value"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(parse("[a]\ninclude nowhere\n").unwrap_err().kind(), ErrorKind::Missing);
        assert!(parse("[a]\ninclude a.fio\n").unwrap_err().to_string().contains("include each other"));
    }
}
