//! Rules of the tree that a compiler does not check.

use std::path::{Path, PathBuf};
use std::process::Command;

use tierstream_tests::source_root;

/// Files that git tracks, or would.
fn tracked() -> Vec<PathBuf> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(source_root())
        .output()
        .expect("git");
    let paths = String::from_utf8(list.stdout).unwrap();
    let paths: Vec<PathBuf> =
        paths.lines().map(PathBuf::from).filter(|path| source_root().join(path).exists()).collect();
    assert!(paths.len() > 50, "git lists the sources");
    paths
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(source_root().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn with_extension<'a>(paths: &'a [PathBuf], extension: &str) -> impl Iterator<Item = &'a PathBuf> {
    paths.iter().filter(move |path| path.extension().is_some_and(|found| found == extension))
}

#[test]
fn sources_are_short_documented_and_finished() {
    let paths = tracked();
    // In two parts, so that this file does not name what it forbids.
    let unfinished =
        [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("unimpl", "emented!"), ("#[ign", "ore")];
    for path in with_extension(&paths, "rs") {
        let text = read(path);
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines: which second idea moved in?", path.display());
        let is_test = path.ends_with("tests.rs");
        let documented = text.starts_with("//!") || text.starts_with("#![") && text.contains("\n//!");
        assert!(is_test || documented, "{} does not say what it is for", path.display());
        for (first, second) in unfinished {
            let mark = format!("{first}{second}");
            assert!(!text.contains(&mark), "{} has a {mark}", path.display());
        }
    }
}

#[test]
fn text_files_have_no_stray_blanks() {
    let paths = tracked();
    for extension in ["rs", "md", "toml", "sh", "yml"] {
        for path in with_extension(&paths, extension) {
            let text = read(path);
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{} ends badly", path.display());
            for (number, line) in (1..).zip(text.lines()) {
                let blank = line.ends_with(' ') || line.contains('\t');
                assert!(!blank || extension == "md" && line.contains('\t'), "{}:{number}", path.display());
            }
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let paths = tracked();
    let mut links = 0;
    for path in with_extension(&paths, "md") {
        let text = read(path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let full = source_root().join(path.parent().unwrap_or(Path::new(""))).join(target);
            assert!(full.exists(), "{} links to {target}, which is not there", path.display());
            links += 1;
        }
    }
    assert!(links > 5, "only {links} links were checked");
}

#[test]
fn paths_named_in_the_architecture_exist() {
    let text = read(Path::new("docs/ARCHITECTURE.md"));
    let mut checked = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let is_path =
            name.contains('/') && !name.contains([' ', '*', '{', '<', '$']) && !name.starts_with(['/', '.']);
        if is_path && name.chars().all(|c| c.is_ascii_graphic()) {
            let exists = source_root().join(name).exists();
            assert!(exists, "docs/ARCHITECTURE.md names `{name}`, which is not there");
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} paths were checked");
}

#[test]
fn the_format_has_a_specification_and_every_dependency_a_reason() {
    let design = read(Path::new("docs/design/0003-dependencies.md"));
    let manifest = read(Path::new("Cargo.toml"));
    let dependencies =
        manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in dependencies
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.starts_with("tierstream-"))
    {
        let name = line.split(" = ").next().unwrap();
        assert!(
            design.contains(&format!("`{name}`")),
            "docs/design/0003-dependencies.md has no word on {name}"
        );
    }
    assert!(read(Path::new("docs/specs/format.md")).contains("TIERSEAL"));
}
