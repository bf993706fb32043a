use super::*;
use crate::io::options::{Arguments, Status, keys};

fn job(args: &[&str]) -> Result<Job> {
    let read = Arguments::read(args, &|_| None)?;
    Job::new(&read.jobs[0])
}

#[test]
fn every_key_that_is_carried_out_is_read() {
    let set = OptionSet::default();
    // Reading stops at the contradiction that there is no file; all keys were asked for by then.
    let _no_file = Job::new(&set);
    let asked = set.asked();
    for key in keys() {
        match key.status {
            Status::Done | Status::Ours => assert!(asked.contains(key.name), "nobody reads `{}`", key.name),
            Status::NoEffect(_) | Status::Refused(_) => {
                assert!(!asked.contains(key.name), "`{}` is read", key.name);
            }
        }
    }
}

#[test]
fn options_become_values() {
    let job = job(&[
        "--name=a",
        "--filename=/x:/y",
        "--rw=randrw:8",
        "--bssplit=4k/60:64k/,8k/100",
        "--rwmixread=70",
        "--random_distribution=zipf:1.1",
        "--iodepth",
        "32",
        "--ioengine=io_uring",
        "--rate_iops=1000,500",
        "--rate_process=poisson",
        "--runtime=30",
        "--time_based",
        "--latency_target=2ms",
        "--thinktime=10",
        "--percentile_list=50:99.9",
        "--verify=crc32c",
    ])
    .unwrap();
    assert_eq!(job.files.filename, ["/x", "/y"]);
    assert_eq!(job.pattern.sequence, 8);
    assert!(matches!(&job.pattern.bs[0], BlockSize::Split(parts) if parts[..] == [(4096, 60), (65536, 40)]));
    assert!(matches!(&job.pattern.bs[1], BlockSize::Split(parts) if parts[..] == [(8192, 100)]));
    assert_eq!(job.pattern.rwmixread, 70);
    assert!(
        matches!(job.pattern.distribution, Distribution::Zipf { theta, .. } if (theta - 1.1).abs() < 1e-9)
    );
    assert_eq!(job.engine.depth, 32);
    assert_eq!(job.rate.iops, [Some(1000), Some(500)]);
    assert!(job.rate.poisson);
    assert_eq!(job.runtime_nanos, Some(30_000_000_000));
    assert_eq!(job.latency_target.unwrap().nanos, 2_000_000);
    assert_eq!(job.think.nanos, 10_000);
    assert_eq!(job.stats.percentiles, [50.0, 99.9]);
}

#[test]
fn values_that_make_no_sense_are_told() {
    for (args, expected) in [
        (&["--filename=x", "--rw=raedn"][..], "the nearest is `read`"),
        (&["--filename=x", "--time_based"], "never ends"),
        (&["--rw=read"], "neither filename nor directory"),
        (&["--filename=x", "--ioengine=mmap", "--rw=write"], "only reads"),
        (&["--filename=x", "--bssplit=4k/60:64k/60"], "120"),
        (&["--filename=x", "--random_distribution=zipf"], "zipf:THETA"),
        (&["--filename=x", "--steadystate=iops:3%", "--ss_dur=5"], "does not end of itself"),
        (&["--filename=x", "--steadystate=iops:3%"], "two intervals"),
        (&["--filename=x", "--verify=md5"], "verify=md5 is not carried out"),
        (&["--filename=x", "--workload=unet3d"], "`workload` says nothing to ioengine=psync"),
        (&["--ioengine=loader", "--l3=.", "--bs=4k"], "`bs` says nothing to ioengine=loader"),
        (&["--filename=x", "--bs=0"], "bs=0"),
        (&["--filename=x", "--iodepth=0"], "a number from 1 to 4096"),
        (&["--filename=x", "--nice=99"], "-20 to 19"),
        (&["--filename=x", "--percentile_list=101"], "percentile_list"),
    ] {
        let error = job(args).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
        assert!(error.to_string().contains(expected), "{args:?}: {error}");
    }
}
