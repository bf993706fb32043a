//! The options of one job as they were given: key, value and place, the last of a key counting.

use std::fmt;

use super::table::{self, Key, Kind, Status};
use super::{misuse, nearest, value};
use crate::{Error, Result};

/// Where an option was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    CommandLine,
    File { path: String, line: usize },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: &'static Key,
    pub(crate) value: String,
    origin: Origin,
}

/// Options of one job or of `[global]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptionSet {
    pub(crate) name: String,
    entries: Vec<Entry>,
    #[cfg(test)]
    asked: std::cell::RefCell<std::collections::BTreeSet<&'static str>>,
}

impl OptionSet {
    /// A job of `name` that begins with what `global` has.
    pub(crate) fn inherit(name: &str, global: &Self) -> Self {
        let mut set = global.clone();
        name.clone_into(&mut set.name);
        set
    }

    /// Adds an option; no value means 1.
    ///
    /// # Errors
    /// `Misuse` for a key that is unknown or not carried out.
    pub(crate) fn add(&mut self, name: &str, value: Option<&str>, origin: Origin) -> Result<()> {
        let key = table::find(name).ok_or_else(|| unknown(name, &origin))?;
        if let Status::Refused(why) = key.status {
            return Err(misuse(format!("{origin}: option `{name}` of fio is not carried out: {why}")).hint(
                "leave it out; docs/reference/bench.md lists what is carried out and what is left out",
            ));
        }
        let value = match value {
            Some(value) => value.trim().to_owned(),
            None if matches!(key.kind, Kind::Switch) => "1".to_owned(),
            None if key.optional_value => String::new(),
            None => {
                return Err(misuse(format!("{origin}: option `{name}` has no value, expected {name}=VALUE")));
            }
        };
        self.entries.push(Entry { key, value, origin });
        Ok(())
    }

    /// All that is in effect, each key once.
    pub(crate) fn effective(&self) -> Vec<(&'static str, &str)> {
        let mut seen: Vec<(&'static str, &str)> = Vec::new();
        for entry in &self.entries {
            match seen.iter_mut().find(|(name, _)| *name == entry.key.name) {
                Some(known) => known.1 = &entry.value,
                None => seen.push((entry.key.name, &entry.value)),
            }
        }
        seen
    }

    fn last(&self, name: &'static str) -> Option<&Entry> {
        debug_assert!(table::find(name).is_some(), "`{name}` is not in the table");
        #[cfg(test)]
        self.asked.borrow_mut().insert(name);
        self.entries.iter().rev().find(|entry| entry.key.name == name)
    }

    /// The value of `name` as text.
    pub(crate) fn text(&self, name: &'static str) -> Option<&str> {
        self.last(name).map(|entry| entry.value.as_str())
    }

    /// The value of `name` as `parse` reads it; an error gets the place.
    pub(crate) fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(entry) = self.last(name) else { return Ok(None) };
        parse(&entry.value).map(Some).map_err(|error| match &entry.origin {
            Origin::CommandLine => error,
            place @ Origin::File { .. } => prefixed(&error, place),
        })
    }

    pub(crate) fn kb_base(&self) -> Result<u64> {
        Ok(self.number("kb_base")?.unwrap_or(value::KB_BASE))
    }

    pub(crate) fn bytes(&self, name: &'static str) -> Result<Option<u64>> {
        let base = self.kb_base()?;
        self.parsed(name, |text| value::bytes_of(name, text, base))
    }

    /// Nanoseconds; the table says in which unit a number alone is.
    pub(crate) fn nanos(&self, name: &'static str) -> Result<Option<u64>> {
        let unit = match table::find(name).map(|key| &key.kind) {
            Some(Kind::Time(unit)) => unit.nanos(),
            _ => 1,
        };
        self.parsed(name, |text| value::nanos(name, text, unit))
    }

    /// A number within the range that the table gives.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let range = match table::find(name).map(|key| &key.kind) {
            Some(Kind::Number(low, high)) => *low..=*high,
            _ => 0..=u64::MAX,
        };
        self.parsed(name, |text| value::number(name, text, range))
    }

    pub(crate) fn float(&self, name: &'static str) -> Result<Option<f64>> {
        self.parsed(name, |text| value::float(name, text.trim_end_matches('%')))
    }

    pub(crate) fn switch(&self, name: &'static str) -> Result<Option<bool>> {
        self.parsed(name, |text| value::switch(name, text))
    }

    /// One of the words that the table has for `name`.
    pub(crate) fn word(&self, name: &'static str) -> Result<Option<&'static str>> {
        let words = match table::find(name).map(|key| &key.kind) {
            Some(Kind::Word(words)) => *words,
            _ => &[],
        };
        self.parsed(name, |text| value::word(name, text, words))
    }

    #[cfg(test)]
    pub(crate) fn asked(&self) -> std::collections::BTreeSet<&'static str> {
        self.asked.borrow().clone()
    }
}

fn prefixed(error: &Error, place: &Origin) -> Error {
    let text = error.to_string();
    let text = text.strip_prefix("parse failed: ").unwrap_or(&text);
    let located = misuse(format!("{place}: {text}"));
    match error.hint_text() {
        Some(hint) => located.hint(hint.to_owned()),
        None => located,
    }
}

fn unknown(name: &str, origin: &Origin) -> Error {
    let nearest = nearest(name, table::names());
    misuse(format!("{origin}: unknown option `{name}`, the nearest known one is `{nearest}`"))
        .hint("`tierstream bench --cmdhelp` lists all options, `--cmdhelp=NAME` explains one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ignored() {
        let mut set = OptionSet::default();
        let line = Origin::File { path: "a.fio".into(), line: 7 };
        let error = set.add("iodpeth", Some("4"), line.clone()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("a.fio:7: unknown option `iodpeth`, the nearest known one is `iodepth`")
        );
        let error = set.add("zonemode", Some("zbd"), line.clone()).unwrap_err().to_string();
        assert!(error.contains("`zonemode` of fio is not carried out"), "{error}");
        assert!(set.add("bs", None, line.clone()).unwrap_err().to_string().contains("expected bs=VALUE"));
        set.add("direct", None, line.clone()).unwrap();
        set.add("iodepth", Some("x"), line).unwrap();
        assert_eq!(set.switch("direct").unwrap(), Some(true));
        let error = set.number("iodepth").unwrap_err().to_string();
        assert!(error.contains("a.fio:7: iodepth=x"), "{error}");
    }

    #[test]
    fn the_last_counts_and_aliases_are_the_same_key() {
        let mut global = OptionSet::default();
        global.add("readwrite", Some("read"), Origin::CommandLine).unwrap();
        let mut job = OptionSet::inherit("a", &global);
        job.add("rw", Some("write"), Origin::CommandLine).unwrap();
        assert_eq!(job.text("rw"), Some("write"));
        assert_eq!(job.effective(), vec![("rw", "write")]);
    }
}
