//! `tierstream keys destroy`: takes a key away from a data set, or destroys a key file. Where it was the last key, the
//! data is gone for ever, on purpose.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tierstream_storage::keys::{KekId, destroy_key_file, read_key_text};
use tierstream_storage::store::list_wraps;
use tierstream_storage::{Error, ErrorKind, Result};

use super::change;
use crate::args::IoArgs;
use crate::interrupt::Interrupt;
use crate::key::{KeySource, key_parser};
use crate::output;

/// Take a key away from a data set or the objects of a tier, or destroy a key file; what no key opens any more is gone for ever
///
/// Overwrites the data keys that are wrapped under the key in every file's header. Copies and backups keep theirs: they
/// open as long as the key exists anywhere. Devices and file systems may keep what is overwritten (SSDs, snapshots,
/// copy-on-write); docs/guides/keys.md says what to do about it.
#[derive(Debug, Args)]
pub(super) struct Destroy {
    /// Directory of a data set, directory of a tier where objects live, or a key file
    #[arg(value_name = "DATASET|TIER|KEYFILE")]
    target: PathBuf,

    /// The key to take away: a file, env:NAME or cmd:COMMAND; its passphrase is not needed
    #[arg(long, value_name = "KEY", value_parser = key_parser())]
    key: Vec<KeySource>,

    /// The key to take away, by its name, or name and version, as `tierstream keys list` shows them
    #[arg(long, value_name = "NAME[@VERSION]")]
    name: Vec<String>,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Which keys go.
#[derive(Debug)]
enum Leaving {
    Key(KekId),
    Name(String, Option<u32>),
}

impl Leaving {
    fn by_name(text: &str) -> Result<Self> {
        match text.split_once('@') {
            None => Ok(Self::Name(text.to_owned(), None)),
            Some((name, version)) => match version.parse() {
                Ok(version) => Ok(Self::Name(name.to_owned(), Some(version))),
                Err(_) => Err(Error::new(
                    ErrorKind::Misuse,
                    "destroy",
                    format!("`{text}` is not NAME or NAME@VERSION"),
                )),
            },
        }
    }

    fn is(&self, kek: &KekId) -> bool {
        match self {
            Self::Key(id) => id.fingerprint == kek.fingerprint,
            Self::Name(name, version) => {
                *name == kek.name && version.is_none_or(|version| version == kek.version)
            }
        }
    }
}

impl Destroy {
    pub(super) fn run(self) -> Result<ExitCode> {
        match (self.target.is_dir(), self.key.is_empty() && self.name.is_empty()) {
            (true, false) => self.of_data_set(),
            (false, true) => self.key_file(),
            (true, true) => Err(Error::new(ErrorKind::Misuse, "destroy", "which key?")
                .at(&self.target)
                .hint("name it with --key KEY or --name NAME; `tierstream keys list` shows which there are")),
            (false, false) => Err(Error::new(ErrorKind::Misuse, "destroy", "not a data set")
                .at(&self.target)
                .hint("--key and --name take a key away from a data set: give its directory")),
        }
    }

    fn key_file(&self) -> Result<ExitCode> {
        let id = read_key_text(&self.target)?.id().clone();
        let warning = format!(
            "key {id} in {} will be destroyed: what is wrapped under it alone, here or in any copy or backup, can be \
             opened only with another copy of this key",
            self.target.display()
        );
        self.confirm(&warning, "the key's name", &id.name)?;
        destroy_key_file(&self.target)?;
        output::result(&format!("{}: key {id} destroyed\n", self.target.display()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn of_data_set(&self) -> Result<ExitCode> {
        let mut leaving = self.name.iter().map(|name| Leaving::by_name(name)).collect::<Result<Vec<_>>>()?;
        for source in &self.key {
            leaving.push(Leaving::Key(source.read()?.id().clone()));
        }
        let goes = |kek: &KekId| leaving.iter().any(|leaving| leaving.is(kek));
        let files = list_wraps(&self.target)?;
        let mut keks: Vec<KekId> = Vec::new();
        for kek in files.iter().flat_map(|file| &file.keks).filter(|kek| goes(kek)) {
            if !keks.contains(kek) {
                keks.push(kek.clone());
            }
        }
        if keks.is_empty() {
            return Err(Error::new(ErrorKind::Missing, "destroy", "no file is wrapped under this key")
                .at(&self.target)
                .hint("`tierstream keys list` shows the keys that there are"));
        }
        let opened = files.iter().filter(|file| file.keks.iter().any(goes)).count();
        let last = files.iter().filter(|file| !file.keks.is_empty() && file.keks.iter().all(goes)).count();
        let names: Vec<String> = keks.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        let consequence = if last == 0 {
            "other keys still open them".to_owned()
        } else {
            format!("{last} of them have no other key: THEIR DATA BECOMES UNREADABLE FOR EVER, for everybody")
        };
        let warning = format!(
            "key {names} opens {opened} of {} files of {}; {consequence}\ncopies and backups made before are not \
             changed: they open as long as the key exists anywhere",
            files.len(),
            self.target.display()
        );
        let name = name_of(&self.target)?;
        self.confirm(&warning, "the data set's name", &name)?;
        let interrupt = Interrupt::catch(|| {})?;
        let report = change::run(&self.target, &self.io, 1, &interrupt, |keys| keys.destroy(&goes))?;
        change::tell(
            &self.target,
            &report,
            (&keks, None),
            self.json,
            &format!(
                "key {names} taken away from {} files; {last} cannot be opened any more",
                report.removed
            ),
            "those named above still open under it",
        )
    }

    /// Goes on only when somebody at a terminal types `expected`, or gave --yes.
    fn confirm(&self, warning: &str, what: &str, expected: &str) -> Result<()> {
        output::say(warning);
        if self.yes {
            return Ok(());
        }
        let refused = |why: &str| {
            Error::new(ErrorKind::Misuse, "destroy", why)
                .at(&self.target)
                .hint("nothing was changed; to go on without a question, give --yes")
        };
        match output::answer(&format!("type {what} ({expected}) to go on: "))? {
            None => Err(refused("nobody can be asked: stdin is no terminal")),
            Some(answer) if answer.trim() == expected => Ok(()),
            Some(_) => Err(refused("what was typed is not the name")),
        }
    }
}

/// The last part of a data set's path, however it was given.
fn name_of(path: &Path) -> Result<String> {
    let path = path.canonicalize().map_err(|error| Error::io("open", path, error))?;
    Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_with_or_without_a_version() {
        let kek = |name: &str, version| KekId { name: name.to_owned(), version, fingerprint: [7; 16] };
        let all = Leaving::by_name("job").unwrap();
        assert!(all.is(&kek("job", 1)) && all.is(&kek("job", 2)) && !all.is(&kek("jobs", 1)));
        let second = Leaving::by_name("job@2").unwrap();
        assert!(second.is(&kek("job", 2)) && !second.is(&kek("job", 1)));
        assert!(Leaving::by_name("job@two").is_err());
        assert!(Leaving::Key(kek("old name", 9)).is(&kek("job", 1)), "a key is what its fingerprint says");
    }
}
