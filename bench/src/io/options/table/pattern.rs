//! Which bytes, in which order.

use super::{Key, Kind, done, no_effect};

const RW: &[&str] = &["read", "write", "randread", "randwrite", "rw", "readwrite", "randrw"];

pub(super) const KEYS: &[Key] = &[
    done("rw", Kind::Text, "read", "read, write, rw, randread, randwrite, randrw; `:N` after it as in fio")
        .also(&["readwrite"]),
    done(
        "rw_sequencer",
        Kind::Word(&["sequential", "identical"]),
        "sequential",
        "what `rw=randread:N` does for N I/Os: go on behind the last one, or repeat its offset",
    ),
    done("bs", Kind::Sizes, "4k", "bytes of one I/O").also(&["blocksize"]),
    done("bsrange", Kind::Text, "", "bytes of one I/O, drawn from LOW-HIGH").also(&["blocksize_range"]),
    done(
        "bssplit",
        Kind::Text,
        "",
        "sizes with their share in percent: 4k/60:64k/40, for writes after a comma",
    ),
    done("bs_unaligned", Kind::Switch, "0", "with bsrange, any size and not only multiples of the smallest")
        .also(&["blocksize_unaligned"]),
    done("blockalign", Kind::Sizes, "the smallest bs", "what offsets of random I/O are multiples of")
        .also(&["ba"]),
    done("rwmixread", Kind::Number(0, 100), "50", "percent of reads in mixed jobs"),
    done("rwmixwrite", Kind::Number(0, 100), "50", "percent of writes in mixed jobs"),
    done(
        "percentage_random",
        Kind::Text,
        "100",
        "percent of random offsets in random jobs, for reads and writes",
    ),
    done(
        "random_distribution",
        Kind::Text,
        "random",
        "random, zipf:THETA, pareto:POWER or normal:DEVIATION (percent); `:CENTRE` after it moves the hot spot",
    ),
    done("norandommap", Kind::Switch, "0", "let random offsets repeat before all were touched"),
    done("randrepeat", Kind::Switch, "1", "the same order in each run"),
    no_effect("allrandrepeat", Kind::Switch, "one seed serves all generators"),
    done("randseed", Kind::Number(0, u64::MAX), "0", "the same seed gives the same order"),
    no_effect("random_generator", Kind::Text, "orders come from a permutation that needs no memory"),
    no_effect("softrandommap", Kind::Switch, "the map of random offsets needs no memory worth the name"),
    done(
        "read_iolog",
        Kind::Text,
        "",
        "replay a log of fio (version 2 or 3), or a trace of CSV columns t,id,size,op,stream",
    ),
    done("write_iolog", Kind::Text, "", "write what is done as a log of fio version 2"),
    done("replay_no_stall", Kind::Switch, "0", "replay as fast as it goes, not at the times of the log"),
    done("replay_time_scale", Kind::Number(1, u64::MAX), "100", "percent of the log's speed"),
    done("replay_redirect", Kind::Text, "", "replay everything on this file"),
    done("replay_skip", Kind::Text, "", "operations to leave out: read, write, sync; by commas"),
];

/// Words of `rw` before a colon.
pub(crate) const RW_WORDS: &[&str] = RW;
