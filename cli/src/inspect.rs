//! `tierstream inspect`: what is in a data set, with or without its key.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tierstream_loader::{Dataset, RECORD_NAMES, name_of};
use tierstream_storage::format::{Header, MANIFEST_NAME, SectionType};
use tierstream_storage::keys::KeyProvider;
use tierstream_storage::store::peek_header;
use tierstream_storage::units::{human_bytes, to_u64};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, Result, Store, StoreConfig};

use crate::args::block_bytes_of;
use crate::key::OptionalKeyArgs;
use crate::output;

/// Show what is in a data set or a sealed file
///
/// Without a key only the headers can be shown, and nothing in them is authenticated. With the key: samples, their type
/// and shape, and the shards.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Directory of a data set, or a sealed file
    path: PathBuf,

    #[command(flatten)]
    key: OptionalKeyArgs,

    /// List this many samples with their sizes and names, with a key
    #[arg(long, value_name = "N", default_value_t = 0, requires = "key")]
    samples: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct FileReport {
    file: String,
    kind: &'static str,
    format: String,
    cipher: &'static str,
    codec: &'static str,
    data_set: String,
    generation: u64,
    block_bytes: u32,
    blocks: u64,
    records: u64,
    payload_bytes: u64,
    file_bytes: u64,
    keys: Vec<String>,
}

#[derive(Serialize)]
struct SampleReport {
    sample: u64,
    bytes: u64,
    name: Option<String>,
}

#[derive(Serialize)]
struct DataSetReport {
    authenticated: bool,
    #[serde(flatten)]
    info: DataSetInfo,
    samples: Vec<SampleReport>,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.key.open() {
            Some(keys) if self.path.is_dir() => self.with_key(keys?)?,
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Misuse,
                    "inspect",
                    "a key opens a data set, not a single file",
                )
                .at(&self.path)
                .hint("give the data set's directory, or leave --key out"));
            }
            None => self.without_key()?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn without_key(&self) -> Result<()> {
        let files = if self.path.is_dir() { sealed_files(&self.path)? } else { vec![self.path.clone()] };
        let reports = files
            .iter()
            .map(|path| Ok(FileReport::new(path, &peek_header(path)?)))
            .collect::<Result<Vec<_>>>()?;
        if self.json {
            return output::json(&serde_json::json!({"authenticated": false, "files": reports}));
        }
        let mut text = String::from(
            "not authenticated: this is what the headers say; give --key to check and see more\n\n",
        );
        text += &format!(
            "{:20} {:9} {:12} {:5} {:>4} {:>9} {:>10} {:>10}  key\n",
            "file", "kind", "cipher", "codec", "gen", "records", "payload", "stored"
        );
        for report in &reports {
            text += &format!(
                "{:20} {:9} {:12} {:5} {:>4} {:>9} {:>10} {:>10}  {}\n",
                report.file,
                report.kind,
                report.cipher,
                report.codec,
                report.generation,
                report.records,
                human_bytes(report.payload_bytes),
                human_bytes(report.file_bytes),
                report.keys.join(", ")
            );
        }
        output::result(&text)
    }

    fn with_key(&self, keys: Arc<dyn KeyProvider>) -> Result<()> {
        let block_bytes = block_bytes_of(&self.path)?;
        let store = Store::open(
            StoreConfig { l1_bytes: u64::from(block_bytes) * 16, block_bytes, ..StoreConfig::default() },
            keys,
        )?;
        let location = self.path.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "inspect", "the path is not UTF-8").at(&self.path)
        })?;
        let dataset = Dataset::open(Arc::new(store), location)?;
        let samples = self.list_samples(&dataset)?;
        let info = dataset.info();
        if self.json {
            return output::json(&DataSetReport { authenticated: true, info: (**info).clone(), samples });
        }
        let fields: Vec<String> = dataset
            .schema()
            .fields()
            .iter()
            .map(|field| format!("`{}`: {} {:?}", field.name, field.dtype, field.shape))
            .collect();
        let mut text = output::table(&[
            ("data set", format!("{} ({})", info.name, info.id)),
            ("generation", info.generation.to_string()),
            ("samples", format!("{} of {}", info.records, fields.join(", "))),
            ("payload", human_bytes(info.payload_bytes)),
            ("stored", format!("{} in {} shards", human_bytes(info.file_bytes), info.shards.len())),
            ("cipher", format!("{}, blocks of {}", info.cipher, human_bytes(u64::from(info.block_bytes)))),
            ("codec", codec(&dataset)?),
            ("made from", info.source.to_string()),
        ]);
        for sample in &samples {
            let name = sample.name.as_deref().unwrap_or("");
            text += &format!("{:>10}  {:>12} bytes  {name}\n", sample.sample, sample.bytes);
        }
        output::result(&text)
    }

    fn list_samples(&self, dataset: &Dataset) -> Result<Vec<SampleReport>> {
        let info = dataset.info();
        let mut reports = Vec::new();
        let mut first = 0;
        for (number, shard) in info.shards.iter().enumerate() {
            if first >= self.samples {
                break;
            }
            let names = dataset.source().section(info, number, RECORD_NAMES)?;
            for record in 0..shard.records.min(self.samples - first) {
                let read = dataset.locate(first + record)?;
                let name = names.as_deref().and_then(|names| name_of(names, shard.records, record));
                reports.push(SampleReport {
                    sample: first + record,
                    bytes: read.range.end - read.range.start,
                    name: name.map(str::to_owned),
                });
            }
            first += shard.records;
        }
        Ok(reports)
    }
}

/// How the blocks of a data set are compressed.
fn codec(dataset: &Dataset) -> Result<String> {
    let info = dataset.info();
    if !info.compressed {
        return Ok("none".to_owned());
    }
    let dictionary = match info.shards.is_empty() {
        true => None,
        false => dataset.source().section(info, 0, SectionType::DICTIONARY)?,
    };
    Ok(match dictionary {
        Some(bytes) => format!("zstd where it pays, dictionary of {}", human_bytes(to_u64(bytes.len()))),
        None => "zstd where it pays".to_owned(),
    })
}

impl FileReport {
    fn new(path: &Path, header: &Header) -> Self {
        let params = &header.params;
        Self {
            file: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            kind: params.kind.name(),
            format: format!("1.{}", header.minor),
            cipher: params.cipher.name(),
            codec: if params.compressed { "zstd" } else { "none" },
            data_set: params.data_set_id.to_string(),
            generation: params.generation,
            block_bytes: params.block_bytes,
            blocks: header.block_count(),
            records: header.record_count,
            payload_bytes: header.payload_bytes,
            file_bytes: header.file_bytes(),
            keys: header.wraps.iter().map(|wrap| wrap.kek.to_string()).collect(),
        }
    }
}

/// The manifest and shards in a directory, in the order of their names.
fn sealed_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "tss" || extension == "tsm")
                && path.is_file()
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::new(
            ErrorKind::Missing,
            "inspect",
            format!("no `{MANIFEST_NAME}` and no shards in it"),
        )
        .at(directory)
        .hint("give the directory of a packed data set; `tierstream pack INPUT OUTPUT` makes one"));
    }
    Ok(files)
}
