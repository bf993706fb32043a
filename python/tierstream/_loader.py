"""The loader: an epoch of batches for every `for` loop, made ahead on threads of its own."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, Optional

from ._dataset import Dataset
from ._errors import misuse
from ._tierstream import Engine
from .distributed import rank_and_world_size

_OUTPUTS = ("dict", "tuple", "batch")
#: For a loader without an end.
_FOREVER = 2**64 - 1


class Loader:
    """Batches of a data set, as numpy arrays.

    Each `for` loop over it is one epoch, and the next loop the next epoch. The order is a function of seed, epoch, rank
    and world size alone; every sample of an epoch comes exactly once over all ranks.

    Args:
        dataset: what to read.
        batch_size: samples per batch.
        shuffle: whether each epoch has an order of its own, shuffled over the whole data set.
        seed: of the shuffle.
        rank, world_size: this process among all that share an epoch. Default: as `rank_and_world_size` finds them.
        drop_last: whether an incomplete batch at the end of an epoch is left out.
        num_epochs: epochs that may be read in all. Default: any number.
        prefetch_factor: batches made ahead of their use.
        pin_memory: whether batches lie in memory that a GPU copies from at full speed; plain memory without a GPU.
        output: what a batch is: "dict" of arrays by field, "tuple" of them in the schema's order, or "batch", a
            `tierstream.Batch` that also knows epoch, number and sample ids.
        transform: called with each batch; its result is given out instead.
        collate_fn: called with a list of samples, each a dict of arrays, as PyTorch does; its result is the batch.
        timeout: seconds to wait for a batch before `RetryError` (a `TimeoutError`). Default: for ever.

    Batches: a field of fixed shape `s` is an array of shape `(batch, *s)`; one that varies in length is a `Ragged`.
    Arrays are views of the batch's memory, which is not used again while any of them lives: keep them as long as you
    like, and drop them so that the loader need not allocate.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        drop_last: bool = False,
        num_epochs: Optional[int] = None,
        prefetch_factor: int = 4,
        pin_memory: bool = False,
        output: str = "dict",
        transform: Optional[Callable[[Any], Any]] = None,
        collate_fn: Optional[Callable[[List[Dict[str, Any]]], Any]] = None,
        timeout: Optional[float] = None,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise misuse(
                f"dataset is a {type(dataset).__name__}, expected a tierstream.Dataset",
                "pack it first: tierstream.Writer, or tierstream pack",
            )
        if output not in _OUTPUTS:
            raise misuse(f"output {output!r}, expected one of {', '.join(_OUTPUTS)}")
        if (rank is None) != (world_size is None):
            raise misuse("rank and world_size go together", "give both, or neither to have them found")
        if rank is None or world_size is None:
            rank, world_size = rank_and_world_size()
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.timeout = timeout or None
        self.transform = transform
        self.collate_fn = collate_fn
        self._output = "batch" if collate_fn is not None else output
        self._settings: Dict[str, Any] = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "drop_last": drop_last,
            "num_epochs": _FOREVER if num_epochs is None else num_epochs,
            "prefetch_factor": prefetch_factor,
            "pin_memory": pin_memory,
        }
        self._engine: Optional[Engine] = None
        # Where the next engine begins; None: at the start.
        self._state: Optional[Dict[str, Any]] = None
        # Whether the next loop goes on where the state stands, rather than begin an epoch.
        self._resumed = True
        # Which `for` loop is the current one.
        self._loop = 0

    @property
    def rank(self) -> int:
        """This process among those that share an epoch, from 0."""
        return self._settings["rank"]

    @property
    def world_size(self) -> int:
        """How many processes share an epoch."""
        return self._settings["world_size"]

    def _samples(self) -> int:
        """Samples of an epoch that this rank gets."""
        mine = -(-(len(self.dataset) - self.rank) // self.world_size)
        return mine - mine % self.batch_size if self.drop_last else mine

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self._samples() // self.batch_size)

    def _running(self) -> Engine:
        """The engine, started where the state stands if there is none in this process."""
        if self._engine is None or not self._engine.is_ours:
            state = None if self._state is None else json.dumps(self._state)
            self._engine = Engine(self.dataset._source(), state=state, **self._settings)
            self._state = json.loads(self._engine.state())
        return self._engine

    def _move(self, epoch: int) -> None:
        """Puts the next batch at the start of `epoch`."""
        self._running()
        self._state = {**self.state_dict(), "epoch": epoch, "position": 0}
        self._engine = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        state = self.state_dict()
        return state["epoch"] + (1 if state["position"] >= self._samples() else 0)

    def set_epoch(self, epoch: int) -> None:
        """Lets the next `for` loop read `epoch`, as with torch's DistributedSampler. Not needed: loops count epochs."""
        if epoch < 0:
            raise misuse(f"epoch {epoch}, expected 0 or more")
        if self.epoch != epoch or self.state_dict()["position"] not in (0, self._samples()):
            self._move(epoch)
        self._resumed = True

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch; after `load_state_dict`, the rest of the epoch that was left."""
        state = self.state_dict()
        if not self._resumed and 0 < state["position"] < self._samples():
            # The loop before was left in the middle.
            self._move(state["epoch"] + 1)
            state = self.state_dict()
        self._resumed = False
        self._loop += 1
        done = state["position"] if state["position"] < self._samples() else 0
        return self._batches(self._loop, -(-(self._samples() - done) // self.batch_size))

    def stream(self) -> Iterator[Any]:
        """Batches without regard to the ends of epochs, until `num_epochs` are read."""
        self._resumed = False
        self._loop += 1
        return self._batches(self._loop, None)

    def _batches(self, loop: int, count: Optional[int]) -> Iterator[Any]:
        engine = self._running()
        next_batch, output, timeout = engine.next, self._output, self.timeout
        transform, collate_fn = self.transform, self.collate_fn
        while count is None or count > 0:
            if self._loop != loop:
                raise misuse("another loop over this loader has begun", "use one loader for each loop at a time")
            batch = next_batch(output, timeout)
            if batch is None:
                return
            if count is not None:
                count -= 1
            if collate_fn is not None:
                batch = collate_fn(_samples_of(batch))
            if transform is not None:
                batch = transform(batch)
            yield batch

    def state_dict(self) -> Dict[str, Any]:
        """Where the loader stands: after the last batch that it gave out. Some integers, under 1 KB as JSON."""
        engine = self._running()
        self._state = json.loads(engine.state())
        return dict(self._state)

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Goes on where a loader with the same settings stood: the next `for` loop gives the rest of its epoch."""
        self._state, self._engine, self._resumed = dict(state_dict), None, True
        self._loop += 1
        # Started now, so that a state of another order is refused here, and the first batch is being read.
        self._running()

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    def __repr__(self) -> str:
        return (
            f"tierstream.{type(self).__name__}({self.dataset!r}, batch_size={self.batch_size}, "
            f"rank {self.rank} of {self.world_size})"
        )


def _samples_of(batch: Any) -> List[Dict[str, Any]]:
    """A batch as a list of samples: dicts of views."""
    fields = {name: batch[name] for name in batch.fields}
    return [{name: values[index] for name, values in fields.items()} for index in range(len(batch))]
