//! Bad input gets a clear error with a hint, exit code 1 (2 for usage), and leaves nothing half-written behind.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tierstream_storage::testing::skip;
use tierstream_tests::{Run, Workplace, binary, flip_byte, tierstream, tierstream_as_nobody};

fn train(workplace: &Workplace, more: &[&str]) -> Run {
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let small = ["--steps", "3", "--batch-size", "4", "--layers", "1", "--d-model", "32", "--heads", "2"];
    let fixed = ["train", &set, "--key", &key];
    tierstream(fixed.iter().chain(&small).chain(more))
}

#[test]
fn a_wrong_key_is_named() {
    let workplace = Workplace::packed();
    tierstream(["keys", "new", &workplace.arg("other"), "--name", "other"]).ok();
    for verb in ["verify", "train", "inspect"] {
        let run = tierstream([verb, &workplace.arg("set"), "--key", &workplace.arg("other")]);
        run.failed(1, &["`key` version 1", "`other` version 1", "--key"]);
    }
    let (set, nowhere) = (workplace.arg("set"), workplace.arg("nowhere"));
    tierstream(["verify", &set, "--key", &nowhere]).failed(1, &["nowhere", "keys new"]);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let workplace = Workplace::packed();
    std::fs::set_permissions(workplace.path("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = tierstream(["verify", &workplace.arg("set"), "--key", &workplace.arg("key")]);
    run.failed(1, &["mode 0644", "chmod 600"]);
}

#[test]
fn a_truncated_shard_is_named_with_its_lengths() {
    let workplace = Workplace::packed();
    let shard = workplace.path("set/shard-00000.tss");
    let whole = std::fs::metadata(&shard).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(whole - 4096).unwrap();
    let run = tierstream(["verify", &workplace.arg("set"), "--key", &workplace.arg("key")]);
    run.failed(1, &["shard-00000.tss", "cut short", &whole.to_string(), &(whole - 4096).to_string()]);
    train(&workplace, &[]).failed(1, &["shard-00000.tss", "cut short"]);
}

#[test]
fn a_flipped_byte_is_named_with_shard_block_and_offset() {
    let workplace = Workplace::packed();
    let offset = 4096 + 5 * 4096;
    flip_byte(&workplace.path("set/shard-00000.tss"), offset + 123);
    let run = tierstream(["verify", &workplace.arg("set"), "--key", &workplace.arg("key")]);
    run.failed(1, &["shard-00000.tss", "data block 5", &format!("offset {offset}"), "tag mismatch", "1 of"]);
    let run = tierstream(["verify", &workplace.arg("set"), "--key", &workplace.arg("key"), "--json"]);
    assert_eq!((run.code, run.json()["error_count"].as_u64()), (1, Some(1)));
    train(&workplace, &["--steps", "400"]).failed(1, &["shard-00000.tss", "data block 5"]);
}

#[test]
fn a_damaged_manifest_or_header_opens_nothing() {
    for (file, offset) in [("manifest.tsm", 20), ("manifest.tsm", 4200), ("manifest.tsm", 2100)] {
        let workplace = Workplace::packed();
        flip_byte(&workplace.path("set").join(file), offset);
        let run = tierstream(["verify", &workplace.arg("set"), "--key", &workplace.arg("key")]);
        assert_eq!(run.code, 1, "{run:#?}");
        assert!(run.stderr.contains(file) && run.stdout.is_empty(), "{run:#?}");
    }
}

#[test]
fn an_empty_directory_and_a_file_are_no_input() {
    let workplace = Workplace::new();
    std::fs::remove_dir_all(workplace.path("input")).unwrap();
    workplace.pack("set", &[]).failed(1, &["input", "No such file"]);
    std::fs::create_dir(workplace.path("input")).unwrap();
    workplace.pack("set", &[]).failed(1, &["input", "no files"]);
    std::fs::remove_dir(workplace.path("input")).unwrap();
    std::fs::write(workplace.path("input"), "text").unwrap();
    workplace.pack("set", &[]).failed(1, &["input", "not a directory"]);
    let empty = workplace.arg("l2");
    tierstream(["verify", &empty, "--key", &workplace.arg("key")]).failed(1, &["l2", "tierstream pack"]);
    tierstream(["inspect", &empty]).failed(1, &["l2", "tierstream pack"]);
    assert_eq!(workplace.names(), ["input", "key", "l2"]);
}

#[test]
fn an_unreadable_file_is_named_and_nothing_is_left() {
    let workplace = Workplace::new();
    let open = |name: &str, mode| {
        std::fs::set_permissions(workplace.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::create_dir(workplace.path("out")).unwrap();
    open("out", 0o777);
    open("input/0/text-09.txt", 0o000);
    let key = workplace.arg("out/key");
    let (input, output) = (workplace.arg("input"), workplace.arg("out/set"));
    let copy = workplace.path("");
    tierstream_as_nobody(&copy, ["keys", "new", &key]).ok();
    let run = tierstream_as_nobody(&copy, ["pack", &input, &output, "--key", &key]);
    run.failed(1, &["input/0/text-09.txt", "Permission denied"]);
    assert_eq!(workplace.files("out"), [workplace.path("out/key")]);
}

#[test]
fn a_read_only_l3_is_named_for_writing_and_fine_for_reading() {
    let workplace = Workplace::packed();
    std::fs::create_dir(workplace.path("own")).unwrap();
    std::fs::set_permissions(workplace.path("own"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (copy, key) = (workplace.path(""), workplace.arg("own/key"));
    tierstream_as_nobody(&copy, ["keys", "new", &key]).ok();
    // The workplace itself belongs to whoever runs the tests and is not writable for others.
    let mode = std::fs::Permissions::from_mode(0o555);
    std::fs::set_permissions(workplace.path(""), mode).unwrap();
    let run =
        tierstream_as_nobody(&copy, ["pack", &workplace.arg("input"), &workplace.arg("new"), "--key", &key]);
    std::fs::set_permissions(workplace.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    run.failed(1, &["Permission denied", "file system that this user can write"]);
    assert!(!workplace.names().iter().any(|name| name.contains("new")));

    for file in workplace.files("set") {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o444)).unwrap();
    }
    std::fs::set_permissions(workplace.path("set"), std::fs::Permissions::from_mode(0o555)).unwrap();
    tierstream(["verify", &workplace.arg("set"), "--key", &workplace.arg("key")]).ok();
    std::fs::set_permissions(workplace.path("set"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_missing_or_full_l2_is_named() {
    let workplace = Workplace::packed();
    let (nowhere, l2) = (workplace.arg("nowhere"), workplace.arg("l2"));
    train(&workplace, &["--l2", &nowhere]).failed(1, &["nowhere", "mkdir -p"]);
    assert!(!workplace.path("nowhere").exists());
    train(&workplace, &["--l2", &l2, "--l2-size", "9000T"]).failed(1, &["does not fit", "--l2-size"]);
    train(&workplace, &["--l2", &l2, "--l2-size", "1M"]).failed(1, &["--l2-size"]);
}

#[test]
fn a_full_file_system_for_l2_is_refused_with_what_would_fit() {
    let workplace = Workplace::packed();
    // A file system of 10 MiB, in a mount namespace of its own, that something else has nearly filled.
    let script = "mount -t tmpfs -o size=10m none \"$1\" && shift && \
                  (head -c 7000000 /dev/zero >\"$0\" 2>/dev/null || true) && exec \"$@\"";
    let filler = workplace.arg("l2/filler");
    let (l2, set, key) = (workplace.arg("l2"), workplace.arg("set"), workplace.arg("key"));
    let command = binary("tierstream");
    let run = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, &filler, &l2])
        .arg(&command)
        .args([
            "train",
            &set,
            "--key",
            &key,
            "--l2",
            &l2,
            "--l2-size",
            "8M",
            "--steps",
            "3",
            "--batch-size",
            "4",
        ])
        .args(["--layers", "1", "--d-model", "32", "--heads", "2", "--json"])
        .output();
    match run {
        Ok(run) if String::from_utf8_lossy(&run.stderr).contains("unshare") => {
            skip("user-namespaces", &String::from_utf8_lossy(&run.stderr));
        }
        Err(error) => skip("user-namespaces", &error.to_string()),
        Ok(run) => {
            let stderr = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains("does not fit") && stderr.contains("--l2-size"), "{stderr}");
        }
    }
}

#[test]
fn without_io_uring_the_bytes_are_the_same_and_it_is_said() {
    let workplace = Workplace::packed();
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let run = |args: &[&str]| {
        let output =
            Command::new(binary("without-io-uring")).arg(binary("tierstream")).args(args).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), stdout, stderr)
    };
    let (code, _, stderr) = run(&["verify", &set, "--key", &key]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("io_uring is not available") && stderr.contains("threads"), "{stderr}");

    let (code, stdout, _) = run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, report["io_engine"].as_str()), (Some(0), Some("psync")));
    assert!(report["io_engine_fallback"][0].as_str().unwrap().contains("not permitted"), "{report}");
    assert!(report["advice"][0].as_str().unwrap().contains("io_uring"), "{report}");

    let (code, _, stderr) = run(&["verify", &set, "--key", &key, "--io-engine", "io_uring"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("hint:") && stderr.contains("seccomp"), "{stderr}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let workplace = Workplace::packed();
    train(&workplace, &["--batch-size", "0"]).failed(2, &["--batch-size", "hint: use 1 or more"]);
    train(&workplace, &["--stepps", "3"]).failed(2, &["--stepps", "--steps"]);
    workplace.pack("new", &["--cipher", "rot13"]).failed(2, &["rot13", "sm4-gcm"]);
    workplace.pack("new", &["--block-size", "5000"]).failed(2, &["5000", "multiple of 4K"]);
    workplace.pack("new", &["--dtype", "u9", "--sample-bytes", "4"]).failed(2, &["u9", "bf16"]);
    tierstream(["pack"]).failed(2, &["<INPUT>"]);
    tierstream(["frobnicate"]).failed(2, &["frobnicate"]);
    tierstream::<&str>([]).failed(2, &["Usage"]);
    assert!(!workplace.path("new").exists());
}

#[test]
fn settings_that_do_not_fit_the_data_are_explained() {
    let workplace = Workplace::packed();
    workplace
        .pack("new", &["--sample-bytes", "3", "--dtype", "u16"])
        .failed(1, &["--sample-bytes", "multiple of 2"]);
    train(&workplace, &["--l1-size", "4K"]).failed(1, &["--l1-size"]);
    train(&workplace, &["--heads", "5"]).failed(1, &["heads"]);
    workplace.pack("set", &[]).failed(1, &["--overwrite"]);
    workplace.pack("files", &[]).ok();
    let (files, key) = (workplace.arg("files"), workplace.arg("key"));
    tierstream(["train", &files, "--key", &key, "--steps", "1"]).failed(1, &["--sample-bytes"]);
    assert_eq!(workplace.names(), ["files", "input", "key", "l2", "set"]);
}
