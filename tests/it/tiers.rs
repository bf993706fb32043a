//! The tiers as their owner meets them: scrubbed, striped, watched, and taken away while a job reads.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tierstream_storage::testing::{Random, announce_seed};
use tierstream_tests::{Run, Workplace, binary, flip_byte, tierstream};

const SMALL: [&str; 9] = ["--batch-size", "32", "--layers", "1", "--d-model", "16", "--heads", "1", "--json"];

/// A training run over the tiers of a workplace, with too little memory to keep the data set.
fn train_args(workplace: &Workplace, steps: &str, l2: &[&str]) -> Vec<String> {
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let mut args: Vec<String> =
        ["train", &set, "--key", &key, "--l1-size", "128K", "--l2-size", "64M", "--steps", steps]
            .iter()
            .chain(&SMALL)
            .map(|arg| (*arg).to_owned())
            .collect();
    for name in l2 {
        args.extend(["--l2".to_owned(), workplace.arg(name)]);
    }
    args
}

fn scrub(workplace: &Workplace, args: &[&str]) -> Run {
    let (key, l2) = (workplace.arg("key"), workplace.arg("l2"));
    tierstream(["scrub", "--key", &key, "--l2", &l2, "--l2-size", "64M", "--json"].iter().chain(args))
}

/// Where stored blocks lie in the segments of L2: everything up to the last byte that is not zero.
fn used_parts(segments: &[PathBuf]) -> Vec<(PathBuf, u64)> {
    let used = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0)?;
        Some((path.clone(), u64::try_from(last + 1).unwrap()))
    };
    segments.iter().filter_map(used).collect()
}

#[test]
fn scrub_heals_a_thousand_flipped_bytes_of_l2_and_names_what_l3_lost() {
    let workplace = Workplace::packed();
    tierstream(train_args(&workplace, "60", &["l2"])).ok();
    let used = used_parts(&workplace.files("l2/segments"));
    let seed = 23;
    announce_seed("flipped bytes", seed);
    let mut random = Random::new(seed);
    for _ in 0..1000 {
        let (path, len) = &used[usize::try_from(random.below(u64::try_from(used.len()).unwrap())).unwrap()];
        flip_byte(path, random.below(*len));
    }
    let healed = scrub(&workplace, &[]).ok().json();
    let l2 = |name: &str| healed["l2"][name].as_u64().unwrap();
    assert!(l2("damaged") > 10 && l2("healed") == l2("damaged"), "{healed}");
    assert_eq!((l2("dropped"), l2("unchecked"), &healed["ok"]), (0, 0, &true.into()), "{healed}");
    let again = scrub(&workplace, &["--rate", "100M"]).ok().json();
    assert_eq!((&again["l2"]["damaged"], &again["l2"]["blocks"]), (&0.into(), &healed["l2"]["blocks"]));
    let warm = tierstream(train_args(&workplace, "60", &["l2"])).ok().json();
    assert_eq!((&warm["tiers"]["l3"]["hits"], &warm["l2_dropped_blocks"]), (&0.into(), &0.into()), "{warm}");

    // A block of a shard: what L3 lost is named.
    let shard = workplace.path("set/shard-00000.tss");
    flip_byte(&shard, 4096 + 3 * 4096 + 50);
    let set = workplace.arg("set");
    let lost = scrub(&workplace, &[&set]);
    let report = lost.json();
    assert_eq!(
        (lost.code, &report["unrepaired"], &report["l3"]["damaged"]),
        (1, &1.into(), &1.into()),
        "{report}"
    );
    let error = &report["errors"][0];
    assert_eq!((&error["block"], &error["offset"]), (&3.into(), &(4 * 4096).into()), "{report}");
    assert!(error["path"].as_str().unwrap().ends_with("shard-00000.tss"), "{report}");
    let key = workplace.arg("key");
    tierstream(["scrub", &set, "--key", &key])
        .failed(1, &["shard-00000.tss", "data block 3", "offset 16384"]);
    tierstream(["scrub", "--key", &key]).failed(2, &["--l2"]);
    tierstream(["scrub", "--key", &key, "--l2", &workplace.arg("nowhere")]).failed(1, &["nowhere"]);
}

/// A run of the command, which a test that fails takes with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(args: &[String]) -> Running {
    let mut command = std::process::Command::new(binary("tierstream"));
    Running(command.args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

fn await_segments(workplace: &Workplace, directory: &str, Running(child): &mut Running) {
    let segments = workplace.path(directory).join("segments");
    while std::fs::read_dir(&segments).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before L2 was used");
        std::thread::yield_now();
    }
}

#[test]
fn l2_is_taken_away_while_an_epoch_is_read_and_the_bytes_are_the_same() {
    let workplace = Workplace::packed();
    std::fs::create_dir(workplace.path("second")).unwrap();
    let steps = "400";
    let whole = tierstream(train_args(&workplace, steps, &[])).ok().json();
    let mut child = spawn(&train_args(&workplace, steps, &["l2", "second"]));
    await_segments(&workplace, "l2", &mut child);
    await_segments(&workplace, "second", &mut child);
    // One device loses what is in its files, the other its directory.
    for segment in workplace.files("l2/segments") {
        std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(0).unwrap();
    }
    std::fs::remove_dir_all(workplace.path("second")).unwrap();
    assert!(child.0.try_wait().unwrap().is_none(), "the run ended before L2 was gone");
    let stdout = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
    assert!(child.0.wait().unwrap().success(), "{stdout}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["loss_last"], whole["loss_last"], "the same bytes in the same order");
}

#[test]
fn status_shows_a_running_store_and_then_what_it_left() {
    let workplace = Workplace::packed();
    let l2 = workplace.arg("l2");
    tierstream(["status", &l2]).failed(1, &["no L2", "--l2"]);
    let mut child = spawn(&train_args(&workplace, "1000000", &["l2"]));
    await_segments(&workplace, "l2", &mut child);
    let running = loop {
        let report = tierstream(["status", &l2, "--json"]).ok().json();
        if report["metrics"]["l2_blocks"].as_u64() > Some(0) {
            break report;
        }
        assert!(child.0.try_wait().unwrap().is_none());
    };
    assert_eq!((&running["running"], running["pid"].as_u64()), (&true.into(), Some(child.0.id().into())));
    assert_eq!(running["data_sets"][0], workplace.arg("set"));
    assert_eq!(running["l2"][0]["retired"], false);
    let table = tierstream(["status", &l2]).ok().stdout;
    assert!(
        table.contains("L1") && table.contains("p99.9") && table.contains(&workplace.arg("set")),
        "{table}"
    );
    // Nobody else may look into a store that is running, and a scrub says what to do.
    scrub(&workplace, &[]).failed(1, &["a store is running", "process", "scrub DATA"]);
    // What lies on L3 can be scrubbed beside it.
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    tierstream(["scrub", &set, "--key", &key]).ok();
    // As by Ctrl-C: what L2 holds is written down.
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    child.0.wait().unwrap();
    let left = tierstream(["status", &l2, "--json"]).ok().json();
    assert_eq!((&left["running"], &left["data_sets"][0]["generation"]), (&false.into(), &1.into()), "{left}");
    assert!(left["l2"]["segments"].as_u64().unwrap() > 0, "{left}");
    assert!(tierstream(["status", &l2]).ok().stdout.contains("no store is running"));
}
