//! kill -9 at any moment: what has its final name is whole, and the next run needs no help.

mod objects;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::testing::{Random, announce_seed, tell};
use tierstream_tests::{Workplace, binary, tierstream};

mod rotation;

/// Kills of each command.
const KILLS: usize = 40;

/// Runs a command and kills it after a random part of the time that it takes by itself, until that has happened
/// [`KILLS`] times before its end; `check` runs after each. The time is measured on this machine, in this run, so that
/// the moments spread over the whole command however fast it is or how busy the machine.
fn kill_at_random(args: &[&str], random: &mut Random, mut check: impl FnMut()) {
    let clock = SystemClock::new();
    let started = clock.now();
    tierstream(args).ok();
    let alone = clock.now() - started;
    let (mut killed, mut ended) = (0, 0);
    while killed < KILLS {
        let after = Duration::from_nanos(random.below(u64::try_from(alone.as_nanos()).expect("a short run")));
        if killed_after(after, args) {
            killed += 1;
        } else {
            ended += 1;
        }
        assert!(
            ended < 10 * KILLS,
            "{killed} runs were killed, {ended} ended before: {alone:?} is too short"
        );
        check();
    }
    let verb = args[0];
    tell(&format!(
        "{verb}: {killed} runs killed, {ended} had ended before; undisturbed, one takes {alone:?}"
    ));
}

/// Whether the command was still running `after` its start, and so was killed.
fn killed_after(after: Duration, args: &[&str]) -> bool {
    let mut child = Command::new(binary("tierstream"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd (Linux 5.3)");
    let wait = Timespec::try_from(after).expect("a short wait");
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&wait)).expect("poll");
    if ended == 0 {
        child.kill().expect("a child that nobody else waits for");
    }
    let status = child.wait().expect("a child");
    assert!(
        status.success() || status.signal() == Some(Signal::KILL.as_raw()),
        "{args:?} failed by itself: {status}"
    );
    !status.success()
}

#[test]
fn a_killed_pack_leaves_no_half_data_set() {
    let seed = 7;
    announce_seed("a_killed_pack", seed);
    let mut random = Random::new(seed);
    let workplace = Workplace::new();
    std::fs::write(workplace.path("input/big"), vec![b'x'; 8 << 20]).expect("a file");
    let (input, set, key) = (workplace.arg("input"), workplace.arg("set"), workplace.arg("key"));
    let args = ["pack", &input, &set, "--key", &key, "--shard-mib", "1", "--overwrite"];
    kill_at_random(&args, &mut random, || {
        if workplace.path("set").exists() {
            tierstream(["verify", &set, "--key", &key]).ok();
        }
    });
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
    let args: Vec<&str> = with_l2.iter().chain(&["--steps", "40"]).chain(&small).copied().collect();
    kill_at_random(&args, &mut random, || ());
    let after = tierstream(with_l2.iter().chain(&["--steps", "40"]).chain(&small)).ok();
    assert_eq!(after.json()["loss_last"], expected["loss_last"], "{after:?}");
    assert!(std::fs::read_dir("/dev/shm").map_or(true, |entries| {
        !entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("tierstream"))
    }));
}
