"""Loaders that give tensors, alone and within torch's and torchdata's own."""

import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.utils.data
from torchdata.stateful_dataloader import StatefulDataLoader

import tierstream
from conftest import LENGTH, SAMPLES
from tierstream.torch import DataLoader, IterableDataset, RaggedTensor


def firsts(batches):
    return [int(number) for batch in batches for number in batch["tokens"][:, 0]]


def test_tensors_share_the_batchs_memory_and_keep_it(dataset):
    loader = DataLoader(dataset, batch_size=50, shuffle=True)
    kept, copies = [], []
    for _ in range(2):
        for batch in loader:
            tokens = batch["tokens"]
            assert tokens.shape == (50, LENGTH) and tokens.dtype == torch.uint16
            kept.append(tokens)
            copies.append(tokens.clone())
    del batch, tokens
    assert len({tensor.data_ptr() for tensor in kept}) == 40
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(kept, copies))
    kept.clear()
    assert len({batch["tokens"].data_ptr() for batch in loader}) <= 12


def test_dlpack_gives_torch_the_same_memory(dataset):
    batch = next(iter(tierstream.Loader(dataset, batch_size=50, output="batch")))
    tensor = torch.from_dlpack(batch.arrays()["tokens"])
    address, expected = batch["tokens"].__array_interface__["data"][0], batch["tokens"].copy()
    assert tensor.data_ptr() == address
    del batch
    for _ in tierstream.Loader(dataset, batch_size=50):
        pass
    assert (tensor.numpy() == expected).all()


def test_brain_floats_ragged_fields_and_hooks(place, key):
    path = place / "brain"
    fields = {"x": ("bf16", (3,)), "text": ("i32", (-1,)), "label": ("i64", ())}
    with tierstream.Writer(path, key, fields) as writer:
        for number in range(20):
            bits = torch.full((3,), float(number), dtype=torch.bfloat16).view(torch.uint16).numpy()
            writer.write({"x": bits, "text": np.arange(number, dtype=np.int32), "label": number})
    dataset = tierstream.Dataset(path, key)
    batch = next(iter(DataLoader(dataset, batch_size=20)))
    assert batch["x"].dtype == torch.bfloat16 and batch["x"][7].tolist() == [7.0] * 3
    text = batch["text"]
    assert isinstance(text, RaggedTensor) and [len(sample) for sample in text.samples()] == list(range(20))
    assert text.nested()[5].tolist() == [0, 1, 2, 3, 4]
    x, _, label = next(iter(DataLoader(dataset, batch_size=4, output="tuple")))
    assert x.dtype == torch.bfloat16 and label.tolist() == [0, 1, 2, 3]

    def collate(samples):
        return torch.nn.utils.rnn.pad_sequence([sample["text"] for sample in samples], batch_first=True)

    padded = next(iter(DataLoader(dataset, batch_size=4, collate_fn=collate, transform=lambda batch: batch + 1)))
    assert padded.tolist() == [[1, 1, 1], [1, 1, 1], [1, 2, 1], [1, 2, 3]]


def test_the_arguments_of_torchs_loader_are_understood(dataset):
    loader = DataLoader(dataset, 64, True, num_workers=3, drop_last=True, timeout=30, persistent_workers=True)
    assert len(loader) == 15 and len(set(firsts(loader))) == 15 * 64
    sampler = torch.utils.data.distributed.DistributedSampler(range(SAMPLES), num_replicas=4, rank=3, seed=5)
    of_rank = DataLoader(dataset, 10, sampler=sampler)
    assert (of_rank.rank, of_rank.world_size) == (3, 4)
    assert firsts(of_rank) == firsts(tierstream.Loader(dataset, shuffle=True, seed=5, rank=3, world_size=4))
    seeded = DataLoader(dataset, 10, True, generator=torch.Generator().manual_seed(77))
    assert firsts(seeded) == firsts(tierstream.Loader(dataset, batch_size=10, shuffle=True, seed=77))
    assert firsts(DataLoader(dataset, 10, sampler=torch.utils.data.SequentialSampler(range(5)))) == list(range(SAMPLES))
    weighted = torch.utils.data.WeightedRandomSampler([1.0], 5)
    for wrong in ({"sampler": weighted}, {"batch_size": None}, {"batch_sampler": [[1]]}):
        with pytest.raises(tierstream.MisuseError):
            DataLoader(dataset, **wrong)


@pytest.mark.parametrize("workers", [0, 2])
def test_within_torchs_own_loader(dataset, workers):
    iterable = IterableDataset(dataset, batch_size=64, shuffle=True)
    loader = torch.utils.data.DataLoader(iterable, batch_size=None, num_workers=workers)
    assert sorted(firsts(loader)) == list(range(SAMPLES))
    one_by_one = IterableDataset(dataset, batch_size=64, shuffle=True, samples=True)
    loader = torch.utils.data.DataLoader(one_by_one, batch_size=10, num_workers=workers)
    assert sorted(firsts(loader)) == list(range(SAMPLES))
    assert sorted(firsts(torch.utils.data.DataLoader(dataset, batch_size=50, shuffle=True, num_workers=workers))) == list(
        range(SAMPLES)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 9])
def test_within_torchdatas_stateful_loader(dataset, workers, taken):
    def make():
        iterable = IterableDataset(dataset, batch_size=64, shuffle=True, seed=2)
        return StatefulDataLoader(iterable, batch_size=None, num_workers=workers)

    whole = firsts(make())
    assert sorted(whole) == list(range(SAMPLES))
    left = make()
    batches = iter(left)
    before = firsts(next(batches) for _ in range(taken))
    state = pickle.loads(pickle.dumps(left.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert before + firsts(resumed) == whole


def test_our_loader_has_the_states_of_a_stateful_one(dataset):
    settings = {"batch_size": 64, "shuffle": True}
    left, resumed = DataLoader(dataset, **settings), DataLoader(dataset, **settings)
    batches = iter(left)
    before = firsts(next(batches) for _ in range(5))
    resumed.load_state_dict(left.state_dict())
    assert before + firsts(resumed) == firsts(DataLoader(dataset, **settings))


def test_ranks_come_from_torch_distributed(tokens, key):
    code = f"""
        import torch.distributed, tierstream
        from tierstream.torch import DataLoader
        torch.distributed.init_process_group("gloo")
        loader = DataLoader(tierstream.Dataset({tokens!r}, {key!r}), batch_size=10, shuffle=True)
        rank, seen = loader.rank, [int(n) for batch in loader for n in batch["tokens"][:, 0]]
        everybodys = [None] * loader.world_size
        torch.distributed.all_gather_object(everybodys, seen)
        assert rank == torch.distributed.get_rank() and loader.world_size == 3
        assert sorted(sum(everybodys, [])) == list(range({SAMPLES}))
        torch.distributed.destroy_process_group()
    """
    script = os.path.join(os.path.dirname(key), "ranks.py")
    with open(script, "w") as file:
        file.write(textwrap.dedent(code))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", script]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
