//! Every key there is: its name, kind, default, meaning, and whether it is carried out.
//!
//! The parser, `--cmdhelp`, the suggestions for mistyped keys and the check of the reference page read this one table.

mod engine;
mod files;
mod output;
mod pattern;
mod rate;
mod refused;
mod tiers;
mod verify;

/// One option.
#[derive(Debug)]
pub struct Key {
    /// fio's first name for it.
    pub name: &'static str,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// What its values are.
    pub kind: Kind,
    /// The value where none is given, in words.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether it is carried out.
    pub status: Status,
    /// Whether it may be given without a value.
    pub optional_value: bool,
}

/// What the values of an option are.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Bytes with k, m, g, t, p.
    Size,
    /// Bytes for reads and writes: `r,w`.
    Sizes,
    /// A time; a number alone is in this unit.
    Time(Unit),
    /// A whole number from one end to the other.
    Number(u64, u64),
    /// A number with a fraction.
    Float,
    /// 0 or 1; alone it is 1.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text of a form that the help describes.
    Text,
}

/// The unit of a time without a suffix.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
}

impl Unit {
    pub(crate) fn nanos(self) -> u64 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Millis => "milliseconds",
            Self::Micros => "microseconds",
        }
    }
}

/// Whether an option is carried out.
#[derive(Clone, Copy, Debug)]
pub enum Status {
    /// As fio does.
    Done,
    /// Ours: fio has no such option.
    Ours,
    /// Accepted and without effect, for this reason.
    NoEffect(&'static str),
    /// An error, for this reason.
    Refused(&'static str),
}

const fn done(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, aliases: &[], kind, default, help, status: Status::Done, optional_value: false }
}

const fn ours(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, aliases: &[], kind, default, help, status: Status::Ours, optional_value: false }
}

const fn no_effect(name: &'static str, kind: Kind, why: &'static str) -> Key {
    Key {
        name,
        aliases: &[],
        kind,
        default: "",
        help: why,
        status: Status::NoEffect(why),
        optional_value: true,
    }
}

const fn refused(name: &'static str, why: &'static str) -> Key {
    Key {
        name,
        aliases: &[],
        kind: Kind::Text,
        default: "",
        help: why,
        status: Status::Refused(why),
        optional_value: true,
    }
}

impl Key {
    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn or_alone(mut self) -> Self {
        self.optional_value = true;
        self
    }

    /// The page of `--cmdhelp=NAME`.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = format!("{:>20}: {}\n", self.name, self.help);
        let mut row = |label: &str, text: &str| {
            if !text.is_empty() {
                page.push_str(&format!("{label:>20}: {text}\n"));
            }
        };
        row("alias", &self.aliases.join(", "));
        row("type", &self.kind.words());
        row("default", self.default);
        match self.status {
            Status::Done => {}
            Status::Ours => row("note", "not an option of fio"),
            Status::NoEffect(why) => row("note", &format!("without effect: {why}")),
            Status::Refused(why) => row("note", &format!("not carried out: {why}")),
        }
        page
    }
}

impl Kind {
    /// Its values in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Size => "size in bytes, with k, m, g, t, p".to_owned(),
            Self::Sizes => "sizes for reads and writes: size or read,write".to_owned(),
            Self::Time(unit) => format!("time, in {} without a suffix ns, us, ms, s, m, h, d", unit.word()),
            Self::Number(low, u64::MAX) => format!("number from {low}"),
            Self::Number(low, high) => format!("number from {low} to {high}"),
            Self::Float => "number".to_owned(),
            Self::Switch => "0 or 1; alone it is 1".to_owned(),
            Self::Word(words) => words.join(", "),
            Self::Text => "text".to_owned(),
        }
    }
}

/// All options, in the order of the reference page.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [
        files::KEYS,
        pattern::KEYS,
        engine::KEYS,
        rate::KEYS,
        verify::KEYS,
        output::KEYS,
        tiers::KEYS,
        refused::KEYS,
    ]
    .into_iter()
    .flatten()
}

/// Words of `rw` before a colon.
pub(crate) fn pattern_words() -> &'static [&'static str] {
    pattern::RW_WORDS
}

/// Whether an option is one of the tiers and workloads.
pub(crate) fn is_of_tiers(name: &str) -> bool {
    tiers::KEYS.iter().any(|key| key.name == name)
}

/// The option of this name or alias.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name || key.aliases.contains(&name))
}

/// Names that are carried out, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    keys()
        .filter(|key| !matches!(key.status, Status::Refused(_)))
        .flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        let mut seen = std::collections::BTreeSet::new();
        for key in keys() {
            for name in std::iter::once(&key.name).chain(key.aliases) {
                assert!(seen.insert(*name), "`{name}` is twice in the table");
            }
            assert!(!key.help.is_empty() && !key.help.ends_with('.'), "{}", key.name);
            assert!(key.page().contains(key.name));
        }
        assert!(seen.len() > 250, "{}", seen.len());
    }

    #[test]
    fn the_reference_page_has_every_key() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/bench.md");
        let page = std::fs::read_to_string(page).unwrap();
        for key in keys() {
            assert!(
                page.contains(&format!("`{}`", key.name)),
                "docs/reference/bench.md lacks `{}`",
                key.name
            );
        }
    }
}
