"""Runs loaders in turns over the same data sets, and writes what came of it. Called by `run`, which sets up all it needs."""

import argparse
import collections
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import report
from data import BATCH
from peers import PEERS, Tierstream

HERE = pathlib.Path(__file__).parent
QUICK = ("torch_memmap", "tierstream_python", "tierstream_rust")


def arguments():
    parser = argparse.ArgumentParser(prog="bench/peers/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="torch over a memory map and tierstream alone, under 4 minutes")
    parser.add_argument("--json", action="store_true", help="print the medians as one object on stdout")
    parser.add_argument("--tokens-mb", type=float, help="token samples of 4 to 8 KiB in all (default 1000)")
    parser.add_argument("--images-mb", type=float, help="images of 100 KiB in all (default 5000, with --quick 1000)")
    parser.add_argument("--repeat", type=int, help="runs of each (default 3, with --quick 2)")
    parser.add_argument("--seconds", type=float, default=4, help="longest run (default 4)")
    parser.add_argument("--peers", help="comma separated (default: all that are installed)")
    parser.add_argument("--states", default="warm,cold", help="comma separated (default warm,cold)")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="where data sets are made")
    parser.add_argument("--epochs-command", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help="directory for summary.md, raw.jsonl and plot.svg")
    return parser.parse_args()


def installed(peer):
    try:
        return all(importlib.metadata.version(package) for package in peer.packages)
    except importlib.metadata.PackageNotFoundError:
        return False


def call(command, timeout=300):
    """Runs a measurement; its last line of output is the result."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, timeout=timeout, cwd=HERE)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def rust(options, kind, megabytes, states):
    """The Rust row: cold and warm in one process, since the store is its own."""
    ours = Tierstream(options.data / kind, kind, megabytes)
    command = [options.epochs_command, ours.path / "set", ours.key, ours.l1_bytes, BATCH, 2, options.seconds]
    lines = call([str(part) for part in command] + (["pace"] if "paced" in states else []))
    return [
        {"peer": "tierstream_rust", "kind": kind, "state": line.pop("what"), **line} for line in lines
    ]


def main():
    options = arguments()
    sizes = {
        "tokens": options.tokens_mb or 1000,
        "images": options.images_mb or (1000 if options.quick else 5000),
    }
    repeat = options.repeat or (2 if options.quick else 3)
    wanted = options.peers.split(",") if options.peers else list(QUICK if options.quick else (*PEERS, "tierstream_rust"))
    states = options.states.split(",")
    failed, results = {}, []
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    for kind, megabytes in sizes.items():
        ready = []
        for name in wanted:
            if name == "tierstream_rust":
                ready.append(name)
            elif not installed(PEERS[name]):
                failed[name] = "not installed"
            else:
                try:
                    say(f"{kind}: writing for {name}")
                    call([sys.executable, "measure.py", name, kind, str(megabytes), str(options.data / kind), "write"], 1200)
                    ready.append(name)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[f"{name} ({kind})"] = f"writing: {error}"
        for turn in range(repeat):
            for name in ready:
                try:
                    if name == "tierstream_rust":
                        lines = rust(options, kind, megabytes, states)
                    else:
                        command = [sys.executable, "measure.py", name, kind, str(megabytes), str(options.data / kind)]
                        mine = [state for state in states if state != "paced" or name.startswith("tierstream")]
                        lines = [line for state in mine for line in call([*command, state, str(options.seconds)])]
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[f"{name} ({kind})"] = str(error)
                    continue
                for line in lines:
                    line["turn"] = turn
                    say(f"{kind} {line['state']} {name}: {line['samples_per_s']:,.0f} samples/s")
                    results.append(line)
                    if options.out:
                        with open(options.out / "raw.jsonl", "a") as file:
                            file.write(json.dumps(line) + "\n")
    if options.out:
        raw = [json.loads(line) for line in (options.out / "raw.jsonl").read_text().splitlines()]
        about = {
            "command": " ".join(["bench/peers/run", *sys.argv[1:]]),
            "machine": f"{os.cpu_count()} cores, {cpu_model()}, Linux {platform.release()}",
            "sizes": sizes,
            "versions": versions(),
            "failed": failed,
        }
        report.write(options.out, raw, about)
    elif failed:
        say(f"failed: {failed}")
    if options.json:
        print(json.dumps(nested(results), indent=1))
    if failed and options.quick:
        sys.exit(f"error: {failed}")


def nested(results):
    """Medians as `{kind_state: {peer: {...}}}`."""
    groups = collections.defaultdict(list)
    for line in results:
        groups[f"{line['kind']}_{line['state']}", line["peer"]].append(line)
    tree = collections.defaultdict(dict)
    for (case, peer), lines in groups.items():
        median = lambda key: statistics.median(line[key] for line in lines)  # noqa: E731
        tree[case][peer] = {
            "samples_per_s": median("samples_per_s"),
            "wait_us": {at: statistics.median(line["wait_us"][at] for line in lines) for at in ("p50", "p99")},
            "cpu_us_per_sample": median("cpu_us_per_sample"),
            "first_batch_ms": median("first_batch_ms"),
            "lost": max(line["lost"] for line in lines),
            "doubled": max(line["doubled"] for line in lines),
        }
    return tree


def versions():
    found = {}
    for package in ("tierstream", *(package for peer in PEERS.values() for package in peer.packages)):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def cpu_model():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
