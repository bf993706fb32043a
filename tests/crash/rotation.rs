//! `keys rotate`, killed at any moment: no file is ever without a key, one key always opens everything, and the same
//! command finishes what was begun.

use std::time::Duration;

use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::testing::{Random, announce_seed, tell};
use tierstream_tests::{Workplace, tierstream};

use super::killed_after;

/// Rotations that are killed before their end.
const KILLS: usize = 50;
/// Payload of the data set in MiB, and with shards of 1 MiB about the number of its files.
const SHARDS: usize = 24;

#[test]
fn a_killed_rotation_loses_nothing_and_is_finished_by_the_next() {
    let seed = 9;
    announce_seed("a_killed_rotation", seed);
    let mut random = Random::new(seed);
    let workplace = Workplace::new();
    std::fs::write(workplace.path("input/big"), vec![b'x'; SHARDS << 20]).expect("a file");
    let (set, input) = (workplace.arg("set"), workplace.arg("input"));
    let (mut from, mut to) = (workplace.arg("key"), workplace.arg("key2"));
    tierstream(["keys", "new", &to, "--rotate-from", &from]).ok();
    let pack = ["pack", &input, &set, "--key", &from, "--shard-mib", "1", "--sample-bytes", "1024"];
    tierstream(pack.iter().chain(&["--cipher", "aes-256-gcm"])).ok();

    let mut alone = rotate(&set, &from, &to);
    std::mem::swap(&mut from, &mut to);
    let (mut killed, mut ended, mut begun, mut ways_in) = (0, 0, 0, 0);
    while killed < KILLS {
        let after = Duration::from_nanos(random.below(u64::try_from(alone.as_nanos()).expect("a short run")));
        let args = ["keys", "rotate", &set, "--key", &from, "--to", &to];
        if killed_after(after, &args) {
            killed += 1;
        } else {
            ended += 1;
        }
        assert!(ended < 10 * KILLS, "{killed} were killed, {ended} ended before: {alone:?} is too short");

        let seen = tierstream(["keys", "list", &set, "--json"]).ok().json()[0].clone();
        assert_eq!((&seen["shredded_files"], &seen["damaged_slots"]), (&0.into(), &0.into()), "{seen}");
        let wraps: u64 = seen["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .map(|key| key["files"].as_u64().expect("files"))
            .sum();
        let files = seen["files"].as_u64().expect("files");
        begun += u64::from(wraps > files);
        tierstream(["verify", &set, "--key", &from, "--key", &to]).ok();
        let opens = |key: &str| tierstream(["verify", &set, "--key", key]).code == 0;
        assert!(opens(&from) || opens(&to), "neither key opens everything by itself: {seen}");
        ways_in += 1;

        // The same command finishes it, and the next round rotates back.
        let took = rotate(&set, &from, &to);
        alone = alone.max(took);
        tierstream(["verify", &set, "--key", &to]).ok();
        assert!(!opens(&from), "the old key still opens it");
        std::mem::swap(&mut from, &mut to);
    }
    tell(&format!(
        "keys rotate: {killed} runs killed, {ended} had ended before; {begun} left files with both keys; after each of \
         {ways_in} one key opened all, and the next run finished; undisturbed, one takes {alone:?}"
    ));
    assert!(begun >= 5, "only {begun} kills of {killed} fell into the work itself");
}

/// Rotates undisturbed, and says how long it took.
fn rotate(set: &str, from: &str, to: &str) -> Duration {
    let clock = SystemClock::new();
    let started = clock.now();
    tierstream(["keys", "rotate", set, "--key", from, "--to", to]).ok();
    clock.now() - started
}

/// Rotations of objects that are killed before their end.
const OBJECT_KILLS: usize = 20;

#[test]
fn a_killed_rotation_of_objects_loses_nothing_and_is_finished_by_the_next() {
    let seed = 10;
    announce_seed("a_killed_rotation_of_objects", seed);
    let mut random = Random::new(seed);
    let workplace = Workplace::new();
    std::fs::create_dir(workplace.path("l3")).expect("a directory");
    let (l2, l3) = (workplace.arg("l2"), workplace.arg("l3"));
    let (mut from, mut to) = (workplace.arg("key"), workplace.arg("key2"));
    tierstream(["keys", "new", &to, "--rotate-from", &from]).ok();
    let store = ["--l3", &l3, "--l2", &l2, "--l2-size", "64M", "--cipher", "aes-256-gcm", "--key", &from];
    let names: Vec<String> = (0..6).map(|number| format!("object {number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let input = workplace.arg(&format!("input/0/text-{:02}.txt", 3 * number));
        // The last ones are on L2 alone.
        let args = ["put", &input, name].into_iter().chain(store);
        tierstream(args.chain((number >= 3).then_some("--no-drain"))).ok();
    }
    let run =
        |from: &str, to: &str| ["keys", "rotate", &l2, &l3, "--key", from, "--to", to].map(str::to_owned);
    let reads = |key: &str| {
        let args = ["--l3", &l3, "--l2", &l2, "--l2-size", "64M", "--key", key];
        names.iter().all(|name| tierstream(["get", name, "-"].iter().chain(&args)).code == 0)
    };
    let clock = SystemClock::new();
    let started = clock.now();
    tierstream(run(&from, &to)).ok();
    let alone = clock.now() - started;
    std::mem::swap(&mut from, &mut to);
    let (mut killed, mut ended) = (0, 0);
    while killed < OBJECT_KILLS {
        let after = Duration::from_nanos(random.below(u64::try_from(alone.as_nanos()).expect("a short run")));
        let args = run(&from, &to);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if killed_after(after, &args) {
            killed += 1
        } else {
            ended += 1
        }
        assert!(
            ended < 10 * OBJECT_KILLS,
            "{killed} were killed, {ended} ended before: {alone:?} is too short"
        );
        assert!(reads(&from) || reads(&to), "neither key reads everything by itself");
        tierstream(&args).ok();
        assert!(reads(&to), "the next run finishes it");
        std::mem::swap(&mut from, &mut to);
    }
    tell(&format!(
        "keys rotate of objects on two tiers: {killed} runs killed, {ended} had ended before; after each one key read all \
         {} objects, and the next run finished",
        names.len()
    ));
}
