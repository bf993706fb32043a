//! Which format an input is of, by what its files are called.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use tierstream_storage::{Error, ErrorKind, Result};

use super::class_folders::ClassFolders;
use super::columns::Columns;
use super::jsonl::JsonLines;
use super::mds::Mds;
use super::tar::WebDataset;
use super::tokens::Tokens;
use super::{Format, npy, safetensors};
use crate::dtype::Dtype;
use crate::pack::Input;

/// A format of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatName {
    /// Each file is a sample of bytes.
    Files,
    /// Directories are classes, files samples.
    ClassFolders,
    /// Tar archives of `key.extension`.
    WebDataset,
    /// MosaicML's streaming shards.
    Mds,
    /// Tensors with a first dimension in common.
    Safetensors,
    /// NumPy arrays.
    Npy,
    /// Tokens one after the other.
    Tokens,
    /// One JSON object a line.
    Jsonl,
    /// Parquet, where it was built in: the feature `parquet`.
    Parquet,
}

impl FormatName {
    /// Every format and its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("files", Self::Files),
        ("class-folders", Self::ClassFolders),
        ("webdataset", Self::WebDataset),
        ("mds", Self::Mds),
        ("safetensors", Self::Safetensors),
        ("npy", Self::Npy),
        ("tokens", Self::Tokens),
        ("jsonl", Self::Jsonl),
        ("parquet", Self::Parquet),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    fn of_extension(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()? {
            "tar" => Self::WebDataset,
            "safetensors" => Self::Safetensors,
            "npy" | "npz" => Self::Npy,
            "bin" => Self::Tokens,
            "jsonl" | "ndjson" => Self::Jsonl,
            "parquet" => Self::Parquet,
            _ => return None,
        })
    }

    /// What `input` is: by the extension that all its files have, by an MDS index; else files.
    ///
    /// # Errors
    /// As the file system says.
    pub fn detect(input: &Path) -> Result<Self> {
        if input.join("index.json").is_file() {
            return Ok(Self::Mds);
        }
        if input.is_file() {
            return Ok(Self::of_extension(input).unwrap_or(Self::Files));
        }
        let input = Input::scan(input)?;
        let mut kinds = input.files().iter().map(|file| Self::of_extension(Path::new(&file.name)));
        let first = kinds.next().flatten();
        Ok(first.filter(|first| kinds.all(|kind| kind == Some(*first))).unwrap_or(Self::Files))
    }
}

impl FromStr for FormatName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, format)| *format).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            let why = format!("unknown format `{text}`, expected one of {}", known.join(" "));
            Error::new(ErrorKind::Misuse, "parse", why)
        })
    }
}

/// How an input is read.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Its fields; all where none are named.
    pub fields: Option<Vec<String>>,
    /// Tokens of a sample, for token files.
    pub sample_tokens: Option<u64>,
    /// Their type. Default: u16.
    pub dtype: Option<Dtype>,
}

/// Opens `input`, a file or a directory, as `format`.
///
/// # Errors
/// `Misuse` for a format that is not read by parts (`Files`) or settings that make no sense, `Corrupt` for what is
/// malformed, else as the file system says.
pub fn open(input: &Path, format: FormatName, options: &OpenOptions) -> Result<Box<dyn Format>> {
    let fields = options.fields.as_deref();
    let files = || -> Result<Vec<PathBuf>> {
        if input.is_file() {
            return Ok(vec![input.to_owned()]);
        }
        let listed = Input::scan(input)?;
        let of =
            |file: &&crate::pack::InputFile| FormatName::of_extension(Path::new(&file.name)) == Some(format);
        let paths: Vec<PathBuf> =
            listed.files().iter().filter(of).map(|file| input.join(&file.name)).collect();
        if paths.is_empty() {
            let why = format!("there are no files of format {} in it", format.name());
            return Err(Error::new(ErrorKind::Misuse, "read input", why)
                .at(input)
                .hint("choose another --format"));
        }
        Ok(paths)
    };
    Ok(match format {
        FormatName::Files => {
            let why = "a directory of files is packed file by file";
            return Err(Error::new(ErrorKind::Misuse, "read input", why).at(input));
        }
        FormatName::ClassFolders => Box::new(ClassFolders::open(input)?),
        FormatName::WebDataset => Box::new(WebDataset::open(files()?, fields)?),
        FormatName::Mds => Box::new(Mds::open(input, fields)?),
        FormatName::Tokens => {
            Box::new(Tokens::open(&files()?, options.sample_tokens, options.dtype.unwrap_or(Dtype::U16))?)
        }
        FormatName::Jsonl => Box::new(JsonLines::open(&files()?, fields)?),
        #[cfg(feature = "parquet")]
        FormatName::Parquet => Box::new(super::parquet::Parquet::open(files()?, fields)?),
        #[cfg(not(feature = "parquet"))]
        FormatName::Parquet => {
            return Err(Error::new(ErrorKind::Unsupported, "read input", "parquet is not built in")
                .at(input)
                .hint("build with `cargo build --release --features parquet`, or convert the files to JSON lines"));
        }
        FormatName::Npy => {
            let tables = files()?.iter().map(|path| npy::open(path)).collect::<Result<_>>()?;
            Box::new(Columns::new(tables, fields)?)
        }
        FormatName::Safetensors => {
            let tables = files()?.iter().map(|path| safetensors::open(path)).collect::<Result<_>>()?;
            Box::new(Columns::new(tables, fields)?)
        }
    })
}
