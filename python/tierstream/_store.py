"""The tiers that data sets are read through: memory, fast storage, and where the data sets lie."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Optional, Sequence, Union

from ._errors import misuse
from ._keys import KeySource, open_keys
from ._tierstream import Key, StoreHandle

Path = Union[str, "os.PathLike[str]"]

#: Memory for opened blocks where the user names none, in bytes.
L1_BYTES = 128 << 20


class Store:
    """Memory (L1) and fast storage (L2) that several data sets share. One data set alone needs none of its own making.

    Args:
        key: where the key is: a key file, "env:NAME", "cmd:COMMAND" or a `Key`; several of them while keys are rotated.
            Not needed with `daemon`.
        passphrase: opens a key file that needs one.
        l1_bytes: memory for opened blocks, in bytes. What fits is read and decrypted once.
        l2: directory on fast storage for sealed blocks, or several, over which blocks are striped. One process at a time
            may have it open: many jobs share it through `daemon`.
        l2_bytes: how much of it may be used, in bytes; with several directories, of each.
        daemon: socket of a `tierstream serve`, which then has the keys and the tiers.
        io_engine: "auto", "io_uring", "psync" or "mmap".
        allow_rollback: accept a data set older than one that this L2 has seen.
        block_bytes: stored length of the longest block of any data set to be opened, in bytes. Default: 64 KiB, or what
            the data set has for which the store is made.

    A store may be pickled and used after a fork: each process opens it for itself when it first needs it. Keys do not
    travel: name their source rather than give a `Key`.
    """

    def __init__(
        self,
        key: "KeySource | Sequence[KeySource] | None" = None,
        *,
        passphrase: Optional[str] = None,
        l1_bytes: int = L1_BYTES,
        l2: "Path | Sequence[Path] | None" = None,
        l2_bytes: Optional[int] = None,
        daemon: Optional[Path] = None,
        io_engine: str = "auto",
        allow_rollback: bool = False,
        block_bytes: Optional[int] = None,
        _fits: Optional[str] = None,
    ) -> None:
        if (key is None) == (daemon is None):
            raise misuse(
                "a data set is opened with a key or through a daemon",
                "give key='job.key', or daemon='/run/user/1000/tier'; not both",
            )
        directories = [] if l2 is None else [l2] if isinstance(l2, (str, os.PathLike)) else list(l2)
        if directories and l2_bytes is None:
            raise misuse("l2 without l2_bytes", "say how many bytes of it may be used: l2_bytes=500 << 30")
        self._key = key
        self._passphrase = passphrase
        self._daemon = None if daemon is None else os.fspath(daemon)
        self._settings: Dict[str, Any] = {
            "l1_bytes": l1_bytes,
            "l2": [(os.fspath(directory), l2_bytes) for directory in directories],
            "io_engine": io_engine,
            "allow_rollback": allow_rollback,
            "block_bytes": block_bytes,
            "fits": _fits,
        }
        self._opened: Optional[StoreHandle] = None

    def _handle(self) -> StoreHandle:
        """The store as opened by this process: a child of a fork opens its own."""
        if self._opened is None or not self._opened.is_ours:
            if self._daemon is not None:
                self._opened = StoreHandle.of_daemon(self._daemon)
            else:
                assert self._key is not None
                self._opened = StoreHandle(open_keys(self._key, self._passphrase), **self._settings)
        return self._opened

    def metrics(self) -> Dict[str, Any]:
        """What this process's store has counted so far: hits, bytes and latencies of each tier."""
        return json.loads(self._handle().metrics())

    def __getstate__(self) -> Dict[str, Any]:
        keys = self._key if isinstance(self._key, (list, tuple)) else [self._key]
        if any(isinstance(key, Key) for key in keys):
            raise misuse(
                "what was opened with a Key cannot be sent to another process",
                "name the key's source instead: key='job.key', 'env:NAME' or 'cmd:COMMAND'",
            )
        if self._passphrase is not None:
            raise misuse(
                "what was opened with a passphrase cannot be sent to another process",
                "use a key from 'cmd:COMMAND', or a daemon",
            )
        return {**self.__dict__, "_opened": None}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
