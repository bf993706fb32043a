"""Packing: samples or files in, a sealed data set out."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type, Union

import numpy as np

from . import _tierstream
from ._errors import misuse
from ._keys import KeySource, open_keys

Path = Union[str, "os.PathLike[str]"]

_NUMPY = {
    "u8": "<u1",
    "i8": "<i1",
    "u16": "<u2",
    "i16": "<i2",
    "u32": "<u4",
    "i32": "<i4",
    "u64": "<u8",
    "i64": "<i8",
    "f16": "<f2",
    "bf16": "<u2",
    "f32": "<f4",
    "f64": "<f8",
}


class Writer:
    """Writes a data set sample by sample.

        with tierstream.Writer("set/", "job.key", {"image": ("u8", (-1,)), "label": ("i64", ())}) as writer:
            for image, label in samples:
                writer.write({"image": np.frombuffer(image, np.uint8), "label": label})

    The data set appears under its name when the block ends without an exception; else nothing is left behind.

    Args:
        path: the directory to write.
        key: where the key is, as for `Dataset`; of several the first seals.
        fields: of each field its element type ("u8", "i64", "f32", "bf16" ...) and shape; one dimension may be -1.
        cipher: "sm4-gcm", "aes-256-gcm", or "none" for data that need not be secret.
        codec: "zstd" to compress blocks where that pays.
        block_bytes: stored length of a block, in bytes.
        shard_bytes: payload after which a new shard is begun, in bytes.
        overwrite: whether a data set that is there is replaced, as its next generation.
    """

    def __init__(
        self,
        path: Path,
        key: "KeySource | Sequence[KeySource]",
        fields: Mapping[str, Tuple[str, Sequence[int]]],
        *,
        passphrase: Optional[str] = None,
        cipher: str = "sm4-gcm",
        codec: Optional[str] = None,
        block_bytes: int = 64 << 10,
        shard_bytes: int = 256 << 20,
        overwrite: bool = False,
    ) -> None:
        self._fields: List[Tuple[str, str, Tuple[int, ...]]] = [
            (name, dtype, tuple(int(length) for length in shape)) for name, (dtype, shape) in fields.items()
        ]
        self._writer = _tierstream.Writer(
            os.fspath(path),
            open_keys(key, passphrase),
            [(name, dtype, list(shape)) for name, dtype, shape in self._fields],
            cipher=cipher,
            compressed=_compressed(codec),
            block_bytes=block_bytes,
            shard_bytes=shard_bytes,
            overwrite=overwrite,
        )
        #: What was written, once it is finished: samples, shards, bytes.
        self.report: Optional[Dict[str, Any]] = None

    def write(self, sample: Mapping[str, Any], name: Optional[str] = None) -> None:
        """Appends a sample: of each field an array, a number or bytes, of the field's type and shape.

        `name` names the sample; name all or none.
        """
        self._check(sample)
        values = [_bytes(sample[field], field, dtype, shape) for field, dtype, shape in self._fields]
        self._writer.write(values, name)

    def write_batch(self, batch: Mapping[str, Any]) -> None:
        """Appends many samples of fixed shapes at once: of each field an array of shape `(samples, *shape)`."""
        self._check(batch)
        counts = {len(batch[field]) for field, _, _ in self._fields}
        if len(counts) != 1:
            raise misuse(f"fields of {sorted(counts)} samples, expected as many of each")
        count = counts.pop()
        if count:
            values = [
                _bytes(batch[field], field, dtype, (count, *shape)) for field, dtype, shape in self._fields
            ]
            self._writer.write_many(values, count)

    def _check(self, sample: Mapping[str, Any]) -> None:
        names = {field for field, _, _ in self._fields}
        if set(sample) != names:
            raise misuse(f"a sample has the fields {sorted(sample)}, expected {sorted(names)}")

    def finish(self) -> Dict[str, Any]:
        """Ends the data set and gives it its name; returns what was written."""
        self.report = json.loads(self._writer.finish())
        return self.report

    def abort(self) -> None:
        """Ends without a data set."""
        self._writer.abort()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, error: Optional[Type[BaseException]], *_: Any) -> None:
        if error is None:
            self.finish()
        else:
            self.abort()


def _bytes(value: Any, field: str, dtype: str, shape: Tuple[int, ...]) -> bytes:
    """A value as bytes, little endian and row major, after a look at its type and shape."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = np.frombuffer(value, np.uint8)
    wanted = np.dtype(_NUMPY[dtype])
    found = np.asarray(value)
    # Of one and the same kind: floats are not cut to integers, nor wide numbers to narrow ones that cannot hold them.
    if found.dtype != wanted:
        if found.dtype.kind in "iub" and wanted.kind in "iu":
            limits = np.iinfo(wanted)
            if found.size and (int(found.min()) < limits.min or int(found.max()) > limits.max):
                raise misuse(f"field {field!r} has values from {found.min()} to {found.max()}, beyond {dtype}")
        elif not (found.dtype.kind == "f" and wanted.kind == "f") and found.size:
            raise misuse(f"field {field!r} has elements of {found.dtype}, expected {dtype}")
        found = found.astype(wanted)
    fits = len(found.shape) == len(shape) and all(
        expected in (-1, length) for length, expected in zip(found.shape, shape)
    )
    if not fits:
        raise misuse(f"field {field!r} has shape {tuple(found.shape)}, expected {shape}")
    return found.tobytes()


def _compressed(codec: Optional[str]) -> bool:
    if codec not in (None, "zstd"):
        raise misuse(f"codec {codec!r}, expected 'zstd' or None")
    return codec is not None


def pack(
    input: Path,
    output: Path,
    key: "KeySource | Sequence[KeySource]",
    *,
    passphrase: Optional[str] = None,
    sample_bytes: Optional[int] = None,
    dtype: str = "u8",
    cipher: str = "sm4-gcm",
    codec: Optional[str] = None,
    block_bytes: int = 64 << 10,
    shard_bytes: int = 256 << 20,
    overwrite: bool = False,
    threads: Optional[int] = None,
) -> Dict[str, Any]:
    """Packs the files below `input` into a new data set at `output`, as `tierstream pack` does.

    Args:
        sample_bytes: cut the files, laid end to end, into samples of so many bytes of `dtype` elements. Default: each
            file is one sample of bytes.
        threads: shards written side by side. Default: one for each CPU.
        cipher, codec, block_bytes, shard_bytes, overwrite: as for `Writer`.

    Returns what it did: samples, bytes, shards. The data set appears under its name only when it is complete.
    """
    report = _tierstream.pack(
        os.fspath(input),
        os.fspath(output),
        open_keys(key, passphrase),
        sample_bytes=sample_bytes,
        dtype=dtype,
        cipher=cipher,
        compressed=_compressed(codec),
        block_bytes=block_bytes,
        shard_bytes=shard_bytes,
        overwrite=overwrite,
        threads=threads or os.cpu_count() or 1,
    )
    return json.loads(report)
