//! `tierstream bench` as users of fio type it.

use tierstream_tests::{Workplace, tierstream};

#[test]
fn jobs_come_from_files_and_flags_with_and_without_the_verb() {
    let workplace = Workplace::new();
    let file = format!("--filename={}", workplace.arg("file"));
    let doctor = tierstream(["doctor", "--json"]).ok().json();
    let mut engines = vec!["psync", "mmap", "libaio"];
    if doctor["io_engine"] == "io_uring" {
        engines.extend(["io_uring", "tokio-uring"]);
    } else {
        tierstream_storage::testing::skip("io_uring", "not available here");
    }
    for engine in engines {
        let engine = format!("--ioengine={engine}");
        let job = ["--name=a", "--rw=randread", "--size=1m", "--bs=4k", &engine, &file];
        for verb in [&["bench"][..], &["bench", "io"]] {
            let args: Vec<&str> = verb.iter().chain(&job).copied().collect();
            let report = tierstream(args.iter().chain(&["--output-format=json"])).ok().json();
            assert_eq!(report["jobs"][0]["read"]["total_ios"], 256, "{report}");
            assert!(tierstream(args).ok().stdout.contains("read: IOPS="));
        }
    }
    let text = format!("[global]\nsize=64k\nfilename={}\n[one]\n[two]\nstonewall\n", workplace.arg("file"));
    std::fs::write(workplace.path("job.fio"), text).unwrap();
    let job_file = workplace.arg("job.fio");
    let report = tierstream(["bench", &job_file, "--json"]).ok().json();
    assert_eq!(
        (&report["jobs"][0]["jobname"], &report["jobs"][1]["jobname"]),
        (&"one".into(), &"two".into())
    );
    assert_eq!(report["jobs"][1]["groupid"], 1);
    let one = tierstream(["bench", &job_file, "--section=two", "--parse-only"]).ok();
    assert!(one.stdout.contains("two: rw=read") && !one.stdout.contains("one:"), "{one:?}");
    let command = tierstream(["bench", &job_file, "--showcmd"]).ok().stdout;
    assert!(command.starts_with("tierstream bench --name=one --size=64k"), "{command}");
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_nearest_word() {
    let workplace = Workplace::new();
    let file = format!("--filename={}", workplace.arg("file"));
    for (args, words) in [
        (&["--iodpeth=4", "--size=1m", &file][..], &["iodpeth", "iodepth"][..]),
        (&["--rw=raedn", "--size=1m", &file], &["raedn", "nearest is `read`"]),
        (&["--zonemode=zbd", "--size=1m", &file], &["zonemode", "zoned devices"]),
        (&["--rw=write", "--readonly", "--size=1m", &file], &["--readonly"]),
        (&["--time_based", "--size=1m", &file], &["runtime"]),
    ] {
        tierstream(["bench"].iter().chain(args)).failed(2, words);
    }
    tierstream(["bench", "/no/such.fio"]).failed(2, &["/no/such.fio"]);
    assert!(tierstream(["bench", "--cmdhelp=iodepth"]).ok().stdout.contains("I/Os in flight"));
    assert!(tierstream(["bench", "--cmdhelp"]).ok().stdout.contains("workload"));
}

#[test]
fn reports_go_to_files_and_compare() {
    let workplace = Workplace::new();
    let file = format!("--filename={}", workplace.arg("file"));
    let (json, page) = (workplace.arg("a.json"), workplace.arg("a.html"));
    let output = [format!("--output={json}"), format!("--report={page}")];
    let job = ["bench", "--name=a", "--size=1m", &file, "--output-format=json+", &output[0], &output[1]];
    let ran = tierstream(job).ok();
    assert!(ran.stdout.is_empty(), "{ran:?}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
    let table = tierstream(["bench", "--compare", &json, &json]).ok().stdout;
    assert!(table.contains("IOPS") && table.contains("1.000"), "{table}");
    tierstream(["bench", "--compare", &json]).failed(2, &["two reports"]);
    let status = tierstream([
        "bench",
        "--name=a",
        "--ioengine=null",
        "--size=1m",
        "--runtime=400ms",
        "--time_based",
        "--rate_iops=1000",
        "--status-interval=100ms",
    ])
    .ok();
    let lines: Vec<serde_json::Value> =
        status.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 2 && lines[0]["read"]["iops"].is_number(), "{status:?}");
}
