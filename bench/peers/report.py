"""A comparison as a table in Markdown and bars in SVG."""

import collections
import statistics

WIDTH, BAR, GAP, LEFT = 760, 16, 6, 170


def medians(raw):
    """Of each case and peer: medians, the worst of lost and doubled, and the spread of samples per second."""
    groups = collections.defaultdict(list)
    for line in raw:
        groups[line["kind"], line["state"], line["peer"]].append(line)
    table = collections.defaultdict(dict)
    for (kind, state, peer), lines in groups.items():
        mid = lambda of: statistics.median(of(line) for line in lines)  # noqa: E731
        speeds = [line["samples_per_s"] for line in lines]
        table[kind, state][peer] = {
            "speed": mid(lambda line: line["samples_per_s"]),
            "low": min(speeds),
            "high": max(speeds),
            "p50": mid(lambda line: line["wait_us"]["p50"]),
            "p99": mid(lambda line: line["wait_us"]["p99"]),
            "first": mid(lambda line: line["first_batch_ms"]),
            "cpu": mid(lambda line: line["cpu_us_per_sample"]),
            "memory": mid(lambda line: line.get("memory_mb", 0)),
            "wrong": max(line["lost"] + line["doubled"] for line in lines),
            "complete": all(line["complete"] for line in lines),
            "runs": len(lines),
        }
    return table


def write(out, raw, about):
    table = medians(raw)
    text = ["# Loaders side by side", ""]
    text += [f"`{about['command']}` on {about['machine']}.", ""]
    text += [
        "Every loader delivers the same: a shuffled epoch in batches of 64, packed into one buffer with offsets. Tokens: samples",
        f"of 4 to 8 KiB, {about['sizes']['tokens']:.0f} MB; images: 100 KiB each, {about['sizes']['images']:.0f} MB. Ours is sealed with SM4-GCM, the",
        "others are plain. Warm: read twice before, so that all of it is in the page cache, or for us in L1. Cold: a new",
        "process, the files' pages dropped, the clock started before the data set is opened. Medians of runs in turns; `*`: cut",
        "off by the time limit. Memory: anonymous and shared pages of all processes. Wrong: samples lost or doubled.",
        "",
    ]
    for (kind, state), peers in sorted(table.items(), key=lambda item: (item[0][0] == "images", item[0][1] != "warm")):
        text += [f"## {kind}, {state}", ""]
        text += ["| loader | samples/s (min..max) | to torch_memmap | wait p50 / p99 us | first batch ms | CPU us/sample | memory MB | wrong |"]
        text += ["|---|---|---|---|---|---|---|---|"]
        base = peers.get("torch_memmap", {}).get("speed")
        for name, row in sorted(peers.items(), key=lambda item: -item[1]["speed"]):
            ratio = f"{row['speed'] / base:.2f}" if base else "-"
            star = "" if row["complete"] else "*"
            memory = f"{row['memory']:.0f}" if row["memory"] else "-"
            text += [
                f"| {name} | {row['speed']:,.0f}{star} ({row['low']:,.0f}..{row['high']:,.0f}) | {ratio} | "
                f"{row['p50']:,.0f} / {row['p99']:,.0f} | {row['first']:,.1f} | {row['cpu']:.1f} | {memory} | {row['wrong']} |"
            ]
        text += [""]
    text += ["![samples per second](plot.svg)", ""]
    text += ["Versions: " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + "."]
    if about["failed"]:
        text += ["", "Not measured: " + "; ".join(f"{name}: {why}" for name, why in about["failed"].items()) + "."]
    notes = out / "notes.md"
    if notes.exists():
        text += ["", notes.read_text().strip()]
    (out / "summary.md").write_text("\n".join(line.rstrip() for line in text) + "\n")
    (out / "plot.svg").write_text(plot(table))


def plot(table):
    """Bars of samples per second, one panel for each case."""
    parts, y = [], 10
    for (kind, state), peers in sorted(table.items(), key=lambda item: (item[0][0] == "images", item[0][1] != "warm")):
        if state == "paced":
            continue
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{kind}, {state}: samples per second</text>')
        y += 24
        longest = max(row["speed"] for row in peers.values())
        for name, row in sorted(peers.items(), key=lambda item: -item[1]["speed"]):
            width = max(1, (WIDTH - LEFT - 110) * row["speed"] / longest)
            colour = "#1b7f5c" if name.startswith("tierstream") else "#9aa5b1"
            parts.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.0f}" height="{BAR}" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + width + 6:.0f}" y="{y + 12}">{row["speed"]:,.0f}</text>')
            y += BAR + GAP
        y += 12
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *parts, "</svg>"]) + "\n"
