//! The catalog report as a table.

use std::fmt;

use tierstream_storage::units::human_bytes;

use super::Report;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>10} {:<8} {:>9} {:>10} {:>10} {:>10} {:>9} {:>9} {:>10} {:>9} {:>10}",
            "objects",
            "catalog",
            "fill s",
            "fill obj/s",
            "commit p50",
            "commit p99",
            "get p50",
            "get p99",
            "scan obj/s",
            "reopen",
            "on disk"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:>10} {:<8} {:>9.2} {:>10.0} {:>7.2} ms {:>7.2} ms {:>6.1} us {:>6.1} us {:>10.0} {:>6.1} ms {:>10}",
                row.objects,
                row.catalog,
                row.fill_seconds,
                row.fill_objects_per_second,
                row.commit_ms.p50,
                row.commit_ms.p99,
                row.get_ns.p50 / 1e3,
                row.get_ns.p99 / 1e3,
                row.scan_objects_per_second,
                row.reopen_ms,
                human_bytes(row.disk_bytes)
            )?;
        }
        writeln!(f, "a commit is one durable batch of {} changes to random objects", self.batch_changes)?;
        self.skipped.iter().try_for_each(|why| writeln!(f, "skipped: {why}"))
    }
}
