"""tierstream for PyTorch: loaders that give tensors.

    from tierstream.torch import DataLoader

    loader = DataLoader(tierstream.Dataset("set/", key="job.key"), batch_size=64, shuffle=True)

Tensors share the batch's memory: nothing is copied, no worker process is started, nothing lies in /dev/shm.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import torch
import torch.utils.data
from torch.utils.data.distributed import DistributedSampler

from ._dataset import Dataset, Mixture, Stage
from ._errors import misuse
from ._loader import Loader, Packed, Padded
from ._ragged import Ragged
from ._tierstream import Batch
from .distributed import rank_and_world_size

__all__ = ["DataLoader", "IterableDataset", "Packed", "Padded", "RaggedTensor", "Stage"]


class RaggedTensor(NamedTuple):
    """A field whose samples differ in length: `values` end to end, shape `(total, ...)`, and int64 `offsets` of shape
    `(len + 1,)`; sample `i` is `values[offsets[i]:offsets[i + 1]]`."""

    values: torch.Tensor
    offsets: torch.Tensor

    def samples(self) -> List[torch.Tensor]:
        """The samples, as views."""
        return list(torch.split(self.values, torch.diff(self.offsets).tolist()))

    def nested(self) -> torch.Tensor:
        """The same memory as a nested tensor of jagged layout, shape `(len, *, ...)`."""
        return torch.nested.nested_tensor_from_jagged(self.values, self.offsets)


def _tensor(array: Any, bf16: bool) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if bf16 else tensor


def _value(value: Any, bf16: bool) -> "torch.Tensor | RaggedTensor":
    if isinstance(value, Ragged):
        # Offsets may not be written to, which tensors cannot say: a copy of a few numbers.
        return RaggedTensor(_tensor(value.values, bf16), torch.from_numpy(value.offsets.copy()))
    return _tensor(value, bf16)


def _brain_floats(dataset: "Dataset | Mixture") -> "frozenset[str]":
    first: Any = dataset
    while not isinstance(first, Dataset):
        first = first.data_sets if isinstance(first, Stage) else first[0]
    return frozenset(field.name for field in first.fields if field.dtype == "bf16")


class _Tensors:
    """Turns what a `Loader` gives into tensors, and calls the user's hooks with those. May be pickled."""

    def __init__(
        self,
        output: str,
        brain_floats: "frozenset[str]",
        transform: Optional[Callable[[Any], Any]],
        collate_fn: Optional[Callable[[List[Any]], Any]],
    ) -> None:
        self.output, self.brain_floats = output, brain_floats
        self.transform, self.collate_fn = transform, collate_fn

    def __call__(self, batch: Any) -> Any:
        bf16 = self.brain_floats
        if isinstance(batch, Batch):
            made: Any = {name: _value(batch[name], name in bf16) for name in batch.fields}
            if self.output == "tuple":
                made = tuple(made.values())
        else:
            made = {name: _value(value, name in bf16) for name, value in batch.items()}
        if self.collate_fn is not None:
            made = self.collate_fn(_samples(made))
        return made if self.transform is None else self.transform(made)


def _samples(batch: Dict[str, Any]) -> List[Dict[str, Any]]:
    parts = {name: value.samples() if isinstance(value, RaggedTensor) else list(value) for name, value in batch.items()}
    return [dict(zip(parts, values)) for values in zip(*parts.values())]


class DataLoader(Loader):
    """A `tierstream.Loader` with the arguments of `torch.utils.data.DataLoader`, and tensors for arrays.

    Each `for` loop is one epoch, as with torch's. A batch is a dict of tensors by field, or with `output="tuple"` a tuple
    of them: a field of fixed shape `s` is a tensor of shape `(batch, *s)`, one that varies in length a `RaggedTensor`.
    `state_dict` and `load_state_dict` are those of torchdata's StatefulDataLoader.

    Args as torch's, with these differences:
        shuffle: also "blocks", see `tierstream.Loader`.
        sampler: a `RandomSampler`, `SequentialSampler` or `DistributedSampler` is understood; its order is tierstream's.
            For a choice of samples use `dataset.select`.
        num_workers: threads, not processes; 0 lets tierstream choose.
        generator: its initial seed is the seed of the shuffle, where `seed` does not say.
        collate_fn: called with a list of samples, each a dict of tensors.
        worker_init_fn, multiprocessing_context, persistent_workers, in_order, pin_memory_device: of no effect: there are
            no worker processes, and the order is always kept.
        settings: what else `tierstream.Loader` takes.
    """

    def __init__(
        self,
        dataset: "Dataset | Mixture",
        batch_size: int = 1,
        shuffle: Union[bool, str, None] = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Optional[Callable[[List[Any]], Any]] = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Optional[torch.Generator] = None,
        *,
        prefetch_factor: Optional[int] = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        output: str = "dict",
        transform: Optional[Callable[[Any], Any]] = None,
        seed: Optional[int] = None,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        **settings: Any,
    ) -> None:
        if batch_size is None or batch_sampler is not None:
            raise misuse(
                "batches are made by tierstream: batch_size=None and batch_sampler have no meaning here",
                "give batch_size, or use torch.utils.data.DataLoader(dataset) for samples one by one",
            )
        if sampler is not None:
            shuffle, rank, world_size, seed = _of_sampler(sampler, shuffle, rank, world_size, seed)
        if seed is None:
            seed = 0 if generator is None else generator.initial_seed() % 2**64
        if output not in ("dict", "tuple"):
            raise misuse(f"output {output!r}, expected dict or tuple", "tierstream.Loader gives raw batches")
        convert = _Tensors(output, _brain_floats(dataset), transform, collate_fn)
        super().__init__(
            dataset,
            batch_size=batch_size,
            shuffle=bool(shuffle) if shuffle is None else shuffle,
            num_workers=num_workers or 2,
            pin_memory=pin_memory,
            drop_last=drop_last,
            timeout=timeout or None,
            prefetch_factor=4 if prefetch_factor is None else prefetch_factor,
            output="batch" if output == "tuple" else "dict",
            transform=convert,
            seed=seed,
            rank=rank,
            world_size=world_size,
            **settings,
        )


def _of_sampler(
    sampler: Any, shuffle: Any, rank: Optional[int], world_size: Optional[int], seed: Optional[int]
) -> Tuple[Any, Optional[int], Optional[int], Optional[int]]:
    """What a sampler of torch's says of order and rank."""
    if shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if isinstance(sampler, DistributedSampler):
        return sampler.shuffle, sampler.rank, sampler.num_replicas, sampler.seed if seed is None else seed
    if isinstance(sampler, torch.utils.data.SequentialSampler):
        return False, rank, world_size, seed
    if isinstance(sampler, torch.utils.data.RandomSampler) and not sampler.replacement:
        return True, rank, world_size, seed
    raise misuse(
        f"a {type(sampler).__name__} decides the order, which is tierstream's to decide",
        "use shuffle and seed, dataset.select(indexes), or a weighted list of data sets",
    )


class IterableDataset(torch.utils.data.IterableDataset):
    """The same batches for torch's own DataLoader or torchdata's StatefulDataLoader: pass it with `batch_size=None`.

        dataset = IterableDataset(tierstream.Dataset("set/", key="job.key"), batch_size=64, shuffle=True)
        loader = StatefulDataLoader(dataset, batch_size=None)

    Each pass is an epoch. With worker processes each of them is a rank of its own, so that no sample comes twice; each
    opens the data set for itself. `DataLoader` of this module needs none of this and is faster.

    Args: those of `tierstream.Loader`; `samples=True` gives samples one by one instead of batches, for a torch
    DataLoader with a batch size and collate_fn of its own.
    """

    def __init__(self, dataset: "Dataset | Mixture", *, samples: bool = False, **settings: Any) -> None:
        super().__init__()
        self.dataset = dataset
        self.samples = samples
        output = settings.pop("output", "dict")
        if samples and output != "dict":
            raise misuse("samples are dicts", "leave output away")
        rank, world_size = settings.pop("rank", None), settings.pop("world_size", None)
        if rank is None or world_size is None:
            # Found here: worker processes know nothing of the job's process group.
            rank, world_size = rank_and_world_size()
        self._rank, self._world_size = rank, world_size
        transform, collate_fn = settings.pop("transform", None), settings.pop("collate_fn", None)
        settings["transform"] = _Tensors(output, _brain_floats(dataset), transform, collate_fn)
        settings["output"] = "batch" if output == "tuple" else "dict"
        self._settings = settings
        self._loader: Optional[Loader] = None
        self._state: Optional[Dict[str, Any]] = None

    def _running(self) -> Loader:
        if self._loader is None:
            rank, world_size = self._rank, self._world_size
            worker = torch.utils.data.get_worker_info()
            if worker is not None:
                rank, world_size = rank * worker.num_workers + worker.id, world_size * worker.num_workers
            self._loader = Loader(self.dataset, rank=rank, world_size=world_size, **self._settings)
            if self._state is not None:
                self._loader.load_state_dict(self._state)
        return self._loader

    def __len__(self) -> int:
        """Batches of an epoch for this process, or samples of it with `samples=True`."""
        if self.samples:
            raise TypeError("the number of samples is len(dataset)")
        return len(self._running())

    def set_epoch(self, epoch: int) -> None:
        """Lets the next pass read `epoch`. Not needed: passes count epochs."""
        self._running().set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._running())
        if not self.samples:
            return batches
        return (sample for batch in batches for sample in _samples(batch))

    def state_dict(self) -> Dict[str, Any]:
        """Where this process stands; see `tierstream.Loader.state_dict`. With `samples=True`, at the end of a batch."""
        return self._running().state_dict()

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Goes on where `state_dict` was called."""
        self._state = dict(state_dict)
        if self._loader is not None:
            self._loader.load_state_dict(self._state)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_loader": None}
