//! What tests say: the seed that replays them, what they counted, and why they were skipped.

use std::io::Write;

/// Says what a test that passes should be known for: how much it tried. Goes to stderr itself, past the test harness,
/// which shows what is printed only when a test fails.
pub fn tell(line: &str) {
    // Nobody reads it: nothing is lost.
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Prints the seed of a random test.
#[expect(clippy::print_stdout, reason = "the test harness shows it when the test fails")]
pub fn announce_seed(test: &str, seed: u64) {
    println!("{test}: seed {seed}");
}

/// Says that the rest of a test is skipped because the machine lacks `resource`. With `REQUIRE=resource` in the
/// environment (several are separated by commas) it fails instead: for machines that must have it.
///
/// # Panics
/// When the resource is required.
#[expect(clippy::disallowed_methods, reason = "the tests' own switch; nothing in the product reads it")]
pub fn skip(resource: &str, reason: &str) {
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == resource), "{resource} is required here, but: {reason}");
    tell(&format!("skipped: no {resource}: {reason}"));
}
