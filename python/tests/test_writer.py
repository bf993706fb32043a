"""Packing from Python: samples of several fields, mixtures, parts of data sets, padding."""

import os
import pickle

import numpy as np
import pytest

import tierstream

FIELDS = {"image": ("u8", (4, 5)), "text": ("i32", (-1,)), "label": ("i64", ()), "half": ("bf16", (3,))}


def sample(number):
    return {
        "image": np.full((4, 5), number % 251, np.uint8),
        "text": np.arange(number % 6, dtype=np.int32) + number,
        "label": number,
        "half": np.full(3, number, np.uint16),
    }


@pytest.fixture(scope="module")
def several(place, key):
    path = place / "several"
    with tierstream.Writer(path, key, FIELDS, codec="zstd", shard_bytes=10_000) as writer:
        for number in range(300):
            writer.write(sample(number), name=f"sample-{number}")
    assert writer.report["samples"] == 300 and writer.report["shards"] > 1
    return str(path)


def test_samples_of_several_fields_come_back(several, key):
    dataset = tierstream.Dataset(several, key)
    assert dataset.fields == [tierstream.Field(name, dtype, shape) for name, (dtype, shape) in FIELDS.items()]
    seen = []
    for batch in tierstream.Loader(dataset, batch_size=32, shuffle=True):
        count = len(batch["label"])
        assert batch["image"].shape == (count, 4, 5) and batch["half"].shape == (count, 3)
        assert batch["label"].shape == (count,) and batch["label"].dtype == np.int64
        for index, number in enumerate(batch["label"]):
            expected = sample(int(number))
            for field in FIELDS:
                assert (batch[field][index] == expected[field]).all()
        seen += batch["label"].tolist()
    assert sorted(seen) == list(range(300))


def test_single_samples_are_read(several, key):
    dataset = tierstream.Dataset(several, key)
    assert dataset[7]["label"] == 7 and (dataset[-1]["text"] == sample(299)["text"]).all()
    assert [int(one["label"]) for one in dataset.__getitems__([5, 3, 5])] == [5, 3, 5]
    with pytest.raises(IndexError):
        dataset[300]


def test_writers_refuse_what_does_not_fit(tmp_path, key):
    fields = {"x": ("u8", (2,)), "y": ("f32", ())}
    writer = tierstream.Writer(tmp_path / "set", key, fields)
    for wrong, words in (
        ({"x": [1, 2]}, "expected"),
        ({"x": [1, 2, 3], "y": 0.5}, "shape"),
        ({"x": [1, 300], "y": 0.5}, "beyond u8"),
        ({"x": [1.5, 2.0], "y": 0.5}, "elements of float64"),
        ({"x": [1, 2], "y": 0.5, "z": 1}, "fields"),
    ):
        with pytest.raises(tierstream.MisuseError, match=words):
            writer.write(wrong)
    writer.write({"x": b"ab", "y": np.float32(0.5)})
    assert writer.finish()["samples"] == 1
    with pytest.raises(tierstream.ClosedError):
        writer.write({"x": b"ab", "y": 0.5})
    with pytest.raises(tierstream.MisuseError, match="of this name already"):
        tierstream.Writer(tmp_path / "set", key, fields)


def test_a_writer_that_fails_leaves_nothing(tmp_path, key):
    with pytest.raises(ZeroDivisionError):
        with tierstream.Writer(tmp_path / "set", key, {"x": ("u8", ())}) as writer:
            writer.write({"x": 1})
            1 / 0
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def pair(place, key):
    """Two data sets of 100 numbers each, from 0 and from 1000, in one store."""
    store = tierstream.Store(key)
    both = []
    for start in (0, 1000):
        path = place / f"numbers-{start}"
        with tierstream.Writer(path, key, {"x": ("i64", ())}) as writer:
            writer.write_batch({"x": np.arange(start, start + 100)})
        both.append(tierstream.Dataset(path, store=store))
    return both


def numbers(batches):
    return [int(number) for batch in batches for number in batch["x"]]


def test_parts_of_data_sets(pair):
    whole = pair[0]
    assert numbers(tierstream.Loader(whole.subset(10, 13), batch_size=2)) == [10, 11, 12]
    assert numbers(tierstream.Loader(whole.select([7, 3, 7]))) == [7, 3, 7]
    even = whole.filter(lambda number, length: number % 2 == 0 and length == 8)
    assert numbers(tierstream.Loader(even, batch_size=50)) == list(range(0, 100, 2))
    train, test = whole.split([0.8, 0.2], seed=4)
    assert (len(train), len(test)) == (80, 20)
    parts = [numbers(tierstream.Loader(part, batch_size=7, shuffle=True)) for part in (train, test)]
    assert sorted(parts[0] + parts[1]) == list(range(100))
    again = pickle.loads(pickle.dumps(test))
    assert sorted(numbers(tierstream.Loader(again))) == sorted(parts[1])
    assert numbers(tierstream.Loader(pickle.loads(pickle.dumps(even.subset(1, 3))))) == [2, 4]
    with pytest.raises(ZeroDivisionError):
        whole.filter(lambda number, length: 1 / 0)


def test_mixtures_and_stages(pair):
    mixed = tierstream.Loader([(pair[0], 3), (pair[1], 1)], batch_size=40, shuffle=True, epoch_size=400)
    seen = numbers(mixed)
    assert len(seen) == 400 and 280 <= sum(number < 1000 for number in seen) <= 320
    stages = [tierstream.Stage([(pair[1], 1)], samples=30), tierstream.Stage([(pair[0], 1)])]
    staged = numbers(tierstream.Loader(stages, batch_size=10, shuffle=True))
    assert all(number >= 1000 for number in staged[:30]) and sorted(staged[30:]) == list(range(100))
    whole, left, resumed = (tierstream.Loader([(pair[0], 1), (pair[1], 1)], batch_size=7) for _ in range(3))
    batches = iter(left)
    first = numbers(next(batches) for _ in range(5))
    resumed.load_state_dict(left.state_dict())
    assert first + numbers(resumed) == numbers(whole)


def test_data_sets_of_two_stores_do_not_mix(pair, tokens, key):
    other = tierstream.Dataset(pair[1].path, key)
    with pytest.raises(tierstream.MisuseError, match="different stores"):
        len(tierstream.Loader([(pair[0], 1), (other, 1)]))


def test_elastic_resume_on_another_world_size(pair):
    settings = {"batch_size": 3, "shuffle": True, "seed": 5}
    whole = numbers(tierstream.Loader(pair[0], rank=0, world_size=1, **settings))
    seen, state = [], None
    for rank in range(4):
        loader = tierstream.Loader(pair[0], rank=rank, world_size=4, **settings)
        batches = iter(loader)
        seen += numbers(next(batches) for _ in range(4))
        state = loader.state_dict() if rank == 0 else state
    assert sorted(seen) == sorted(whole[:48])
    for rank in range(3):
        loader = tierstream.Loader(pair[0], rank=rank, world_size=3, **settings)
        loader.load_state_dict(state)
        seen += numbers(loader)
    assert sorted(seen) == list(range(100))


def test_sequences_are_padded_and_packed(several, place, key):
    path = place / "sequences"
    with tierstream.Writer(path, key, {"text": ("u16", (-1,))}) as writer:
        for number in range(60):
            writer.write({"text": np.full(number % 9 + 1, number, np.uint16)})
    dataset = tierstream.Dataset(path, key)
    batch = next(iter(tierstream.Loader(dataset, batch_size=60, sequences=tierstream.Padded("text", value=65535))))
    assert batch["text"].shape == (60, 9) and (batch["text_length"] == np.arange(60) % 9 + 1).all()
    for number, row in enumerate(batch["text"]):
        assert (row[: number % 9 + 1] == number).all() and (row[number % 9 + 1 :] == 65535).all()
    packed = tierstream.Loader(dataset, batch_size=60, sequences=tierstream.Packed("text", length=16))
    batch = next(iter(packed))
    assert batch["text"].shape[1] == 16 and len(batch["text"]) < 60
    assert (batch["text_segment"] > 0).sum() == sum(number % 9 + 1 for number in range(60))
    cut = tierstream.Loader(dataset, batch_size=60, num_epochs=1, sequences=tierstream.Padded("text", length=4, cut=True))
    assert next(iter(cut))["text"].shape == (60, 4) and cut.truncated_samples == sum(n % 9 + 1 > 4 for n in range(60))
    with pytest.raises(tierstream.MisuseError, match="no field"):
        len(tierstream.Loader(dataset, sequences=tierstream.Padded("words")))
