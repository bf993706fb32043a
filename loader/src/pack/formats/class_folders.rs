//! A directory whose directories are classes, as torchvision's ImageFolder reads it: `cat/1.jpg` is a sample of class
//! `cat`. Fields are `data`, the file's bytes, and `label`, the class's place among the sorted names.

use std::path::Path;

use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::PlainFile;
use super::{Each, Format, PART_BYTES, Sample};
use crate::dtype::Dtype;
use crate::pack::Input;
use crate::schema::{Field, Schema};

/// Class folders.
#[derive(Debug)]
pub(super) struct ClassFolders {
    input: Input,
    classes: Vec<String>,
    pieces: Vec<std::ops::Range<usize>>,
    parts: Vec<u64>,
    schema: Schema,
}

impl ClassFolders {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let input = Input::scan(root)?;
        let class = |name: &str| name.split_once('/').map(|(class, _)| class.to_owned());
        let mut classes: Vec<String> = Vec::new();
        let (mut pieces, mut parts) = (vec![], vec![]);
        let (mut start, mut bytes) = (0, 0);
        for (number, file) in input.files().iter().enumerate() {
            let class = class(&file.name).ok_or_else(|| {
                let why = format!("`{}` is in no class's directory", file.name);
                Error::new(ErrorKind::Misuse, "read input", why)
                    .at(root)
                    .hint("put each file below one, or use --format files")
            })?;
            classes.push(class);
            if number > start && bytes + file.bytes > PART_BYTES {
                pieces.push(start..number);
                parts.push(bytes);
                (start, bytes) = (number, 0);
            }
            bytes += file.bytes;
        }
        pieces.push(start..input.files().len());
        parts.push(bytes);
        classes.sort_unstable();
        classes.dedup();
        let schema =
            Schema::of(vec![Field::ragged("data", Dtype::U8), Field::fixed("label", Dtype::I64, &[])])?;
        Ok(Self { input, classes, pieces, parts, schema })
    }
}

impl Format for ClassFolders {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        for file in &self.input.files()[self.pieces[part].clone()] {
            let plain = PlainFile::open(&self.input.root().join(&file.name))?;
            let data = plain.read(0, plain.bytes())?;
            let class = file.name.split('/').next().unwrap_or_default();
            let label = self.classes.binary_search_by(|known| known.as_str().cmp(class)).unwrap_or(0);
            let label = i64::try_from(label).unwrap_or(i64::MAX).to_le_bytes();
            each(Sample {
                name: Some(&file.name),
                values: &[&data, &label],
                input_bytes: to_u64(data.len()),
            })?;
        }
        Ok(())
    }

    fn notes(&self) -> serde_json::Value {
        serde_json::json!({"classes": self.classes})
    }
}
