"""Data sets: opened once per process, whatever forks or pickles them."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union


from ._errors import misuse
from ._keys import KeySource, open_keys
from ._tierstream import Key, Source

Path = Union[str, "os.PathLike[str]"]

#: Memory for opened blocks where the user names none, in bytes.
L1_BYTES = 128 << 20


class Field(NamedTuple):
    """A field of a sample."""

    #: Its name.
    name: str
    #: Its element type: "u8", "i64", "f32", "bf16" ...
    dtype: str
    #: Its shape in elements; -1 where samples differ in length.
    shape: Tuple[int, ...]


class Dataset:
    """A packed, sealed data set.

    Args:
        path: the directory that `tierstream pack`, `tierstream.pack` or `tierstream.Writer` wrote.
        key: where the key is: a key file, "env:NAME", "cmd:COMMAND" or a `Key`; several of them while keys are rotated.
            Not needed with `daemon`.
        passphrase: opens a key file that needs one.
        l1_bytes: memory for opened blocks, in bytes. A data set that fits is read and decrypted once.
        l2: directory on fast storage for sealed blocks, or several, over which blocks are striped. One process at a time
            may have it open: many jobs share it through `daemon`.
        l2_bytes: how much of it may be used, in bytes; with several directories, of each.
        daemon: socket of a `tierstream serve`, which then has the keys and the tiers.
        io_engine: "auto", "io_uring", "psync" or "mmap".
        allow_rollback: accept a data set older than one that this L2 has seen.

    A data set may be pickled and sent to worker processes, and used after a fork: each process opens it for itself when
    it first needs it. Keys do not travel: name their source rather than give a `Key`.
    """

    def __init__(
        self,
        path: Path,
        key: "KeySource | Sequence[KeySource] | None" = None,
        *,
        passphrase: Optional[str] = None,
        l1_bytes: int = L1_BYTES,
        l2: "Path | Sequence[Path] | None" = None,
        l2_bytes: Optional[int] = None,
        daemon: Optional[Path] = None,
        io_engine: str = "auto",
        allow_rollback: bool = False,
    ) -> None:
        if (key is None) == (daemon is None):
            raise misuse(
                "a data set is opened with a key or through a daemon",
                "give key='job.key', or daemon='/run/user/1000/tier'; not both",
            )
        directories = [] if l2 is None else [l2] if isinstance(l2, (str, os.PathLike)) else list(l2)
        if directories and l2_bytes is None:
            raise misuse("l2 without l2_bytes", "say how many bytes of it may be used: l2_bytes=500 << 30")
        self._path = os.path.abspath(os.fspath(path))
        self._key = key
        self._passphrase = passphrase
        self._daemon = None if daemon is None else os.fspath(daemon)
        self._settings = {
            "l1_bytes": l1_bytes,
            "l2": [(os.fspath(directory), l2_bytes) for directory in directories],
            "io_engine": io_engine,
            "allow_rollback": allow_rollback,
        }
        self._opened: Optional[Source] = None
        self._source()

    def _source(self) -> Source:
        """The data set as opened by this process: a child of a fork opens its own."""
        if self._opened is None or not self._opened.is_ours:
            if self._daemon is not None:
                self._opened = Source.of_daemon(self._path, self._daemon)
            else:
                keys = open_keys(self._key, self._passphrase)
                self._opened = Source(self._path, keys, **self._settings)
        return self._opened

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._source())

    @property
    def path(self) -> str:
        """Where it lies."""
        return self._path

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
        return json.loads(self._source().metrics())

    def __getstate__(self) -> Dict[str, Any]:
        keys = self._key if isinstance(self._key, (list, tuple)) else [self._key]
        if any(isinstance(key, Key) for key in keys):
            raise misuse(
                "a data set that was opened with a Key cannot be sent to another process",
                "name the key's source instead: key='job.key', 'env:NAME' or 'cmd:COMMAND'",
            )
        if self._passphrase is not None:
            raise misuse(
                "a data set that was opened with a passphrase cannot be sent to another process",
                "use a key from 'cmd:COMMAND', or a daemon",
            )
        return {**self.__dict__, "_opened": None}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"tierstream.Dataset({self._path!r}, {len(self)} samples)"


