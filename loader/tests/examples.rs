//! The examples at the root of the tree run, and stay short enough to be read at a glance.

use std::path::Path;

#[path = "../../examples/05_formats.rs"]
mod formats;
#[path = "../../examples/03_mix.rs"]
mod mix;
#[path = "../../examples/02_resume.rs"]
mod resume;
#[path = "../../examples/04_sequences.rs"]
mod sequences;
#[path = "../../examples/01_write_and_load.rs"]
mod write_and_load;

/// Lines of an example.
const LINES_MAX: usize = 60;

#[test]
fn they_are_short() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut found = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < LINES_MAX, "{} has {lines} lines", path.display());
        found += 1;
    }
    assert!(found >= 5, "{found} examples");
}

#[test]
fn a_data_set_is_written_and_loaded() {
    write_and_load::main().unwrap();
}

#[test]
fn a_job_resumes_on_fewer_ranks() {
    resume::main().unwrap();
}

#[test]
fn data_sets_are_mixed() {
    mix::main().unwrap();
}

#[test]
fn sequences_are_padded_and_packed() {
    sequences::main().unwrap();
}

#[test]
fn other_formats_are_packed_and_exported() {
    formats::main().unwrap();
}
