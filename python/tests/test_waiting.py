"""Waits hold nobody up: not other threads, not Ctrl-C, not the end of the program. The stalled device is a daemon that was
stopped."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import tierstream

# Far more than the daemon has memory for: what a client leased can be read while the daemon stands still.
SAMPLES, LENGTH = 20_000, 96


@pytest.fixture(scope="module")
def tokens(place, key):
    """Samples of the tokens 0, 1, ... modulo 2^16, in a hundred shards."""
    source = place / "long-text"
    source.mkdir()
    np.arange(SAMPLES * LENGTH).astype(np.uint16).tofile(source / "tokens.bin")
    path = place / "long"
    tierstream.pack(source, path, key, sample_bytes=2 * LENGTH, dtype="u16", shard_bytes=40_000, threads=2)
    return str(path)


@pytest.fixture
def daemon(tokens, key, tmp_path):
    """A daemon for the data set: its socket, and a function that stops it (True) and lets it go on (False)."""
    command = os.environ.get("TIERSTREAM") or shutil.which("tierstream")
    if not command:
        pytest.fail("set TIERSTREAM to the command, as `make test` does")
    socket = tmp_path / "socket"
    root = os.path.dirname(tokens)
    serve = ["serve", "--socket", socket, "--root", root, "--key", key, "--l1-size", "1M"]
    server = subprocess.Popen([command, *serve])
    for _ in range(500):
        if socket.exists():
            break
        assert server.poll() is None
        time.sleep(0.01)

    def stall(stopped):
        server.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    yield str(socket), stall
    server.send_signal(signal.SIGCONT)
    server.terminate()
    assert server.wait(30) in (0, -signal.SIGTERM, 130, 143)


def stalled_loop(tokens, daemon, **settings):
    """A loop whose next batch does not come."""
    socket, stall = daemon
    loader = tierstream.Loader(tierstream.Dataset(tokens, daemon=socket), batch_size=50, **settings)
    batches = iter(loader)
    next(batches)
    stall(True)
    for _ in range(200):
        before = time.monotonic()
        try:
            next(batches)
        except tierstream.RetryError as error:
            return loader, batches, error, time.monotonic() - before
    raise AssertionError("all batches came from a daemon that stands still")


def test_a_wait_ends_in_time_says_for_what_and_can_be_gone_on_with(tokens, daemon, caplog):
    with caplog.at_level(logging.WARNING, logger="tierstream"):
        loader, batches, error, waited = stalled_loop(
            tokens, daemon, timeout=0.5, stall_warning=0.2, shuffle=True, prefetch_factor=2
        )
    assert 0.4 < waited < 5
    assert isinstance(error, TimeoutError) and "shard-" in str(error) and "hint:" in str(error)
    assert any("still waiting" in record.getMessage() and "shard-" in record.getMessage() for record in caplog.records)
    state = loader.state_dict()
    daemon[1](False)
    # Nothing was lost: a loader that goes on where this one stands has all the rest, and so has this one.
    resumed = tierstream.Loader(tierstream.Dataset(tokens, daemon=daemon[0]), batch_size=50, shuffle=True)
    resumed.load_state_dict(state)
    rest = [int(number) for batch in resumed for number in batch["tokens"][:, 0]]
    assert len(rest) == SAMPLES - state["done"]
    loader.timeout = None
    loader.load_state_dict(state)
    assert [int(number) for batch in loader for number in batch["tokens"][:, 0]] == rest


def test_other_threads_run_while_a_batch_is_waited_for(tokens, daemon):
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1

    loader, batches, _, _ = stalled_loop(tokens, daemon, timeout=0.1, prefetch_factor=1, num_workers=1)
    loader.timeout = 1.0
    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    with pytest.raises(tierstream.RetryError):
        next(iter(loader.stream()))
    during = counted[0] - before
    stop.set()
    counter.join()
    daemon[1](False)
    assert during > 10_000


def test_ctrl_c_ends_a_wait_and_the_program(tokens, daemon):
    socket, stall = daemon
    code = f"""
        import tierstream, time
        loader = tierstream.Loader(tierstream.Dataset({tokens!r}, daemon={socket!r}), batch_size=10, prefetch_factor=1)
        try:
            for batch in loader:
                print("batch", flush=True)
                time.sleep(0.02)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            raise
    """
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert program.stdout.readline() == "batch\n"
    stall(True)
    time.sleep(0.5)
    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    output = program.stdout.read()
    assert program.wait(30) == -signal.SIGINT
    assert output.endswith("interrupted\n") and time.monotonic() - began < 10
    program.stdout.close()


def test_ctrl_c_ends_an_opening(tokens, daemon):
    socket, stall = daemon
    stall(True)
    code = f"import tierstream; print('opening', flush=True); tierstream.Dataset({tokens!r}, daemon={socket!r})"
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert program.stdout.readline() == "opening\n"
    time.sleep(0.3)
    program.send_signal(signal.SIGINT)
    assert program.wait(10) == -signal.SIGINT
    program.stdout.close()
