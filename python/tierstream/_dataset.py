"""Data sets, whole and in parts: opened once per process, whatever forks or pickles them."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from ._keys import KeySource
from ._store import Path, Store
from ._tierstream import Source


class Field(NamedTuple):
    """A field of a sample."""

    #: Its name.
    name: str
    #: Its element type: "u8", "i64", "f32", "bf16" ...
    dtype: str
    #: Its shape in elements; -1 where samples differ in length.
    shape: Tuple[int, ...]


#: How a part is cut from what it is a part of: the method of `Source`, its arguments, and which of several parts.
_Cut = Tuple[str, Tuple[Any, ...], Optional[int]]


class Dataset:
    """A packed, sealed data set, or a part of one.

    Args:
        path: the directory that `tierstream pack`, `tierstream.pack` or `tierstream.Writer` wrote.
        key: where the key is: a key file, "env:NAME", "cmd:COMMAND" or a `Key`.
        store: the store to read through, shared with other data sets. Default: one of its own, with `key` and the other
            `settings` of `Store` (passphrase, l1_bytes, l2, l2_bytes, daemon, io_engine, allow_rollback).

    A data set may be pickled and sent to worker processes, and used after a fork: each process opens it for itself when
    it first needs it. `dataset[i]` reads one sample; a `Loader` reads many, faster.
    """

    def __init__(
        self,
        path: Path,
        key: "KeySource | Sequence[KeySource] | None" = None,
        *,
        store: Optional[Store] = None,
        **settings: Any,
    ) -> None:
        self._path = os.path.abspath(os.fspath(path))
        if store is not None and (key is not None or settings):
            raise TypeError("a data set of a store takes no settings of its own: give them to the store")
        self._store = Store(key, _fits=self._path, **settings) if store is None else store
        self._cuts: Tuple[_Cut, ...] = ()
        self._opened: Optional[Source] = None
        self._source()

    def _source(self) -> Source:
        """The data set as opened by this process: a child of a fork opens its own."""
        if self._opened is None or not self._opened.is_ours:
            source = self._store._handle().open(self._path)
            for method, arguments, which in self._cuts:
                made = getattr(source, method)(*arguments)
                source = made if which is None else made[which]
            self._opened = source
        return self._opened

    def _part(self, source: Source, cut: _Cut) -> "Dataset":
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._cuts, part._opened = (*self._cuts, cut), source
        return part

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._source())

    def __getitem__(self, index: int) -> Dict[str, Any]:
        """Sample `index` as a dict of arrays by field, each of its field's shape."""
        length = len(self)
        if index < -length or index >= length:
            raise IndexError(f"sample {index} of {length}")
        return self.__getitems__([int(index) % length])[0]

    def __getitems__(self, indexes: Sequence[int]) -> List[Dict[str, Any]]:
        """These samples, read together: what PyTorch's own DataLoader asks a map-style data set for."""
        return _samples_of(self._source().read([int(index) for index in indexes]))

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        """The samples one by one, in order."""
        for index in range(len(self)):
            yield self[index]

    def subset(self, start: int, end: int) -> "Dataset":
        """Samples `start` to `end - 1` of these, as a data set of their own."""
        return self._part(self._source().subset(start, end), ("subset", (start, end), None))

    def select(self, indexes: Sequence[int]) -> "Dataset":
        """The samples at `indexes` of these, in this order; 8 bytes of memory each."""
        kept = [int(index) for index in indexes]
        return self._part(self._source().select(kept), ("select", (kept,), None))

    def filter(self, keep: Callable[[int, int], bool]) -> "Dataset":
        """The samples for which `keep(number, bytes)` is true, given each one's number and its length in bytes."""
        return self.select(self._source().keep(keep))

    def split(self, ratios: Sequence[float], seed: int = 0) -> List["Dataset"]:
        """Random parts in proportion to `ratios`; every sample is in one of them, the same for the same seed."""
        parts = self._source().split(list(ratios), seed)
        return [self._part(part, ("split", (list(ratios), seed), number)) for number, part in enumerate(parts)]

    @property
    def path(self) -> str:
        """Where it lies."""
        return self._path

    @property
    def store(self) -> Store:
        """What it is read through; give it to the data sets that it is mixed with."""
        return self._store

    @property
    def fields(self) -> List[Field]:
        """Name, element type and shape of each field of a sample."""
        return [Field(name, dtype, tuple(shape)) for name, dtype, shape in self._source().fields()]

    @property
    def info(self) -> Dict[str, Any]:
        """Its id, generation, cipher, shards and sizes in bytes, as `tierstream inspect` says them."""
        return json.loads(self._source().info())

    def metrics(self) -> Dict[str, Any]:
        """What this process's store has counted so far: hits, bytes and latencies of each tier."""
        return self._store.metrics()

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"tierstream.{type(self).__name__}({self._path!r}, {len(self)} samples)"


def _samples_of(batch: Any) -> List[Dict[str, Any]]:
    """A batch as a list of samples: dicts of views."""
    fields = {name: batch[name] for name in batch.fields}
    return [{name: values[index] for name, values in fields.items()} for index in range(len(batch))]


Mixture = Sequence[Union[Tuple[Dataset, float], "Stage"]]


class Stage(NamedTuple):
    """A part of a curriculum: data sets that are mixed by weights for a number of samples."""

    #: Data sets of one store with their weights, which need not sum to 1.
    data_sets: Sequence[Tuple[Dataset, float]]
    #: Samples, over all ranks, after which the next stage begins. None: as many as the data sets have.
    samples: Optional[int] = None
