//! The directories that are served, and the names of the data sets below them.

use std::path::{Component, Path, PathBuf};

use tierstream_storage::format::MANIFEST_NAME;
use tierstream_storage::{Error, ErrorKind, Result};

/// Directories deep that data sets are looked for.
const DEPTH_MAX: usize = 8;
/// Entries that one listing looks at.
const ENTRIES_MAX: usize = 100_000;

/// Where data sets may lie.
#[derive(Debug)]
pub(crate) struct Roots(Vec<PathBuf>);

/// A data set by its name, and where it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

fn not_served(location: &Path) -> Error {
    Error::new(ErrorKind::Denied, "open", "this directory is not served")
        .at(location)
        .hint("start the daemon with --root for it")
}

impl Roots {
    /// Finds the directories.
    ///
    /// # Errors
    /// `Misuse` without any; as the file system says.
    pub(crate) fn open(roots: &[PathBuf]) -> Result<Self> {
        if roots.is_empty() {
            let none = Error::new(ErrorKind::Misuse, "start", "no directory is served");
            return Err(none.hint("name one with --root"));
        }
        let canonical = |root: &PathBuf| root.canonicalize().map_err(|error| Error::io("open", root, error));
        Ok(Self(roots.iter().map(canonical).collect::<Result<Vec<_>>>()?))
    }

    /// The name in `location`, a path below a root or a name itself, without a look at the file system: who may not know
    /// of a data set learns nothing of it.
    ///
    /// # Errors
    /// `Denied` for a path elsewhere.
    pub(crate) fn name(&self, location: &str) -> Result<Named> {
        let path = Path::new(location);
        let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let found = if path.is_absolute() {
            self.0.iter().find_map(|root| Some((root, path.strip_prefix(root).ok()?)))
        } else {
            let with = self.0.iter().find(|root| root.join(path).join(MANIFEST_NAME).exists());
            with.or(self.0.first()).map(|root| (root, path))
        };
        let (root, below) = found.filter(|(_, below)| plain(below)).ok_or_else(|| not_served(path))?;
        let name = below.to_str().ok_or_else(|| not_served(path))?.trim_end_matches('/').to_owned();
        Ok(Named { name, path: root.join(below) })
    }

    /// Where a data set really lies: links are followed, and may lead to another one that is served.
    ///
    /// # Errors
    /// `Missing`, or `Denied` when the link leads out of what is served.
    pub(crate) fn resolve(&self, named: &Named) -> Result<Named> {
        let path = named.path.canonicalize().map_err(|error| Error::io("open", &named.path, error))?;
        let text = path.to_str().ok_or_else(|| not_served(&path))?;
        self.name(text)
    }

    /// Every data set, by name.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut looked = 0;
        let mut todo: Vec<(&Path, PathBuf, usize)> =
            self.0.iter().map(|root| (root.as_path(), root.clone(), 0)).collect();
        while let Some((root, directory, depth)) = todo.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                looked += 1;
                if looked > ENTRIES_MAX {
                    tracing::warn!(directory = %directory.display(), "a listing is cut short");
                    todo.clear();
                    break;
                }
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if entry.file_name() == MANIFEST_NAME {
                    let below = directory.strip_prefix(root).ok().and_then(Path::to_str);
                    names.extend(below.map(str::to_owned));
                } else if is_directory && depth < DEPTH_MAX {
                    todo.push((root, entry.path(), depth + 1));
                }
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_below_a_root_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for set in ["a/text/en", "a/images", "b/more", "c/secret"] {
            std::fs::create_dir_all(base.join(set)).unwrap();
            std::fs::write(base.join(set).join(MANIFEST_NAME), "").unwrap();
        }
        std::os::unix::fs::symlink(base.join("c/secret"), base.join("a/link")).unwrap();
        std::os::unix::fs::symlink(base.join("b/more"), base.join("a/other")).unwrap();
        let roots = Roots::open(&[base.join("a"), base.join("b")]).unwrap();
        assert_eq!(roots.list(), ["images", "more", "text/en"]);
        let named = roots.name(base.join("a/text/en/").to_str().unwrap()).unwrap();
        assert_eq!(named.name, "text/en");
        assert_eq!(roots.name("more").unwrap().path, base.join("b/more"));
        assert_eq!(roots.resolve(&roots.name("other").unwrap()).unwrap().name, "more");
        for outside in ["/etc", "../c/secret", "text/../../c/secret", base.join("a/../c").to_str().unwrap()] {
            assert_eq!(roots.name(outside).unwrap_err().kind(), ErrorKind::Denied, "{outside}");
        }
        let link = roots.name("link").unwrap();
        assert_eq!(roots.resolve(&link).unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(roots.resolve(&roots.name("none").unwrap()).unwrap_err().kind(), ErrorKind::Missing);
    }
}
