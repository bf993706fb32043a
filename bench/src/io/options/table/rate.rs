//! When the next I/O is issued.

use super::{Key, Kind, Unit, done};

pub(super) const KEYS: &[Key] = &[
    done("rate", Kind::Sizes, "", "bytes per second at most, for reads and writes"),
    done("rate_iops", Kind::Text, "", "I/Os per second at most, for reads and writes"),
    done("rate_min", Kind::Sizes, "", "bytes per second at least; a job that falls behind ends with an error"),
    done("rate_iops_min", Kind::Text, "", "I/Os per second at least"),
    done("rate_cycle", Kind::Time(Unit::Millis), "1000", "time over which rate_min and rate_iops_min are averaged")
        .also(&["ratecycle"]),
    done(
        "rate_process",
        Kind::Word(&["linear", "poisson"]),
        "linear",
        "poisson: arrivals at random, an open loop; latency counts from the arrival, so that waiting is not left out",
    ),
    done("rate_ignore_thinktime", Kind::Switch, "0", "do not make up for thinktime"),
    done("thinktime", Kind::Time(Unit::Micros), "0", "time to wait after I/Os").also(&["think_time"]),
    done("thinktime_spin", Kind::Time(Unit::Micros), "0", "how much of it to spend computing"),
    done("thinktime_blocks", Kind::Number(1, u64::MAX), "1", "I/Os between two waits"),
    done("thinktime_blocks_type", Kind::Word(&["complete", "issue"]), "complete", "which I/Os are counted for it"),
    done("thinktime_iotime", Kind::Time(Unit::Seconds), "0", "time of I/O between two waits"),
    done("max_latency", Kind::Time(Unit::Micros), "0", "an I/O that takes longer ends the job with an error"),
    done("latency_target", Kind::Time(Unit::Micros), "0", "find the greatest depth at which latency stays below this"),
    done("latency_window", Kind::Time(Unit::Micros), "1s", "how long each depth is tried"),
    done("latency_percentile", Kind::Float, "100", "percent of I/Os that must stay below the target"),
    done("latency_run", Kind::Switch, "0", "go on at the depth that was found, and lower it when it is missed"),
    done(
        "steadystate",
        Kind::Text,
        "",
        "stop when throughput is steady: iops:LIMIT, bw:LIMIT, lat:LIMIT (greatest distance from the mean) or iops_slope:LIMIT, bw_slope:LIMIT, lat_slope:LIMIT; % of the mean",
    )
    .also(&["ss"]),
    done("steadystate_duration", Kind::Time(Unit::Seconds), "0", "window over which it must hold").also(&["ss_dur"]),
    done("steadystate_ramp_time", Kind::Time(Unit::Seconds), "0", "time before the window begins").also(&["ss_ramp"]),
    done("steadystate_check_interval", Kind::Time(Unit::Seconds), "1", "time between two looks").also(&["ss_interval"]),
];
