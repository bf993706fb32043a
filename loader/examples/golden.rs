//! Makes the golden files of the sealed format: `cargo run --release -p tierstream-loader --example golden`, in the root
//! of the tree. Only a new version of the format is a reason to run it.

#[path = "../tests/golden/recipe.rs"]
mod recipe;

use std::path::Path;

use tierstream_storage::keys::RootKey;
use tierstream_storage::{Error, Result};

fn main() -> Result<()> {
    let directory = Path::new(recipe::DIRECTORY);
    if directory.exists() {
        let why = "there are golden files already; remove them only for a new version of the format";
        return Err(Error::new(tierstream_storage::ErrorKind::Misuse, "make", why).at(directory));
    }
    let failed = |error| Error::io("make", directory, error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    let key = RootKey::random("golden")?;
    std::fs::write(directory.join(recipe::KEY), key.to_text().as_bytes()).map_err(failed)?;
    let scratch = tempfile::tempdir().map_err(failed)?;
    for golden in recipe::all() {
        golden.pack(scratch.path(), directory.join(golden.name()), &recipe::key(directory))?;
    }
    Ok(())
}
