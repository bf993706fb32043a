//! A process that puts objects is killed at random moments, 200 times, on the same directories: every change that it
//! acknowledged is there bit for bit, the one under way happened or did not, and the store goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::keys::{KeyProvider, read_key_file};
use tierstream_storage::testing::{Random, announce_seed};
use tierstream_storage::{ErrorKind, Store};
use tierstream_tests::{Workplace, binary, contents, object_store};

const KILLS: u64 = 200;
/// The catalog is removed after one kill in so many: what is on L2 and L3 must do without.
const CATALOG_LOSSES: u64 = 20;

/// A change of an object: what it holds from then on; none once it is deleted.
type Change = Option<(u64, u64)>;

/// What is known of one object.
#[derive(Debug, Default)]
struct Known {
    acknowledged: Change,
    under_way: Option<Change>,
}

#[derive(Debug, Default)]
struct Counts {
    puts: u64,
    deletions: u64,
    happened: u64,
    did_not: u64,
    before_any: u64,
    adopted: u64,
    leftovers: u64,
    dirty: u64,
}

/// The moments at which a run is killed: after some of its lines, and a part of what a line takes.
struct Moment {
    lines: u64,
    then: Duration,
}

fn start(l2: &str, l3: &str, key: &str, run: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(binary("object-writer"))
        .args([l2, l3, key, &run.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe"));
    (child, lines)
}

/// Notes one line of the writer.
fn note(line: &str, known: &mut BTreeMap<String, Known>, counts: &mut Counts) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [word, name, run, counter, what] = words[..] else { panic!("the writer said `{line}`") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let change = (what == "put").then(|| (number(run), number(counter)));
    let object = known.entry(name.to_owned()).or_default();
    if word == "begin" {
        object.under_way = Some(change);
    } else {
        assert_eq!(object.under_way.take(), Some(change), "acknowledged without a beginning: {line}");
        object.acknowledged = change;
        *(if change.is_some() { &mut counts.puts } else { &mut counts.deletions }) += 1;
    }
}

/// Runs the writer up to `moment`, kills it, and notes all it said. Returns the time it took.
fn run_and_kill(
    (mut child, mut output): (Child, BufReader<ChildStdout>),
    moment: &Moment,
    mut said: impl FnMut(&str),
) {
    let mut line = String::new();
    let mut lines = 0;
    while lines < moment.lines {
        line.clear();
        assert!(output.read_line(&mut line).expect("a pipe") > 0, "the writer ended by itself");
        said(&line);
        lines += 1;
    }
    std::thread::park_timeout(moment.then);
    child.kill().expect("a child that nobody else waits for");
    let status = child.wait().expect("a child");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "it ended by itself: {status}"
    );
    line.clear();
    while output.read_line(&mut line).expect("a pipe") > 0 {
        // The last line may have been cut.
        if line.ends_with('\n') {
            said(&line);
        }
        line.clear();
    }
}

/// Opens the store as the next process would and compares all objects.
fn check(store: &Store, known: &mut BTreeMap<String, Known>, counts: &mut Counts) {
    let mut listed: Vec<String> =
        store.list("").expect("a listing").into_iter().map(|info| info.name).collect();
    for (name, object) in known.iter_mut() {
        let found = match store.get(name) {
            Ok(found) => {
                let bytes = found.read_all().unwrap_or_else(|error| panic!("{name}: {error}"));
                let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
                let (run, counter) = (number(0), number(8));
                assert!(bytes == contents(run, counter), "{name} is torn: run {run}, change {counter}");
                Some((run, counter))
            }
            Err(error) if error.kind() == ErrorKind::Missing => None,
            Err(error) => panic!("{name}: {error}"),
        };
        assert_eq!(listed.iter().any(|of| of == name), found.is_some(), "{name} in the listing");
        listed.retain(|of| of != name);
        if let Some(under_way) = object.under_way.take() {
            if found == under_way && found != object.acknowledged {
                counts.happened += 1;
                object.acknowledged = found;
            } else {
                counts.did_not += 1;
            }
        }
        assert_eq!(found, object.acknowledged, "{name} is not what was acknowledged last");
    }
    assert!(listed.is_empty(), "objects that nobody put: {listed:?}");
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let seed = 9;
    announce_seed("a_killed_writer", seed);
    let mut random = Random::new(seed);
    let workplace = Workplace::new();
    std::fs::create_dir(workplace.path("l3")).expect("a directory");
    let (l2, l3, key) = (workplace.arg("l2"), workplace.arg("l3"), workplace.arg("key"));
    let keys: Arc<dyn KeyProvider> = Arc::new(read_key_file(Path::new(&key)).expect("a key"));
    let open = || Store::open(object_store(Path::new(&l2), Path::new(&l3)), Arc::clone(&keys));
    let (mut known, mut counts) = (BTreeMap::new(), Counts::default());
    let clock = SystemClock::new();
    let began = clock.now();
    // How long the writer takes to its first line and from line to line, as measured on the way.
    let (mut opening, mut per_line) = (Duration::from_millis(20), Duration::from_millis(2));
    for run in 0..KILLS {
        // One in five is killed while it opens and repairs, before it says anything.
        let lines = if random.one_in(5) { 0 } else { 1 + random.below(24) };
        let span = if lines == 0 { opening } else { per_line * 2 };
        let then = Duration::from_nanos(random.below(u64::try_from(span.as_nanos()).expect("short").max(1)));
        let started = clock.now();
        let mut first = None;
        let mut heard = 0;
        let child = start(&l2, &l3, &key, run);
        run_and_kill(child, &Moment { lines, then }, |line| {
            heard += 1;
            first.get_or_insert_with(|| clock.now());
            note(line, &mut known, &mut counts);
        });
        counts.before_any += u64::from(heard == 0);
        if let Some(first) = first {
            opening = (opening + (first - started)) / 2;
            per_line = (per_line + (clock.now() - first) / heard) / 2;
        }
        if random.one_in(CATALOG_LOSSES) {
            std::fs::remove_file(workplace.path("l2/catalog.redb")).expect("a catalog");
        }
        let store = open().unwrap_or_else(|error| panic!("after kill {run}: {error}"));
        let recovery = store.recovery().expect("a report");
        assert_eq!((recovery.lost, recovery.unreadable), (0, 0), "after kill {run}: {recovery:?}");
        counts.adopted += recovery.adopted;
        counts.leftovers += recovery.leftovers_removed;
        counts.dirty += recovery.dirty;
        check(&store, &mut known, &mut counts);
    }
    let store = open().expect("the store once more");
    store.flush().expect("a drain");
    check(&store, &mut known, &mut counts);
    let alive = known.values().filter(|object| object.acknowledged.is_some()).count();
    drop(store);
    assert_eq!(workplace.files("l3/objects").len(), alive, "nothing is left of what was replaced");
    println!("{KILLS} kills in {:?}: {counts:?}", clock.now() - began);
    assert!(counts.puts > KILLS && counts.deletions > 0 && counts.dirty > 0, "{counts:?}");
    assert!(counts.happened + counts.did_not > KILLS / 4 && counts.before_any > 0, "{counts:?}");
}
