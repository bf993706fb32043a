"""Order, epochs, resume, and what a batch is."""

import json
import os

import numpy as np
import pytest

import tierstream
from conftest import LENGTH, SAMPLES


def first_tokens(batches):
    """The number of every sample, in order."""
    return [int(number) for batch in batches for number in batch["tokens"][:, 0]]


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own(dataset):
    loader = tierstream.Loader(dataset, batch_size=64, shuffle=True, seed=3)
    epochs = [first_tokens(loader) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(SAMPLES))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = tierstream.Loader(dataset, batch_size=10, shuffle=True, seed=3, prefetch_factor=1)
    assert first_tokens(again) == epochs[0]
    assert first_tokens(tierstream.Loader(dataset, batch_size=64)) == list(range(SAMPLES))


def test_batches_have_the_shape_and_bytes_of_the_data_set(dataset):
    loader = tierstream.Loader(dataset, batch_size=64, shuffle=True)
    batch = next(iter(loader))["tokens"]
    assert batch.shape == (64, LENGTH) and batch.dtype == np.uint16 and batch.flags.writeable
    assert (batch == (batch[:, :1] + np.arange(LENGTH, dtype=np.uint16))).all()
    assert len(loader) == 16
    assert [len(batch["tokens"]) for batch in loader][-1] == SAMPLES % 64
    short = tierstream.Loader(dataset, batch_size=64, drop_last=True)
    assert len(short) == 15 and len(list(short)) == 15


def test_samples_of_many_lengths_come_end_to_end(files, key):
    loader = tierstream.Loader(tierstream.Dataset(files, key), batch_size=8, shuffle=True, output="batch")
    seen = []
    for batch in loader:
        ragged = batch["data"]
        assert isinstance(ragged, tierstream.Ragged) and len(ragged) == len(batch)
        for sample, number in zip(ragged, batch.sample_ids):
            assert len(sample) == number % 7 * 100 + 1 and (sample == number).all()
        assert (ragged[-1] == ragged[len(ragged) - 1]).all()
        padded = ragged.padded(255)
        assert padded.shape == (len(batch), ragged.lengths.max())
        assert (padded[0, ragged.lengths[0] :] == 255).all() and (padded[0, : ragged.lengths[0]] == ragged[0]).all()
        seen += batch.sample_ids.tolist()
    assert sorted(seen) == list(range(50))
    with pytest.raises(IndexError):
        ragged[len(ragged)]


def test_outputs_and_hooks(dataset):
    settings = {"batch_size": 50, "shuffle": True}
    plain = next(iter(tierstream.Loader(dataset, **settings)))["tokens"]
    (only,) = next(iter(tierstream.Loader(dataset, output="tuple", **settings)))
    raw = next(iter(tierstream.Loader(dataset, output="batch", **settings)))
    assert (only == plain).all() and (raw["tokens"] == plain).all()
    assert (raw.epoch, raw.number, len(raw), raw.fields) == (0, 0, 50, ("tokens",))
    assert (raw.sample_ids == plain[:, 0]).all()
    doubled = next(iter(tierstream.Loader(dataset, transform=lambda batch: batch["tokens"] * 2, **settings)))
    assert (doubled == plain * 2).all()

    def collate(samples):
        return np.stack([sample["tokens"] for sample in samples]), len(samples)

    stacked, count = next(iter(tierstream.Loader(dataset, collate_fn=collate, **settings)))
    assert count == 50 and (stacked == plain).all()


def test_ranks_share_an_epoch(dataset, monkeypatch):
    seen = []
    for rank in range(3):
        loader = tierstream.Loader(dataset, batch_size=7, shuffle=True, rank=rank, world_size=3)
        seen += first_tokens(loader)
    assert sorted(seen) == list(range(SAMPLES))
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    loader = tierstream.Loader(dataset, batch_size=7, shuffle=True)
    assert (loader.rank, loader.world_size) == (2, 3)
    third = first_tokens(loader)
    assert third == seen[-len(third) :]


def test_ranks_are_found_where_launchers_put_them(monkeypatch):
    assert tierstream.rank_and_world_size() == (0, 1)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert tierstream.rank_and_world_size() == (0, 1), "a batch script outside of srun is one process"
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert tierstream.rank_and_world_size() == (5, 8)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert tierstream.rank_and_world_size() == (1, 4), "torchrun within a SLURM job"
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(tierstream.MisuseError, match="WORLD_SIZE=1"):
        tierstream.rank_and_world_size()


@pytest.mark.parametrize("taken", [0, 1, 7, 15, 16])
def test_resume_goes_on_at_the_very_next_sample(dataset, taken):
    settings = {"batch_size": 64, "shuffle": True, "seed": 9}
    whole = tierstream.Loader(dataset, **settings)
    expected = first_tokens(whole) + first_tokens(whole)
    left = tierstream.Loader(dataset, **settings)
    batches = iter(left)
    before = first_tokens(next(batches) for _ in range(taken))
    text = json.dumps(left.state_dict())
    assert len(text) < 1024
    resumed = tierstream.Loader(dataset, **settings)
    resumed.load_state_dict(json.loads(text))
    after = first_tokens(resumed)
    if taken < len(whole):
        after += first_tokens(resumed)
    assert before + after == expected


def test_a_state_of_another_order_is_refused(dataset):
    state = tierstream.Loader(dataset, batch_size=5, shuffle=True, seed=1).state_dict()
    with pytest.raises(tierstream.MisuseError, match="seed"):
        tierstream.Loader(dataset, batch_size=5, shuffle=True, seed=2).load_state_dict(state)
    with pytest.raises(tierstream.MisuseError, match="not the state"):
        tierstream.Loader(dataset).load_state_dict({"some": "thing"})


def test_a_loop_left_in_the_middle_is_followed_by_the_next_epoch(dataset):
    settings = {"batch_size": 100, "shuffle": True}
    whole = tierstream.Loader(dataset, **settings)
    epochs = [first_tokens(whole) for _ in range(3)]
    loader = tierstream.Loader(dataset, **settings)
    for number, _ in enumerate(loader):
        if number == 3:
            break
    assert first_tokens(loader) == epochs[1]
    assert loader.epoch == 2
    loader.set_epoch(0)
    assert loader.epoch == 0 and first_tokens(loader) == epochs[0]
    loader.set_epoch(1)
    assert first_tokens(loader) == epochs[1] and first_tokens(loader) == epochs[2]


def test_epochs_end_and_streams_do_not(dataset):
    loader = tierstream.Loader(dataset, batch_size=100, num_epochs=2)
    assert [len(list(loader)) for _ in range(4)] == [10, 10, 0, 0]
    loader = tierstream.Loader(dataset, batch_size=100, num_epochs=2)
    assert len(list(loader.stream())) == 20
    endless = tierstream.Loader(dataset, batch_size=300).stream()
    assert [len(next(endless)["tokens"]) for _ in range(9)] == [300, 300, 300, 100] * 2 + [300]


def test_shuffles_and_workers(dataset):
    whole = first_tokens(tierstream.Loader(dataset, batch_size=64, shuffle=True))
    assert first_tokens(tierstream.Loader(dataset, batch_size=64, shuffle="global", num_workers=5)) == whole
    blocks = first_tokens(tierstream.Loader(dataset, batch_size=64, shuffle="blocks", shuffle_window_bytes=50_000))
    assert sorted(blocks) == list(range(SAMPLES)) and blocks != whole


def test_two_loops_at_once_are_refused(dataset):
    loader = tierstream.Loader(dataset, batch_size=100)
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(tierstream.MisuseError, match="another loop"):
        next(first)


def test_settings_that_make_no_sense_are_refused(dataset):
    for settings, words in (
        ({"batch_size": 0}, "batch size 0"),
        ({"prefetch_factor": 0}, "prefetch factor"),
        ({"shuffle": "windows"}, "shuffle"),
        ({"on_corrupt": "ignore"}, "on_corrupt"),
        ({"rank": 3, "world_size": 3}, "rank 3 of 3"),
        ({"rank": 1}, "go together"),
        ({"output": "list"}, "expected one of"),
    ):
        with pytest.raises(tierstream.MisuseError, match=words):
            next(iter(tierstream.Loader(dataset, **settings)))
    with pytest.raises(tierstream.MisuseError, match="expected a tierstream.Dataset"):
        tierstream.Loader([1, 2, 3])


def test_the_package_needs_no_torch(dataset):
    import subprocess
    import sys

    code = "import sys; sys.modules['torch'] = None; import tierstream; assert 'torch.utils' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
