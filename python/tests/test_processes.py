"""Forks, spawned workers and kills."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import pytest

import tierstream
from conftest import SAMPLES


def read_all(dataset, results):
    loader = tierstream.Loader(dataset, batch_size=64, shuffle=True)
    results.put(sorted(int(number) for batch in loader for number in batch["tokens"][:, 0]))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_data_set_works_in_worker_processes(dataset, method):
    # Used before: the child of a fork finds a running loader and arrays in its memory.
    running = iter(tierstream.Loader(dataset, batch_size=64, shuffle=True))
    held = next(running)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=read_all, args=(dataset, results))
    child.start()
    seen = results.get()
    child.join(30)
    assert child.exitcode == 0 and seen == list(range(SAMPLES))
    assert len(held["tokens"]) + sum(len(batch["tokens"]) for batch in running) == SAMPLES


def test_a_loop_that_was_forked_is_refused_and_the_child_ends(dataset):
    running = iter(tierstream.Loader(dataset, batch_size=64))
    batch = next(running)
    child = os.fork()
    if child == 0:
        # In the child: nothing may hang, neither use nor drop.
        code = 1
        try:
            next(running)
        except tierstream.ClosedError as error:
            code = 0 if "fork" in str(error) and batch["tokens"][1, 0] == 1 else 2
        del running, batch
        os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_child_drops_what_it_inherited_and_exits(tokens, key):
    code = f"""
        import os, sys, tierstream
        dataset = tierstream.Dataset({tokens!r}, {key!r})
        loader = tierstream.Loader(dataset, batch_size=10)
        batches = iter(loader)
        batch = next(batches)
        child = os.fork()
        if child == 0:
            del batch, batches
            sys.exit(7)  # with all of the interpreter's own tidying
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert sum(1 for _ in batches) == 99
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_data_sets_and_loaders_pickle_by_their_sources(dataset, tokens, key):
    again = pickle.loads(pickle.dumps(dataset))
    assert len(again) == SAMPLES
    loader = tierstream.Loader(dataset, batch_size=100, shuffle=True)
    batches = iter(loader)
    seen = [int(number) for _ in range(3) for number in next(batches)["tokens"][:, 0]]
    copy = pickle.loads(pickle.dumps(loader))
    copy.load_state_dict(loader.state_dict())
    seen += [int(number) for batch in copy for number in batch["tokens"][:, 0]]
    assert sorted(seen) == list(range(SAMPLES))
    with pytest.raises(tierstream.MisuseError, match="cannot be sent"):
        pickle.dumps(tierstream.Dataset(tokens, tierstream.Key.from_file(key)))


def test_a_killed_process_leaves_nothing_and_starts_again(tokens, key, tmp_path):
    code = f"""
        import sys, tierstream
        dataset = tierstream.Dataset({tokens!r}, {key!r}, l2={str(tmp_path)!r}, l2_bytes=64 << 20)
        for batch in tierstream.Loader(dataset, batch_size=10, shuffle=True).stream():
            print(len(batch["tokens"]), flush=True)
    """
    before = sorted(os.listdir("/dev/shm"))
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        # It starts at once, over what the one before left on L2.
        for _ in range(30):
            assert child.stdout.readline() == "10\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert sorted(os.listdir("/dev/shm")) == before
