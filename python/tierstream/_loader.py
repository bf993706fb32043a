"""The loader: an epoch of batches for every `for` loop, made ahead on threads of its own."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Union

from ._dataset import Dataset, Mixture, Stage, _samples_of
from ._errors import misuse
from ._tierstream import Engine
from .distributed import rank_and_world_size

_OUTPUTS = ("dict", "tuple", "batch")
#: For a loader without an end.
_FOREVER = 2**64 - 1


class Padded(NamedTuple):
    """Sequences of a ragged field as rows of one length, one sequence a row. `FIELD_length` (u32) comes beside it."""

    #: The ragged field.
    field: str
    #: What rows are filled up with.
    value: int = 0
    #: Steps of a row. None: the longest sequence of each batch.
    length: Optional[int] = None
    #: Whether a longer sequence is cut, and counted by `Loader.truncated_samples`; else it is an error.
    cut: bool = False


class Packed(NamedTuple):
    """Several whole sequences a row: `FIELD_segment` (i32: 1, 2, ... for the sequences of a row, 0 for padding) and
    `FIELD_position` (i32: the place in its sequence) come beside it. `batch_size` counts sequences."""

    #: The ragged field.
    field: str
    #: Steps of a row.
    length: int
    #: What rows are filled up with.
    value: int = 0
    #: Whether a longer sequence is cut, and counted by `Loader.truncated_samples`; else it is an error.
    cut: bool = False


class Loader:
    """Batches of a data set, as numpy arrays.

    Each `for` loop over it is one epoch, and the next loop the next epoch. The order is a function of seed, epoch, rank
    and world size alone; every sample of an epoch comes exactly once over all ranks.

    Args:
        dataset: what to read: a `Dataset`; a list of `(Dataset, weight)` to mix; or a list of `Stage`, a curriculum.
        batch_size: samples per batch.
        shuffle: False; True or "global", an order of its own for each epoch, shuffled over the whole data set; or
            "blocks", in which samples of one block come close together, and less is read.
        shuffle_window_bytes: over how many bytes of data "blocks" shuffles.
        seed: of the shuffle.
        rank, world_size: this process among all that share an epoch. Default: as `rank_and_world_size` finds them.
        drop_last: whether an incomplete batch at the end of an epoch is left out.
        num_epochs: epochs that may be read in all. Default: any number.
        epoch_size: samples of an epoch, over all ranks, instead of as many as there are.
        sequences: `Padded` or `Packed`, for a ragged field of tokens. Default: a `Ragged` of views.
        on_corrupt: "error", or "skip" to leave samples out that are damaged on every tier; they are logged and counted
            by `skipped_samples`.
        num_workers: threads that make batches; the order is the same with any number.
        prefetch_factor: batches made ahead of their use.
        pin_memory: whether batches lie in memory that a GPU copies from at full speed; plain memory without a GPU.
        output: what a batch is: "dict" of arrays by field, "tuple" of them in the schema's order, or "batch", a
            `tierstream.Batch` that also knows epoch, number and sample ids.
        transform: called with each batch; its result is given out instead.
        collate_fn: called with a list of samples, each a dict of arrays, as PyTorch does; its result is the batch.
        timeout: seconds to wait for a batch before `RetryError` (a `TimeoutError`); the loop may be gone on with.
            Default: for ever.
        stall_warning: seconds after which a wait is logged with what it waits for, to `logging`'s "tierstream".

    Batches: a field of fixed shape `s` is an array of shape `(batch, *s)`; one that varies in length is a `Ragged`.
    Arrays are views of the batch's memory, which is not used again while any of them lives: keep them as long as you
    like, and drop them so that the loader need not allocate.
    """

    def __init__(
        self,
        dataset: "Dataset | Mixture",
        *,
        batch_size: int = 1,
        shuffle: Union[bool, str] = False,
        shuffle_window_bytes: int = 64 << 20,
        seed: int = 0,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        drop_last: bool = False,
        num_epochs: Optional[int] = None,
        epoch_size: Optional[int] = None,
        sequences: "Padded | Packed | None" = None,
        on_corrupt: str = "error",
        num_workers: int = 2,
        prefetch_factor: int = 4,
        pin_memory: bool = False,
        output: str = "dict",
        transform: Optional[Callable[[Any], Any]] = None,
        collate_fn: Optional[Callable[[List[Dict[str, Any]]], Any]] = None,
        timeout: Optional[float] = None,
        stall_warning: float = 10.0,
    ) -> None:
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
        self.stall_warning = stall_warning
        self.transform = transform
        self.collate_fn = collate_fn
        self._stages = _stages(dataset)
        self._output = "batch" if collate_fn is not None else output
        self._settings: Dict[str, Any] = {
            "batch_size": batch_size,
            "shuffle": {True: "global", False: "off"}.get(shuffle, shuffle),  # type: ignore[call-overload]
            "shuffle_window_bytes": shuffle_window_bytes,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "drop_last": drop_last,
            "num_epochs": _FOREVER if num_epochs is None else num_epochs,
            "epoch_size": epoch_size,
            "sequences": _sequences(sequences),
            "on_corrupt": on_corrupt,
            "num_workers": num_workers,
            "prefetch_factor": prefetch_factor,
            "pin_memory": pin_memory,
        }
        self._engine: Optional[Engine] = None
        # Where the next engine begins; None: at the start.
        self._state: Optional[Dict[str, Any]] = None
        # Whether the next loop goes on where the loader stands, rather than begin an epoch.
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

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._running().batches_per_epoch()

    def _running(self) -> Engine:
        """The engine, started where the state stands if there is none in this process."""
        if self._engine is None or not self._engine.is_ours:
            stages = [
                ([(dataset._source(), float(weight)) for dataset, weight in stage.data_sets], stage.samples)
                for stage in self._stages
            ]
            state = None if self._state is None else json.dumps(self._state)
            self._engine = Engine(stages, {**self._settings, "state": state})
        return self._engine

    def _move(self, epoch: int) -> None:
        """Puts the next batch at the start of `epoch`."""
        self._state = {**self.state_dict(), "epoch": epoch, "done": 0, "batches": 0}
        self._engine = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        state = self.state_dict()
        over = state["done"] > 0 and self._running().batches_left() == 0
        return state["epoch"] + (1 if over else 0)

    @property
    def skipped_samples(self) -> int:
        """Samples that were left out because they are corrupt, of batches made so far."""
        return self._running().counts()[0]

    @property
    def truncated_samples(self) -> int:
        """Sequences that were cut to the length of a row, of batches made so far."""
        return self._running().counts()[1]

    def set_epoch(self, epoch: int) -> None:
        """Lets the next `for` loop read `epoch`, as with torch's DistributedSampler. Not needed: loops count epochs."""
        if epoch < 0:
            raise misuse(f"epoch {epoch}, expected 0 or more")
        engine = self._running()
        if self.epoch != epoch or 0 < engine.batches_left() < engine.batches_per_epoch():
            self._move(epoch)
        self._resumed = True

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch; after `load_state_dict`, the rest of the epoch that was left."""
        state = self.state_dict()
        epoch = self.epoch
        if not self._resumed and state["done"] > 0 and epoch == state["epoch"]:
            # The loop before was left in the middle.
            epoch += 1
            self._move(epoch)
        self._running().begin_epoch(epoch)
        self._resumed = False
        self._loop += 1
        return self._batches(self._loop, True)

    def stream(self) -> Iterator[Any]:
        """Batches without regard to the ends of epochs, until `num_epochs` are read."""
        self._resumed = False
        self._loop += 1
        return self._batches(self._loop, False)

    def _batches(self, loop: int, one_epoch: bool) -> Iterator[Any]:
        next_batch, output = self._running().next, self._output
        timeout, stall_warning = self.timeout, self.stall_warning
        transform, collate_fn = self.transform, self.collate_fn
        while True:
            if self._loop != loop:
                raise misuse("another loop over this loader has begun", "use one loader for each loop at a time")
            batch = next_batch(output, one_epoch, timeout, stall_warning)
            if batch is None:
                return
            if collate_fn is not None:
                batch = collate_fn(_samples_of(batch))
            if transform is not None:
                batch = transform(batch)
            yield batch

    def state_dict(self) -> Dict[str, Any]:
        """Where the loader stands: after the last batch that it gave out. Some integers, under 1 KB as JSON.

        A job may go on with another number of ranks: all of them load the state of rank 0.
        """
        self._state = json.loads(self._running().state())
        return dict(self._state)

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Goes on where a loader of the same order stood: the next `for` loop gives the rest of its epoch.

        The number of ranks, the batch size and all that does not decide the order may differ.
        """
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


def _stages(dataset: Any) -> List[Stage]:
    if isinstance(dataset, Dataset):
        return [Stage([(dataset, 1.0)])]
    parts = list(dataset) if isinstance(dataset, (list, tuple)) else []
    if parts and all(isinstance(part, Stage) for part in parts):
        return parts
    if parts and all(isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], Dataset) for part in parts):
        return [Stage(parts)]
    raise misuse(
        f"dataset is a {type(dataset).__name__}, expected a tierstream.Dataset, or a list of (Dataset, weight) or Stage",
        "pack other data first: tierstream.Writer, or tierstream pack",
    )


def _sequences(sequences: "Padded | Packed | None") -> Any:
    if sequences is None:
        return None
    packed = isinstance(sequences, Packed)
    return packed, sequences.field, sequences.length, sequences.value, sequences.cut
