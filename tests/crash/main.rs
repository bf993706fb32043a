//! kill -9 at any moment: what has its final name is whole, and the next run needs no help.

use std::process::{Command, Stdio};

use tierstream_storage::testing::{Random, announce_seed};
use tierstream_tests::{Workplace, binary, tierstream};

/// Runs `args` and kills the process after a random number of turns of the scheduler.
fn kill_at_random(args: &[&str], random: &mut Random, turns_max: u64) -> bool {
    let mut child = Command::new(binary("tierstream"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    for _ in 0..random.below(turns_max) {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    let _ended_by_itself = child.kill();
    !child.wait().expect("a child").success()
}

#[test]
fn a_killed_pack_leaves_no_half_data_set() {
    let seed = 7;
    announce_seed("a_killed_pack", seed);
    let mut random = Random::new(seed);
    let workplace = Workplace::new();
    std::fs::write(workplace.path("input/big"), vec![b'x'; 8 << 20]).expect("a file");
    let (input, set, key) = (workplace.arg("input"), workplace.arg("set"), workplace.arg("key"));
    let mut killed = 0;
    for _ in 0..40 {
        let args = ["pack", &input, &set, "--key", &key, "--shard-mib", "1", "--overwrite"];
        killed += usize::from(kill_at_random(&args, &mut random, 200_000));
        if workplace.path("set").exists() {
            tierstream(["verify", &set, "--key", &key]).ok();
        }
    }
    assert!(killed > 5, "only {killed} of 40 were killed in time: the test shows little");
    // One that is not killed succeeds, whatever the others left, and cleans up behind them.
    tierstream(["pack", &input, &set, "--key", &key, "--overwrite"]).ok();
    tierstream(["verify", &set, "--key", &key]).ok();
    assert_eq!(workplace.names(), ["input", "key", "l2", "set"]);
}

#[test]
fn a_killed_training_leaves_an_l2_that_gives_the_right_bytes() {
    let seed = 8;
    announce_seed("a_killed_training", seed);
    let mut random = Random::new(seed);
    let workplace = Workplace::packed();
    let (set, key, l2) = (workplace.arg("set"), workplace.arg("key"), workplace.arg("l2"));
    let small = ["--batch-size", "32", "--layers", "1", "--d-model", "16", "--heads", "1", "--json"];
    let with_l2 = ["train", &set, "--key", &key, "--l2", &l2, "--l2-size", "64M", "--l1-size", "128K"];
    let expected =
        tierstream(["train", &set, "--key", &key, "--steps", "40"].iter().chain(&small)).ok().json();
    for _ in 0..25 {
        let args: Vec<&str> = with_l2.iter().chain(&["--steps", "4000"]).chain(&small).copied().collect();
        kill_at_random(&args, &mut random, 400_000);
    }
    let after = tierstream(with_l2.iter().chain(&["--steps", "40"]).chain(&small)).ok();
    assert_eq!(after.json()["loss_last"], expected["loss_last"], "{after:?}");
    assert!(std::fs::read_dir("/dev/shm").map_or(true, |entries| {
        !entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("tierstream"))
    }));
}
