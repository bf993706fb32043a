use std::collections::BTreeMap;

use super::*;
use crate::io::options::Arguments;

fn job(args: &[&str]) -> Job {
    let args: Vec<&str> = args.iter().copied().chain(["--filename=f"]).collect();
    Job::new(&Arguments::read(&args, &|_| None).unwrap().jobs[0]).unwrap()
}

fn spans(files: u64, bytes: u64) -> Vec<Span> {
    (0..files).map(|_| Span { offset: 0, bytes }).collect()
}

fn all(job: &Job, spans: &[Span]) -> Vec<Step> {
    let bytes = spans.iter().map(|span| span.bytes).sum();
    let mut generator = Generator::new(job, 0, spans, bytes);
    let mut steps = Vec::new();
    loop {
        let direction = generator.direction();
        let Some(step) = generator.next(direction) else { return steps };
        steps.push(step);
        assert!(steps.len() < 1_000_000, "it ends");
    }
}

/// No byte is touched twice; gives how many are touched.
fn touched_once(steps: &[Step]) -> u64 {
    let mut by_place: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for step in steps {
        let before = by_place.insert((step.file, step.offset), u64::from(step.len));
        assert_eq!(before, None, "{step:?} is there twice");
    }
    let places: Vec<_> = by_place.iter().collect();
    for pair in places.windows(2) {
        let ((file, offset), len) = pair[0];
        assert!(pair[1].0.0 != *file || offset + len <= pair[1].0.1, "{:?} overlaps {:?}", pair[0], pair[1]);
    }
    by_place.values().sum()
}

#[test]
fn random_orders_touch_each_block_once() {
    for args in [
        &["--rw=randread"][..],
        &["--rw=randwrite", "--bs=8k"],
        &["--rw=randrw", "--rwmixread=70"],
        &["--rw=randread", "--bssplit=4k/50:16k/50"],
        &["--rw=randread", "--bsrange=4k-64k"],
        &["--rw=randrw", "--bs=4k,8k"],
    ] {
        let job = job(args);
        for files in [1, 3] {
            let steps = all(&job, &spans(files, 1 << 20));
            let touched = touched_once(&steps);
            assert_eq!(touched, files << 20, "{args:?} on {files} files");
            let ordered = steps.windows(2).filter(|pair| pair[0].offset < pair[1].offset).count();
            assert!(ordered * 4 < steps.len() * 3, "{args:?}: {ordered} of {} in order", steps.len());
            assert_eq!(steps, all(&job, &spans(files, 1 << 20)), "the same seed gives the same order");
        }
    }
}

#[test]
fn sequential_orders_go_from_front_to_back() {
    let steps = all(&job(&["--rw=read", "--bs=64k"]), &spans(1, 1 << 20));
    assert_eq!(steps.len(), 16);
    assert!((0..).zip(&steps).all(|(number, step)| step.offset == number * 65536));
    let skipping = all(&job(&["--rw=read:64k", "--bs=64k", "--io_size=512k"]), &spans(1, 1 << 20));
    assert!(skipping.iter().all(|step| step.offset % 131_072 == 0));
    let mixed = all(&job(&["--rw=rw", "--bs=64k"]), &spans(1, 1 << 20));
    assert_eq!(touched_once(&mixed), 1 << 20);
    let looped = all(&job(&["--rw=read", "--loops=3"]), &spans(1, 1 << 16));
    assert_eq!(looped.len(), 48);
    let few = all(&job(&["--rw=read", "--number_ios=5"]), &spans(1, 1 << 16));
    assert_eq!(few.len(), 5);
}

#[test]
fn a_random_place_can_begin_a_run() {
    let run = all(&job(&["--rw=randread:8", "--norandommap"]), &spans(1, 1 << 22));
    let follows = run.windows(2).filter(|pair| pair[0].offset + 4096 == pair[1].offset).count();
    assert!((run.len() * 8 / 10..run.len() * 9 / 10 + 8).contains(&follows), "{follows} of {}", run.len());
    let same =
        all(&job(&["--rw=randread:8", "--norandommap", "--rw_sequencer=identical"]), &spans(1, 1 << 22));
    let repeats = same.windows(2).filter(|pair| pair[0].offset == pair[1].offset).count();
    assert!(repeats >= same.len() * 8 / 10, "{repeats} of {}", same.len());
    let half = all(&job(&["--rw=randread", "--percentage_random=50", "--norandommap"]), &spans(1, 1 << 22));
    let follows = half.windows(2).filter(|pair| pair[0].offset + 4096 == pair[1].offset).count();
    assert!((half.len() * 4 / 10..half.len() * 6 / 10).contains(&follows), "{follows} of {}", half.len());
}

#[test]
fn shares_hold() {
    let steps = all(&job(&["--rw=randrw", "--rwmixread=70", "--norandommap"]), &spans(1, 64 << 20));
    let reads = steps.iter().filter(|step| step.direction == Direction::Read).count();
    let share = reads as f64 / steps.len() as f64;
    assert!((0.68..0.72).contains(&share), "{share}");
    let split = all(&job(&["--rw=randread", "--bssplit=4k/25:8k/75", "--norandommap"]), &spans(1, 64 << 20));
    let small = split.iter().filter(|step| step.len == 4096).count() as f64 / split.len() as f64;
    assert!((0.22..0.28).contains(&small), "{small}");
}

#[test]
fn distributions_prefer_some_offsets() {
    // Of fio 3.33's genzipf: theta 1.2 over a million blocks gives the first percent of blocks far more than half of
    // the hits; pareto h is the 80/20 rule at 0.2.
    for (distribution, hot_share) in [
        ("zipf:1.2", 0.75..0.98),
        ("zipf:0.8", 0.2..0.6),
        ("pareto:0.2", 0.35..0.8),
        ("normal:10", 0.03..0.2),
    ] {
        let argument = format!("--random_distribution={distribution}");
        let job = job(&["--rw=randread", &argument, "--io_size=400m"]);
        let mut generator = Generator::new(&job, 0, &spans(1, 40 << 20), 400 << 20);
        let mut hits: BTreeMap<u64, u64> = BTreeMap::new();
        while let Some(step) = generator.next(Direction::Read) {
            assert!(step.offset + 4096 <= 40 << 20);
            *hits.entry(step.offset).or_default() += 1;
        }
        let mut counts: Vec<u64> = hits.values().copied().collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let all: u64 = counts.iter().sum();
        let hot: u64 = counts.iter().take(10_240 / 100).sum();
        let share = hot as f64 / all as f64;
        assert!(hot_share.contains(&share), "{distribution}: one percent of blocks has {share}");
    }
}

#[test]
fn files_take_turns() {
    let numbers = |args: &[&str]| -> Vec<u32> {
        all(&job(args), &spans(3, 16 << 10)).iter().map(|step| step.file).collect()
    };
    assert_eq!(numbers(&["--rw=read"]), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    assert_eq!(
        numbers(&["--rw=read", "--file_service_type=sequential"]),
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    );
    let two = numbers(&["--rw=read", "--file_service_type=roundrobin:2"]);
    assert_eq!(two[..6], [0, 0, 1, 1, 2, 2]);
    let mut any = numbers(&["--rw=read", "--file_service_type=random"]);
    any.sort_unstable();
    assert_eq!(any, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
}
