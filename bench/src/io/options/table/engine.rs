//! What carries the I/O out.

use super::{Key, Kind, done, no_effect, ours};

pub(super) const KEYS: &[Key] = &[
    done(
        "ioengine",
        Kind::Word(&[
            "psync", "sync", "pvsync", "pvsync2", "mmap", "io_uring", "libaio", "tokio-uring", "null", "tier", "loader",
        ]),
        "psync",
        "psync, sync, pvsync and pvsync2 are pread(2) and pwrite(2); tier reads a sealed data set through the store, loader through batches",
    ),
    done("iodepth", Kind::Number(1, 4096), "1", "I/Os in flight of one job"),
    done("iodepth_batch", Kind::Number(1, 4096), "1", "I/Os handed to the kernel at once").also(&["iodepth_batch_submit"]),
    done("iodepth_batch_complete_min", Kind::Number(0, 4096), "1", "completions to wait for at least")
        .also(&["iodepth_batch_complete"]),
    done("iodepth_batch_complete_max", Kind::Number(0, 4096), "the least", "completions to take at once at most"),
    done("iodepth_low", Kind::Number(0, 4096), "iodepth", "once the queue was full, complete down to this depth"),
    done("fixedbufs", Kind::Switch, "0", "io_uring: register the buffers with the kernel"),
    done("registerfiles", Kind::Switch, "0", "io_uring: register the files with the kernel"),
    done("nonvectored", Kind::Switch, "1", "io_uring: READ and WRITE in place of READV and WRITEV"),
    done("sqthread_poll", Kind::Switch, "0", "io_uring: a kernel thread submits; it takes a core"),
    done("sqthread_poll_cpu", Kind::Number(0, 65_535), "any", "io_uring: the core of that thread"),
    done("hipri", Kind::Switch, "0", "io_uring: poll the device for completions (IOPOLL)"),
    done("uncached", Kind::Switch, "0", "io_uring: buffered I/O that leaves nothing in the page cache (RWF_DONTCACHE)"),
    done("force_async", Kind::Number(0, 1), "0", "io_uring: have kernel workers do it (IOSQE_ASYNC)"),
    done("nowait", Kind::Switch, "0", "RWF_NOWAIT: fail rather than wait; such I/Os are done again"),
    done(
        "mem",
        Kind::Text,
        "malloc",
        "where buffers lie: malloc, mmap, memfd, huge (mmaphuge, shmhuge: pages of vm.nr_hugepages), pinned (for a GPU)",
    )
    .also(&["iomem"]),
    no_effect("iomem_align", Kind::Size, "buffers begin on pages"),
    no_effect("mem_align", Kind::Size, "buffers begin on pages"),
    no_effect("hugepage-size", Kind::Size, "huge pages are 2 MiB"),
    no_effect("io_submit_mode", Kind::Word(&["inline"]), "the job's thread submits"),
    done("zero_buffers", Kind::Switch, "0", "write zeros"),
    done("refill_buffers", Kind::Switch, "0", "new bytes for every write"),
    done("scramble_buffers", Kind::Switch, "1", "change some bytes of every 512, so that no two writes are alike"),
    done("buffer_pattern", Kind::Text, "", "write this again and again: \"text\", 0xhex or a number"),
    done("buffer_compress_percentage", Kind::Number(0, 100), "0", "how far what is written compresses, in percent"),
    done("buffer_compress_chunk", Kind::Size, "512", "bytes within which that holds"),
    done("dedupe_percentage", Kind::Number(0, 100), "0", "percent of writes whose bytes were written before"),
    ours("pretouch", Kind::Switch, "1", "touch the buffers before the clock starts"),
];
