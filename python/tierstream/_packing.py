"""Packing: files in, a sealed data set out."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Optional, Sequence, Union

from . import _tierstream
from ._keys import KeySource, open_keys

Path = Union[str, "os.PathLike[str]"]


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
        cipher: "sm4-gcm", "aes-256-gcm", or "none" for data that need not be secret.
        codec: "zstd" to compress blocks where that pays.
        block_bytes: stored length of a block, in bytes.
        shard_bytes: payload after which a new shard is begun, in bytes.
        overwrite: whether a data set that is there is replaced, as its next generation.
        threads: shards written side by side. Default: one for each CPU.

    Returns what it did: samples, bytes, shards. The data set appears under its name only when it is complete.
    """
    if codec not in (None, "zstd"):
        from ._errors import misuse

        raise misuse(f"codec {codec!r}, expected 'zstd' or None")
    report = _tierstream.pack(
        os.fspath(input),
        os.fspath(output),
        open_keys(key, passphrase),
        sample_bytes=sample_bytes,
        dtype=dtype,
        cipher=cipher,
        compressed=codec is not None,
        block_bytes=block_bytes,
        shard_bytes=shard_bytes,
        overwrite=overwrite,
        threads=threads or os.cpu_count() or 1,
    )
    return json.loads(report)
