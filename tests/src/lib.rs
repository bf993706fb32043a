//! What the tests of the whole stack share: the built command, a workplace with real data, and how to break it.
//!
//! Tests here know the command line, the files on disk and the documents; never a crate's inside.

mod command;
mod objects;
mod workplace;

pub use command::{
    Run, binary, tierstream, tierstream_as_nobody, tierstream_on_terminal, tierstream_reading,
    tierstream_with,
};
pub use objects::{OBJECT_NAMES, OBJECT_WRITERS, contents, object_store};
pub use workplace::{Workplace, flip_byte};

/// The root of the source tree.
#[must_use]
pub fn source_root() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
