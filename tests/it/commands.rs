//! The commands on good input.

use tierstream_tests::{Workplace, binary, flip_byte, tierstream};

#[test]
fn packing_inspecting_and_verifying_agree() {
    let workplace = Workplace::new();
    for (output, flags) in [
        ("files", &["--codec", "zstd"][..]),
        ("cut", &["--sample-bytes", "100", "--cipher", "aes-256-gcm"]),
        ("words", &["--sample-bytes", "64", "--dtype", "u16", "--codec", "zstd"]),
    ] {
        let flags: Vec<&str> = flags.iter().copied().chain(["--json"]).collect();
        let packed = workplace.pack(output, &flags).ok().json();
        let (set, key) = (workplace.arg(output), workplace.arg("key"));
        let verified = tierstream(["verify", &set, "--key", &key, "--json"]).ok().json();
        assert_eq!((&verified["ok"], &verified["error_count"]), (&true.into(), &0.into()));
        assert_eq!(verified["shards"], packed["shards"]);
        let blind = tierstream(["inspect", &set, "--json"]).ok().json();
        assert_eq!(blind["authenticated"], false);
        let records: u64 =
            blind["files"].as_array().unwrap()[1..].iter().map(|f| f["records"].as_u64().unwrap()).sum();
        assert_eq!(Some(records), packed["samples"].as_u64());
        let seen = tierstream(["inspect", &set, "--key", &key, "--samples", "5", "--json"]).ok().json();
        assert_eq!((&seen["authenticated"], &seen["records"]), (&true.into(), &packed["samples"]));
        assert_eq!(seen["samples"].as_array().unwrap().len(), 5);
        assert!(tierstream(["inspect", &set, "--key", &key]).ok().stdout.contains("samples"));
        assert!(!workplace.shows_secret(output), "plain text in {output}");
    }
    let names =
        tierstream(["inspect", &workplace.arg("files"), "--key", &workplace.arg("key"), "--samples", "2"])
            .ok();
    assert!(names.stdout.contains("0/text-00.txt") && names.stdout.contains("0/text-03.txt"), "{names:?}");
}

#[test]
fn without_encryption_is_said_plainly_and_read_like_any_other() {
    let workplace = Workplace::new();
    let packed = workplace.pack("set", &["--cipher", "none", "--sample-bytes", "100", "--json"]).ok();
    assert!(packed.stderr.contains("not encrypted"), "{packed:?}");
    assert_eq!(packed.json()["cipher"], "none");
    assert!(workplace.shows_secret("set"), "with `none` the samples are readable");
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    for args in [&["verify", &set, "--key", &key][..], &["inspect", &set], &["inspect", &set, "--key", &key]]
    {
        let said = tierstream(args).ok().stdout;
        assert!(said.contains("none"), "{said}");
        let json = tierstream(args.iter().chain(&["--json"])).ok().json();
        let cipher = json.pointer("/cipher").or_else(|| json.pointer("/files/1/cipher"));
        assert_eq!(cipher, Some(&"none".into()), "{json}");
    }
    // Readable is not unchecked.
    flip_byte(&workplace.path("set/shard-00000.tss"), 4096 + 10);
    tierstream(["verify", &set, "--key", &key])
        .failed(1, &["shard-00000.tss", "data block 0", "tag mismatch"]);
}

#[test]
fn a_dictionary_is_trained_on_the_input_and_shown() {
    let workplace = Workplace::new();
    let sizes = |name: &str, more: &[&str]| {
        let flags = ["--codec", "zstd", "--json", "--block-size", "16K"];
        let report = workplace.pack(name, &flags.iter().chain(more).copied().collect::<Vec<_>>()).ok().json();
        (report["dictionary_bytes"].as_u64().unwrap(), report["stored_bytes"].as_u64().unwrap())
    };
    let (key, set) = (workplace.arg("key"), workplace.arg("with"));
    assert_eq!(sizes("without", &[]).0, 0);
    let (dictionary, _) = sizes("with", &["--dictionary", "4K"]);
    assert!((1..=4096).contains(&dictionary), "{dictionary}");
    tierstream(["verify", &set, "--key", &key]).ok();
    let seen = tierstream(["inspect", &set, "--key", &key]).ok();
    assert!(seen.stdout.contains("dictionary of"), "{seen:?}");
    workplace.pack("odd", &["--dictionary", "auto"]).failed(1, &["dictionary", "--codec zstd"]);
    workplace.pack("odd", &["--codec", "zstd", "--dictionary", "2M"]).failed(1, &["2097152", "--dictionary"]);
    assert!(!workplace.path("odd").exists());
}

#[test]
fn an_overwritten_data_set_is_the_next_generation_and_its_rollback_is_refused() {
    let workplace = Workplace::packed();
    let (set, key, l2) = (workplace.arg("set"), workplace.arg("key"), workplace.arg("l2"));
    let train = |more: &[&str]| {
        let fixed = [
            "train",
            &set,
            "--key",
            &key,
            "--l2",
            &l2,
            "--l2-size",
            "16M",
            "--steps",
            "2",
            "--batch-size",
            "2",
        ];
        tierstream(fixed.iter().chain(&["--layers", "1", "--d-model", "32", "--heads", "2"]).chain(more))
    };
    copy(&workplace, "set", "older");
    workplace.pack("set", &["--sample-bytes", "65", "--overwrite"]).ok();
    train(&[]).ok();
    std::fs::remove_dir_all(workplace.path("set")).unwrap();
    copy(&workplace, "older", "set");
    train(&[]).failed(1, &["rolled back", "generation 1", "generation 2", "--allow-rollback"]);
    train(&["--allow-rollback"]).ok();
}

fn copy(workplace: &Workplace, from: &str, to: &str) {
    std::fs::create_dir(workplace.path(to)).unwrap();
    for file in workplace.files(from) {
        std::fs::copy(&file, workplace.path(to).join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn training_reads_through_the_tiers_and_heals_a_ruined_l2() {
    let workplace = Workplace::packed();
    let (set, key, l2) = (workplace.arg("set"), workplace.arg("key"), workplace.arg("l2"));
    let train = || {
        let fixed =
            ["train", &set, "--key", &key, "--l2", &l2, "--l2-size", "64M", "--l1-size", "128K", "--json"];
        let small =
            ["--steps", "60", "--batch-size", "64", "--layers", "1", "--d-model", "16", "--heads", "1"];
        tierstream(fixed.iter().chain(&small)).ok()
    };
    let cold = train().json();
    assert!(cold["tiers"]["l3"]["hits"].as_u64().unwrap() > 0, "{cold}");
    assert!(!workplace.shows_secret("l2"), "plain text on L2");
    let warm = train().json();
    assert_eq!((&warm["tiers"]["l3"]["hits"], &warm["l2_dropped_blocks"]), (&0.into(), &0.into()), "{warm}");
    assert_eq!(warm["loss_last"], cold["loss_last"], "the same samples in the same order");
    // One bit in every block of L2.
    for segment in workplace.files("l2/segments") {
        for offset in (0..std::fs::metadata(&segment).unwrap().len()).step_by(4096) {
            flip_byte(&segment, offset + 77);
        }
    }
    let healed = train();
    let report = healed.json();
    assert_eq!(report["loss_last"], cold["loss_last"], "the same bytes");
    assert!(report["l2_dropped_blocks"].as_u64().unwrap() > 10, "{report}");
    assert!(report["tiers"]["l3"]["hits"].as_u64().unwrap() > 10, "{report}");
    assert!(healed.stderr.contains("read from L3"), "{}", healed.stderr);
}

#[test]
fn the_demo_reports_what_it_promises() {
    let workplace = Workplace::new();
    let (dir, input) = (workplace.arg("demo"), workplace.arg("input"));
    let demo = || {
        let args = ["demo", "--dir", &dir, "--input", &input, "--steps", "40", "--json", "--batch-size", "8"];
        tierstream(args.iter().chain(&["--layers", "1", "--d-model", "64", "--heads", "2"])).ok()
    };
    let first = demo();
    let report = first.json();
    for path in [
        "/loss_first",
        "/loss_last",
        "/stall_percent",
        "/batch_wait_us/p50",
        "/batch_wait_us/p99",
        "/batch_wait_us/p999",
        "/tiers/l1/hits",
        "/tiers/l1/bytes",
        "/tiers/l2/hits",
        "/tiers/l2/bytes",
        "/tiers/l3/hits",
        "/tiers/l3/bytes",
        "/decrypt_gbps",
        "/samples_per_s",
    ] {
        assert!(report.pointer(path).is_some_and(serde_json::Value::is_number), "{path}: {report}");
    }
    for path in ["/cipher", "/cipher_kernel", "/io_engine", "/precision"] {
        assert!(report.pointer(path).is_some_and(serde_json::Value::is_string), "{path}: {report}");
    }
    for path in ["/peak_memory_mib/fp32", "/peak_memory_mib/mixed"] {
        assert!(report.pointer(path).is_some(), "{path}: {report}");
    }
    let number = |path: &str| report.pointer(path).and_then(serde_json::Value::as_f64).unwrap();
    assert!(number("/loss_first") - number("/loss_last") >= 1.0, "{report}");
    assert_eq!((&report["precision"], &report["cipher"]), (&"bf16".into(), &"sm4-gcm".into()));
    assert_eq!((&report["reused_shards"], &report["l2_warm_bytes"]), (&false.into(), &0.into()));
    assert!(!workplace.shows_secret("demo"), "plain text in the demo's directory");

    let second = demo();
    let report = second.json();
    assert_eq!(report["reused_shards"], true, "{report}");
    assert!(report["l2_warm_bytes"].as_u64().unwrap() > 0, "{report}");
    assert!(second.stderr.contains("reus") && second.stderr.contains("warm"), "{}", second.stderr);
}

#[test]
fn a_daemon_serves_a_job_that_has_no_key() {
    use std::io::{BufRead, BufReader};
    let workplace = Workplace::packed();
    let (set, key, socket) = (workplace.arg("set"), workplace.arg("key"), workplace.arg("socket"));
    let mut daemon = std::process::Command::new(binary("tierstream"))
        .args(["serve", "--socket", &socket, "--root", &workplace.arg(""), "--key", &key])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("serving on"));
    let small =
        ["--steps", "10", "--batch-size", "4", "--layers", "1", "--d-model", "32", "--heads", "2", "--json"];
    let shared = tierstream(["train", &set, "--daemon", &socket].iter().chain(&small)).ok().json();
    let own = tierstream(["train", &set, "--key", &key].iter().chain(&small)).ok().json();
    assert_eq!(shared["loss_last"], own["loss_last"], "the same samples by both ways");
    assert!(shared["tiers"]["l3"]["hits"].as_u64().unwrap() > 0, "{shared}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM)
        .unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(!workplace.path("socket").exists());
    tierstream(["train", &set, "--daemon", &socket].iter().chain(&small))
        .failed(1, &["socket", "tierstream serve"]);
}

#[test]
fn doctor_and_help_answer() {
    let report = tierstream(["doctor", "/tmp", "--json"]).ok().json();
    assert!(["io_uring", "psync"].contains(&report["io_engine"].as_str().unwrap()), "{report}");
    assert_eq!(report["cipher_kernels"].as_array().unwrap().len(), 2);
    assert!(tierstream(["doctor"]).ok().stdout.contains("I/O engine"));
    for verb in ["demo", "pack", "inspect", "verify", "keys", "train", "serve", "bench", "doctor"] {
        let help = tierstream([verb, "--help"]).ok();
        assert!(help.stdout.contains("Usage: tierstream"), "{verb}: {help:?}");
    }
}

#[test]
fn a_cipher_kernel_can_be_forced() {
    let with = |kernel: &str, args: &[&str]| {
        let output = std::process::Command::new(tierstream_tests::binary("tierstream"))
            .args(args)
            .env("TIERSTREAM_CIPHER_KERNEL", kernel)
            .output()
            .expect("the command starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let report = tierstream(["doctor", "--json"]).ok().json();
    assert!(report["cipher_kernel_forced"].is_null(), "{report}");
    let names = report["cipher_kernels_supported"].as_array().unwrap();
    assert!(names.iter().any(|name| name == "sm4-portable"), "{report}");
    for name in names {
        let name = name.as_str().unwrap();
        let (code, stdout, stderr) = with(name, &["doctor", "--json"]);
        assert_eq!(code, Some(0), "{stderr}");
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["cipher_kernel_forced"], name);
        let chosen = report["cipher_kernels"].as_array().unwrap();
        assert!(chosen.iter().any(|pair| pair[1] == name), "{name}: {report}");
        let (_, stdout, _) = with(name, &["doctor"]);
        assert!(stdout.contains(&format!("{name}, forced")), "{stdout}");
    }
    let (code, _, stderr) = with("sm4-quick", &["doctor"]);
    assert_eq!(code, Some(2));
    for said in ["sm4-quick", "hint: TIERSTREAM_CIPHER_KERNEL", "sm4-portable"] {
        assert!(stderr.contains(said), "{stderr}");
    }
}

#[test]
fn bench_measures_catalogs_and_cleans_up() {
    let workplace = Workplace::new();
    let catalogs =
        tierstream(["bench", "catalog", &workplace.arg("l2"), "--objects", "1000", "--json"]).ok().json();
    assert_eq!(catalogs["rows"][0]["objects"], 1000, "{catalogs}");
    assert!(workplace.files("l2").is_empty(), "the benchmark cleans up");
}

#[test]
fn ctrl_c_ends_cleanly_and_leaves_nothing_half_written() {
    use std::os::unix::process::ExitStatusExt;
    let workplace = Workplace::new();
    // Enough input that packing does not end before the signal.
    std::fs::write(workplace.path("input/big"), vec![b'x'; 200 << 20]).unwrap();
    let (input, output, key) = (workplace.arg("input"), workplace.arg("set"), workplace.arg("key"));
    let mut pack = std::process::Command::new(binary("tierstream"))
        .args(["pack", &input, &output, "--key", &key])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun when its hidden directory is there.
    while !workplace.names().iter().any(|name| name.contains(".partial-")) {
        assert!(pack.try_wait().unwrap().is_none(), "ended before it could be interrupted");
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&pack), rustix::process::Signal::INT)
        .unwrap();
    let status = pack.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    assert_eq!(workplace.names(), ["input", "key", "l2"]);
}
