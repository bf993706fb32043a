//! `tierstream keys list`: the keys that data sets and key files name, without any key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tierstream_storage::Result;
use tierstream_storage::keys::read_key_text;
use tierstream_storage::store::{list_wraps, sealed_files};

use super::KeyName;
use crate::output;

/// Show which keys data sets and objects open with, and which keys are in key files; no key is needed
///
/// What headers say is not authenticated here.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Directories of data sets, directories of tiers where objects live, or key files
    #[arg(required = true, value_name = "DATASET|TIER|KEYFILE")]
    paths: Vec<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What {
    KeyFile {
        #[serde(flatten)]
        key: KeyName,
    },
    DataSet(Uses),
    Objects(Uses),
}

#[derive(Serialize)]
struct Uses {
    files: u64,
    keys: Vec<Use>,
    /// Files that no key opens any more.
    shredded_files: u64,
    damaged_slots: u64,
}

#[derive(Serialize)]
struct Use {
    #[serde(flatten)]
    key: KeyName,
    files: u64,
}

impl List {
    pub(super) fn run(self) -> Result<ExitCode> {
        let reports = self.paths.iter().map(|path| report(path)).collect::<Result<Vec<_>>>()?;
        if self.json {
            output::json(&reports)?;
        } else {
            output::result(&reports.iter().map(Report::text).collect::<String>())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn report(path: &Path) -> Result<Report> {
    let what = if path.is_dir() { of_sealed_files(path)? } else { of_key_file(path)? };
    Ok(Report { path: path.display().to_string(), what })
}

fn of_key_file(path: &Path) -> Result<What> {
    Ok(What::KeyFile { key: read_key_text(path)?.id().into() })
}

fn of_sealed_files(path: &Path) -> Result<What> {
    let (mut files, mut shredded_files, mut damaged_slots) = (0, 0, 0);
    let mut keys: BTreeMap<KeyName, u64> = BTreeMap::new();
    for file in list_wraps(path)? {
        files += 1;
        shredded_files += u64::from(file.keks.is_empty() && file.damaged_slots == 0);
        damaged_slots += file.damaged_slots;
        for kek in &file.keks {
            *keys.entry(kek.into()).or_default() += 1;
        }
    }
    let keys = keys.into_iter().map(|(key, files)| Use { key, files }).collect();
    let uses = Uses { files, keys, shredded_files, damaged_slots };
    Ok(if sealed_files(path)?.objects { What::Objects(uses) } else { What::DataSet(uses) })
}

impl Report {
    fn text(&self) -> String {
        let name =
            |key: &KeyName| format!("{} version {} ({})", key.name, key.version, &key.fingerprint[..8]);
        match &self.what {
            What::KeyFile { key } => format!("{}: key {}\n", self.path, name(key)),
            What::DataSet(uses) | What::Objects(uses) => {
                let Uses { files, keys, shredded_files, damaged_slots } = uses;
                let mut text = format!("{}: {files} files\n", self.path);
                for key in keys {
                    text += &format!("  {} opens {}\n", name(&key.key), key.files);
                }
                if *shredded_files > 0 {
                    text += &format!("  no key opens {shredded_files}: they were shredded\n");
                }
                if *damaged_slots > 0 {
                    text += &format!("  {damaged_slots} wrap slots are damaged\n");
                }
                text
            }
        }
    }
}
