//! Whether what is read is what was written.

use super::{Key, Kind, done};

pub(super) const KEYS: &[Key] = &[
    done(
        "verify",
        Kind::Word(&[
            "0",
            "none",
            "crc32c",
            "crc32c-intel",
            "xxhash",
            "xxh3",
            "sha256",
            "md5",
            "crc32",
            "pattern",
            "null",
        ]),
        "0",
        "write checksums and check them: crc32c, xxh3, sha256, or pattern; xxhash is XXH3, crc32c-intel is crc32c; md5 and crc32 are refused",
    ),
    done("do_verify", Kind::Switch, "1", "check after writing"),
    done("verify_only", Kind::Switch, "0", "write nothing, check what an earlier run of the same job wrote"),
    done("verify_interval", Kind::Size, "bs", "bytes that one checksum is for"),
    done(
        "verify_pattern",
        Kind::Text,
        "",
        "what verify=pattern writes: \"text\", 0xhex, a number, or %o for the offset",
    ),
    done("verify_fatal", Kind::Switch, "0", "stop at the first wrong block"),
    done("verify_dump", Kind::Switch, "0", "write wrong blocks to files beside the data"),
    done("verify_backlog", Kind::Number(0, u64::MAX), "0", "check after so many writes, not only at the end"),
    done("verify_backlog_batch", Kind::Number(0, u64::MAX), "verify_backlog", "how many are checked then"),
    done(
        "continue_on_error",
        Kind::Word(&["none", "0", "read", "write", "io", "verify", "all", "1"]),
        "none",
        "which errors are counted and passed over",
    ),
];
