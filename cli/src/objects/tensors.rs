//! `tierstream tensors`: safetensors files in and out, and what is in them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use tierstream_storage::Result;
use tierstream_storage::store::object::SafetensorsFile;
use tierstream_storage::units::human_bytes;

use super::ObjectArgs;
use super::get::save;
use super::put::WriteArgs;
use crate::output;

/// Import, export and list tensors
#[derive(Debug, Args)]
pub(crate) struct Tensors {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Import(Import),
    Export(Export),
    Ls(List),
}

/// Put a safetensors file under a name
#[derive(Debug, Args)]
struct Import {
    /// File to import
    file: PathBuf,

    /// Name of the object
    name: String,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    objects: ObjectArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Write an object's tensors to a safetensors file, bit for bit as it was imported
#[derive(Debug, Args)]
struct Export {
    /// Name of the object
    name: String,

    /// File to make or replace, or - for standard output
    file: PathBuf,

    #[command(flatten)]
    objects: ObjectArgs,
}

/// List an object's tensors
#[derive(Debug, Args)]
struct List {
    /// Name of the object
    name: String,

    #[command(flatten)]
    objects: ObjectArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [u64],
    bytes: u64,
}

impl Tensors {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.verb {
            Verb::Import(import) => {
                let file = SafetensorsFile::open(&import.file)?;
                import.write.put(&import.objects, &import.name, &file, import.json)
            }
            Verb::Export(export) => export.run(),
            Verb::Ls(list) => list.run(),
        }
    }
}

impl Export {
    fn run(self) -> Result<ExitCode> {
        let store = self.objects.open(|_| {})?;
        let object = store.get(&self.name)?;
        let total = object.tensors()?.data_bytes();
        save(&object, &self.file, total, |sink| object.export_safetensors(sink))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self) -> Result<ExitCode> {
        let store = self.objects.open(|_| {})?;
        let object = store.get(&self.name)?;
        let rows: Vec<Row<'_>> = object
            .tensors()?
            .tensors()
            .iter()
            .map(|tensor| Row {
                name: &tensor.name,
                dtype: tensor.dtype.name(),
                shape: &tensor.shape,
                bytes: tensor.bytes(),
            })
            .collect();
        if self.json {
            output::json(&rows)?;
        } else {
            let line = |row: &Row<'_>| {
                format!("{:>11}  {:8}  {:?}  {}\n", human_bytes(row.bytes), row.dtype, row.shape, row.name)
            };
            output::result(&rows.iter().map(line).collect::<String>())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
