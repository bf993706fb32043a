//! The nearest known word for a mistyped one.

/// The word of `known` that takes the fewest edits to become `word`; the first of several.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|candidate| distance(word, candidate)).unwrap_or_default()
}

/// Insertions, deletions and substitutions between two words (Levenshtein), one row at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, found) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, expected) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(found != *expected);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_takes_the_fewest_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(nearest("iodpeth", ["iodepth", "ioengine", "direct"].into_iter()), "iodepth");
        assert_eq!(nearest("randreed", ["read", "randread", "randrw"].into_iter()), "randread");
        assert_eq!(nearest("x", std::iter::empty()), "");
    }
}
