"""Measures one loader on one data set in a process of its own, cold or warm: `measure.py PEER KIND MB PLACE STATE SECONDS`
prints a line of JSON. `measure.py PEER KIND MB PLACE write` makes the data set."""

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
import time

import numpy as np

from data import lengths, numbers_of
from peers import PEERS


#: What a loader imports, where that is not torch.
MODULES = {
    "tierstream_python": ("tierstream",),
    "mosaic": ("torch", "streaming"),
    "litdata": ("torch", "litdata"),
    "webdataset": ("webdataset",),
    "grain": ("grain",),
    "hf": ("torch", "datasets"),
}


def cpu():
    """CPU time of this process and its ended workers, in seconds."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def memory_mb():
    """Anonymous and shared memory of this process and its workers, as they are now, without pages of files."""
    total, pids = 0, [os.getpid()]
    for task in os.listdir("/proc/self/task"):
        # Threads and workers come and go.
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{task}/children") as file:
            pids += [int(pid) for pid in file.read().split()]
    for pid in pids:
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith(("RssAnon", "RssShmem")))
    return total / 1000


def forget_pages(path):
    """Asks the kernel to drop what it caches of the files below `path`."""
    for directory, _, files in os.walk(path):
        for name in files:
            file = os.open(os.path.join(directory, name), os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def epoch(peer, number, count, seconds, began, pace=None):
    """Reads an epoch, or as much of it as `seconds` allow."""
    cpu_began, seen, waits, first = cpu(), np.zeros(count, np.int32), [], None
    samples, peak, clock = 0, 0.0, time.perf_counter
    asked = began
    for buffer, offsets in peer.batches(number):
        now = clock()
        waits.append(now - asked)
        if first is None:
            first = now - began
        numbers = numbers_of(buffer, offsets)
        seen[numbers] += 1
        samples += len(numbers)
        if len(waits) % 256 == 0:
            peak = max(peak, memory_mb())
        if now - began > seconds:
            break
        if pace is not None:
            # The work that a job would do: computing, not sleeping.
            until = began + samples / pace
            while clock() < until:
                pass
        asked = clock()
    took = clock() - began
    peak = max(peak, memory_mb())
    del buffer, offsets
    gc.collect()
    complete = samples >= count
    # The first wait is the first batch, which has a column of its own.
    waits = np.array(waits[1:] or waits) * 1e6
    return {
        "samples": samples,
        "samples_per_s": samples / took,
        "gb_per_s": 0.0,
        "wait_us": {"p50": float(np.percentile(waits, 50)), "p99": float(np.percentile(waits, 99))},
        "cpu_us_per_sample": (cpu() - cpu_began) * 1e6 / samples,
        "first_batch_ms": first * 1e3,
        "memory_mb": peak,
        "complete": complete,
        "lost": int((seen == 0).sum()) if complete else 0,
        "doubled": int((seen > 1).sum()),
    }


def main(name, kind, megabytes, place, state, seconds="4"):
    peer = PEERS[name](place, kind, float(megabytes))
    if state == "write":
        peer.prepare()
        return
    sizes = lengths(kind, float(megabytes))
    # Loading of modules is no part of a loader's work.
    for module in MODULES.get(name.split("-")[0], ("torch",)):
        importlib.import_module(module)
    if state == "cold":
        forget_pages(peer.path)
        began = time.perf_counter()
        peer.open()
        result = epoch(peer, 1, len(sizes), float(seconds), began)
    else:
        peer.open()
        # Twice: what a first pass leaves to do (blocks that came while others left, huge pages, allocators) is done then.
        for warmup in (0, 1):
            for _ in peer.batches(warmup):
                pass
        result = epoch(peer, 2, len(sizes), float(seconds), time.perf_counter())
        if state == "paced":
            pace = 0.8 * result["samples_per_s"]
            result = epoch(peer, 3, len(sizes), float(seconds), time.perf_counter(), pace)
    result["gb_per_s"] = result["samples_per_s"] * float(sizes.mean()) / 1e9
    print(json.dumps({"peer": name, "kind": kind, "state": state, **result}))


if __name__ == "__main__":
    main(*sys.argv[1:])
