"""The extension module. Its classes are used through the package."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

__version__: str

class Key:
    """A root key: opens what was sealed under it. Wiped from memory when it is dropped; never pickled."""

    @staticmethod
    def generate(name: str) -> Key:
        """A fresh key of 256 bits called `name`, from the kernel's generator."""
    @staticmethod
    def from_file(path: Any, passphrase: Optional[str] = None) -> Key:
        """The key in the file at `path`, which only its owner may read."""
    @staticmethod
    def from_text(text: str, passphrase: Optional[str] = None) -> Key:
        """The key whose text form is `text`."""
    def save(self, path: Any, passphrase: Optional[str] = None) -> None:
        """Writes the key to a new file that only its owner may read, under `passphrase` if one is given."""
    @property
    def id(self) -> str:
        """Name, version and fingerprint; says nothing of the key itself."""

class Array:
    """Exports memory of a batch: `numpy.asarray(array)`, `torch.from_dlpack(array)`, without a copy."""

    @property
    def __array_interface__(self) -> Dict[str, Any]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> Tuple[int, ...]: ...
    def __dlpack__(
        self,
        *,
        stream: Optional[int] = None,
        max_version: Optional[Tuple[int, int]] = None,
        dl_device: Optional[Tuple[int, int]] = None,
        copy: Optional[bool] = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> Tuple[int, int]: ...

class Batch:
    """Samples as arrays: the raw form of a batch, for `output="batch"`. `batch[name]` is a field's array, or a `Ragged`."""

    def __len__(self) -> int: ...
    def __getitem__(self, name: str) -> Any: ...
    @property
    def epoch(self) -> int:
        """The epoch it belongs to, from 0."""
    @property
    def number(self) -> int:
        """Its number in the epoch, from 0."""
    @property
    def sample_ids(self) -> npt.NDArray[np.int64]:
        """Numbers of the samples in their data set, shape `(len,)`. Read only."""
    @property
    def sources(self) -> List[int]:
        """The number of each sample's data set among those that are mixed; empty where there is one."""
    @property
    def fields(self) -> Tuple[str, ...]:
        """Names of the fields, in the schema's order."""
    def arrays(self) -> Dict[str, Any]:
        """The exporters of all fields by name, `(values, offsets)` for ragged ones: for `from_dlpack`."""
    def as_dict(self) -> Dict[str, Any]:
        """The fields by name, as arrays that share the batch's memory."""
    def as_tuple(self) -> Tuple[Any, ...]:
        """The fields in the schema's order."""

class StoreHandle:
    def __init__(
        self,
        keys: Sequence[Key],
        *,
        l1_bytes: int,
        l2: Sequence[Tuple[str, Optional[int]]],
        io_engine: str,
        allow_rollback: bool,
        block_bytes: Optional[int] = None,
        fits: Optional[str] = None,
    ) -> None: ...
    @staticmethod
    def of_daemon(socket: str) -> StoreHandle: ...
    def open(self, location: str) -> Source: ...
    def metrics(self) -> str: ...
    @property
    def is_ours(self) -> bool: ...

class Source:
    def __len__(self) -> int: ...
    def fields(self) -> List[Tuple[str, str, List[int]]]: ...
    def info(self) -> str: ...
    def subset(self, start: int, end: int) -> Source: ...
    def select(self, indexes: Sequence[int]) -> Source: ...
    def split(self, ratios: Sequence[float], seed: int) -> List[Source]: ...
    def keep(self, keep: Callable[[int, int], bool]) -> List[int]: ...
    def read(self, indexes: Sequence[int]) -> Batch: ...
    @property
    def is_ours(self) -> bool: ...

class Engine:
    def __init__(
        self, stages: Sequence[Tuple[Sequence[Tuple[Source, float]], Optional[int]]], settings: Dict[str, Any]
    ) -> None: ...
    def next(self, output: str, one_epoch: bool, timeout: Optional[float], stall_warning: float) -> Any: ...
    def begin_epoch(self, epoch: int) -> None: ...
    def state(self) -> str: ...
    def batches_left(self) -> int: ...
    def batches_per_epoch(self) -> int: ...
    def counts(self) -> Tuple[int, int]: ...
    @property
    def is_ours(self) -> bool: ...

class Writer:
    def __init__(
        self,
        output: str,
        keys: Sequence[Key],
        fields: Sequence[Tuple[str, str, Sequence[int]]],
        *,
        cipher: str,
        compressed: bool,
        block_bytes: int,
        shard_bytes: int,
        overwrite: bool,
    ) -> None: ...
    def write(self, values: Sequence[bytes], name: Optional[str] = None) -> None: ...
    def write_many(self, values: Sequence[bytes], count: int) -> None: ...
    def finish(self) -> str: ...
    def abort(self) -> None: ...

def pack(
    input: str,
    output: str,
    keys: Sequence[Key],
    *,
    sample_bytes: Optional[int],
    dtype: str,
    cipher: str,
    compressed: bool,
    block_bytes: int,
    shard_bytes: int,
    overwrite: bool,
    threads: int,
) -> str: ...
