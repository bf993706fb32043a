//! `--report`: one page that needs nothing else, for light and dark screens.
//!
//! Charts are SVG made here; there is no script and nothing is loaded, so that the page reads the same in ten years.

use std::fmt::{Result, Write};

use super::units::{binary, count};
use super::{JobReport, Report};
use crate::number::ratio;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--rule:#d9dee4;--page:#fff;--card:#f6f8fa;--a:#1f6feb;--b:#c2570c;--c:#1a7f4b}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa6b2;--rule:#30363d;--page:#0d1117;--card:#161b22;--a:#58a6ff;--b:#f0883e;--c:#3fb950}}
*{box-sizing:border-box}body{margin:0 auto;max-width:820px;padding:24px;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px;border-top:1px solid var(--rule);padding-top:20px}h3{font-size:14px;margin:18px 0 4px;color:var(--soft);font-weight:600}
p,li{color:var(--soft)}.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:10px 0}.tile{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 14px;min-width:120px}
.tile b{display:block;font-size:19px;color:var(--ink)}.tile span{color:var(--soft);font-size:12px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{text-align:right;padding:4px 8px;border-bottom:1px solid var(--rule)}td:first-child,th:first-child{text-align:left}th{color:var(--soft);font-weight:600}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:11px system-ui,sans-serif}.grid{stroke:var(--rule)}.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}.line{fill:none;stroke-width:1.8}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px 0 12px}.ka{background:var(--a)}.kb{background:var(--b)}.kc{background:var(--c)}.fa{fill:var(--a)}.fb{fill:var(--b)}.fc{fill:var(--c)}
";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _infallible = write_page(&mut out, report);
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn write_page(out: &mut String, report: &Report) -> Result {
    let names: Vec<&str> = report.jobs.iter().map(|job| job.job.name.as_str()).collect();
    let title = escaped(&names.join(", "));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <link rel=\"icon\" href=\"data:,\"><meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><p>tierstream bench {}, {} UTC</p>",
        env!("CARGO_PKG_VERSION"),
        super::normal::date(report.started_unix_millis / 1000)
    )?;
    for job in &report.jobs {
        write_job(out, job)?;
    }
    let mut notes: Vec<&String> =
        report.notes.iter().chain(report.jobs.iter().flat_map(|job| &job.notes)).collect();
    notes.dedup();
    if !notes.is_empty() {
        out.push_str("<h2>Notes</h2><ul>");
        notes.iter().try_for_each(|note| write!(out, "<li>{}</li>", escaped(note)))?;
        out.push_str("</ul>");
    }
    out.push_str("</body></html>\n");
    Ok(())
}

fn tile(out: &mut String, value: &str, label: &str) -> Result {
    write!(out, "<div class=\"tile\"><b>{}</b><span>{label}</span></div>", escaped(value))
}

fn micros(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

fn write_job(out: &mut String, job: &JobReport) -> Result {
    write!(out, "<h2>{}</h2><p>{}</p><div class=\"tiles\">", escaped(&job.job.name), escaped(&job.engine))?;
    let seconds = job.seconds();
    tile(out, &count(ratio(job.record.ios() as f64, seconds).round()), "I/Os per second")?;
    tile(out, &format!("{}/s", binary(ratio(job.record.bytes() as f64, seconds))), "throughput")?;
    tile(out, &format!("{:.2} us", job.cpu_us_per_io()), "CPU per I/O")?;
    if let Some(tiers) = &job.tiers {
        for (number, epoch) in tiers.epochs().iter().enumerate().take(2) {
            let label = if number == 0 { "AU, cold" } else { "AU, warm" };
            tile(out, &format!("{:.1} %", epoch.au_percent()), label)?;
        }
    }
    out.push_str("</div>");
    write_percentiles(out, job)?;
    write_series(out, job)?;
    write_tiers(out, job)
}

fn write_percentiles(out: &mut String, job: &JobReport) -> Result {
    let percents = [50.0, 90.0, 99.0, 99.9, 99.99];
    out.push_str("<h3>Completion latency</h3><table><tr><th></th><th>least</th><th>mean</th>");
    percents.iter().try_for_each(|percent| write!(out, "<th>p{percent}</th>"))?;
    out.push_str("<th>longest</th></tr>");
    let mut curves = Vec::new();
    for (way, name) in ["read", "write"].into_iter().enumerate() {
        let latency = &job.record.directions[way].clat;
        if latency.stat.count == 0 {
            continue;
        }
        let mean = crate::number::whole(latency.stat.mean());
        write!(out, "<tr><td>{name}</td><td>{}</td><td>{}</td>", micros(latency.stat.min), micros(mean))?;
        for nanos in latency.histogram.percentiles(&percents) {
            write!(out, "<td>{}</td>", micros(nanos))?;
        }
        write!(out, "<td>{}</td></tr>", micros(latency.stat.max))?;
        // By the number of nines, so that the tail is as wide as the rest.
        let nines: Vec<f64> =
            (0..=40).map(|step| 100.0 * (1.0 - 10.0_f64.powf(-f64::from(step) / 10.0))).collect();
        let values = latency.histogram.percentiles(&nines);
        let points =
            values.iter().enumerate().map(|(at, nanos)| (at as f64 / 10.0, *nanos as f64 / 1e3)).collect();
        curves.push((name, if way == 0 { "a" } else { "b" }, points));
    }
    out.push_str("</table><h3>Latency by percentile, us</h3>");
    chart(out, &curves, &|x| format!("{}", 100.0 * (1.0 - 10.0_f64.powf(-x))), 4.0)
}

type Curve<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

fn write_series(out: &mut String, job: &JobReport) -> Result {
    let series = &job.record.series;
    if series.points.len() < 2 {
        out.push_str("<p>The run was too short for a series over time.</p>");
        return Ok(());
    }
    let period = series.period_nanos as f64 / 1e9;
    let points = |value: &dyn Fn(&super::super::record::Point) -> f64| -> Vec<(f64, f64)> {
        series.points.iter().enumerate().map(|(at, point)| ((at + 1) as f64 * period, value(point))).collect()
    };
    let seconds = |x: f64| format!("{x:.1} s");
    let end = series.points.len() as f64 * period;
    out.push_str("<h3>Throughput over time, MB/s</h3>");
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for (way, name, class) in [(0, "read", "a"), (1, "write", "b")] {
        if job.record.directions[way].ios > 0 {
            curves.push((name, class, points(&|point| point.bytes[way] as f64 / 1e6 / period)));
        }
    }
    chart(out, &curves, &seconds, end)?;
    out.push_str("<h3>Completion latency over time, us</h3>");
    let curves: [Curve<'_>; 2] = [
        ("p50", "a", points(&|point| point.p50 as f64 / 1e3)),
        ("p99", "b", points(&|point| point.p99 as f64 / 1e3)),
    ];
    chart(out, &curves, &seconds, end)
}

/// Lines over a common axis that ends at `end`.
fn chart(out: &mut String, curves: &[Curve<'_>], label: &dyn Fn(f64) -> String, end: f64) -> Result {
    let top = curves.iter().flat_map(|curve| &curve.2).map(|point| point.1).fold(0.0, f64::max);
    let top = nice_above(top);
    let x = |value: f64| LEFT + ratio(value, end) * (WIDTH - LEFT - 12.0);
    let y = |value: f64| HEIGHT - BOTTOM - ratio(value, top) * (HEIGHT - BOTTOM - 12.0);
    write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">")?;
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 12.0,
            y(value),
            y(value),
            LEFT - 6.0,
            y(value) + 4.0,
            count(value)
        )?;
        let at = end * f64::from(step) / 4.0;
        let anchor = if step == 4 { "end" } else { "middle" };
        write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x(at),
            HEIGHT - 8.0,
            escaped(&label(at))
        )?;
    }
    for (_, class, points) in curves {
        let path: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        write!(out, "<polyline class=\"line {class}\" points=\"{}\"/>", path.join(" "))?;
    }
    out.push_str("</svg><p>");
    for (name, class, _) in curves {
        write!(out, "<span class=\"key k{class}\"></span>{name}")?;
    }
    out.push_str("</p>");
    Ok(())
}

/// The least of 1, 2, 2.5, 4, 5, 8 and 10 times a power of ten that is not below `value`.
fn nice_above(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10.0_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

fn write_tiers(out: &mut String, job: &JobReport) -> Result {
    let Some(tiers) = &job.tiers else { return Ok(()) };
    out.push_str(
        "<h3>Hits per tier</h3><table><tr><th>epoch</th><th>L1 hits</th><th>L2 hits</th><th>L3 hits</th><th>L1</th><th>L2</th><th>L3</th></tr>",
    );
    let mut bars = String::new();
    let mut row = 0.0;
    for (number, epoch) in tiers.epochs().iter().enumerate() {
        let Some(counts) = epoch.tier_bytes() else { continue };
        write!(out, "<tr><td>{number}</td>")?;
        counts.iter().try_for_each(|(hits, _)| write!(out, "<td>{hits}</td>"))?;
        counts.iter().try_for_each(|(_, bytes)| write!(out, "<td>{}</td>", binary(*bytes as f64)))?;
        out.push_str("</tr>");
        // Bytes of L2 and L3 are sealed ones, of L1 plain ones: shares of where reads were answered.
        let all: u64 = counts.iter().map(|(_, bytes)| bytes).sum();
        let mut at = LEFT;
        for ((_, bytes), class) in counts.iter().zip(["fa", "fb", "fc"]) {
            let width = ratio(*bytes as f64, all as f64) * (WIDTH - LEFT - 12.0);
            write!(
                bars,
                "<rect class=\"{class}\" x=\"{at:.1}\" y=\"{row:.1}\" width=\"{width:.1}\" height=\"18\"/>"
            )?;
            at += width;
        }
        write!(
            bars,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">epoch {number}</text>",
            LEFT - 6.0,
            row + 13.0
        )?;
        row += 24.0;
    }
    write!(
        out,
        "</table><svg viewBox=\"0 0 {WIDTH} {row}\" role=\"img\">{bars}</svg><p><span class=\"key ka\"></span>L1\
         <span class=\"key kb\"></span>L2<span class=\"key kc\"></span>L3</p>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [(0.0, 1.0), (1.0, 1.0), (3.0, 4.0), (87.0, 100.0), (2_001.0, 2_500.0)] {
            assert!((nice_above(value) - top).abs() < 1e-9, "{value}: {}", nice_above(value));
        }
        assert_eq!(escaped("<a&\">"), "&lt;a&amp;&quot;&gt;");
    }
}
