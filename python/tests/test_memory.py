"""Batches share memory with their arrays, and a buffer in use is never used again."""

import gc

import numpy as np

import tierstream


def address(array):
    return array.__array_interface__["data"][0]


def test_arrays_are_views_that_keep_their_batch(dataset):
    loader = tierstream.Loader(dataset, batch_size=50, shuffle=True, output="batch")
    kept, copies = [], []
    for epoch in range(3):
        for batch in loader:
            tokens = batch["tokens"]
            assert not tokens.flags.owndata and address(tokens) % 64 == 0
            assert address(tokens) == address(batch["tokens"])
            if batch.number % 3 == 0:
                # A part of it is enough to keep the buffer, when array and batch are gone.
                kept.append(tokens[7:9, 1:])
                copies.append(tokens[7:9, 1:].copy())
    del batch, tokens
    gc.collect()
    assert len({address(array) for array in kept}) == len(kept)
    for array, copy in zip(kept, copies):
        assert (array == copy).all()


def test_a_buffer_is_used_again_when_its_last_array_is_gone(dataset):
    loader = tierstream.Loader(dataset, batch_size=50, prefetch_factor=2)
    free = {address(batch["tokens"]) for _ in range(4) for batch in loader}
    # Made ahead, in the making, in the loop's hands; of some 80 batches.
    assert len(free) <= 12
    held = [batch["tokens"] for _ in range(2) for batch in loader]
    assert len({address(array) for array in held}) == 40


def test_arrays_are_the_users_to_write(dataset):
    loader = tierstream.Loader(dataset, batch_size=50)
    batches = iter(loader)
    first = next(batches)["tokens"]
    first += 1
    assert first[0, 0] == 1
    assert (next(batches)["tokens"][:, 0] == np.arange(50, 100)).all()


def test_dlpack_shares_and_keeps_the_memory(dataset, files, key):
    loader = tierstream.Loader(dataset, batch_size=50, shuffle=True, output="batch")
    taken, copies = [], []
    for batch in loader:
        exported = batch.arrays()["tokens"]
        assert exported.__dlpack_device__() == (1, 0) and exported.shape == (50, 96) and exported.dtype == "u16"
        array = np.from_dlpack(exported)
        assert address(array) == address(batch["tokens"]) and (array == batch["tokens"]).all()
        taken.append(array)
        copies.append(array.copy())
        # A capsule that nobody consumes gives its memory back too.
        exported.__dlpack__()
        exported.__dlpack__(max_version=(1, 0))
    del batch, exported
    gc.collect()
    for _ in loader:
        pass
    for array, copy in zip(taken, copies):
        assert (array == copy).all()

    ragged = next(iter(tierstream.Loader(tierstream.Dataset(files, key), batch_size=9, output="batch")))
    values, offsets = ragged.arrays()["data"]
    assert (np.from_dlpack(values) == ragged["data"].values).all()
    assert (np.asarray(offsets) == ragged["data"].offsets).all()
    assert not np.asarray(offsets).flags.writeable


def test_dlpack_refuses_what_it_cannot_do(dataset):
    import pytest

    exported = next(iter(tierstream.Loader(dataset, output="batch"))).arrays()["tokens"]
    for wish in ({"copy": True}, {"dl_device": (2, 0)}, {"stream": 1}):
        with pytest.raises(tierstream.UnsupportedError):
            exported.__dlpack__(**wish)


def test_unconsumed_capsules_leak_nothing(dataset):
    batch = next(iter(tierstream.Loader(dataset, batch_size=50, output="batch")))
    exported = batch.arrays()["tokens"]

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    for _ in range(1000):
        exported.__dlpack__()
    before = resident()
    for _ in range(200_000):
        exported.__dlpack__()
        exported.__dlpack__(max_version=(1, 1))
    assert resident() - before < 8 << 20
