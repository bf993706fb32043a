"""Exceptions. Each says what failed and where, and has a hint for the person who reads it."""

from __future__ import annotations

import os
from typing import Optional, Tuple


class Error(Exception):
    """Something failed; the base of all of tierstream's exceptions.

    Attributes:
        kind: what the caller can do about it: "retry", "missing", "corrupt", "full", "misuse", "unsupported", "denied",
            "device", "closed" or "interrupted".
        path: the file or directory where it happened, or None.
        block: kind and number of the sealed block, as in ("data", 3), or None.
        offset: offset in the file in bytes, or None.
        length: length from there in bytes, or None.
        hint: the next step for the person who reads it, or None.
    """

    kind: str = "misuse"
    path: Optional[str] = None
    block: Optional[Tuple[str, int]] = None
    offset: Optional[int] = None
    length: Optional[int] = None
    hint: Optional[str] = None

    def __str__(self) -> str:
        text = str(self.args[0]) if self.args else ""
        return f"{text}\n\nhint: {self.hint}" if self.hint else text


class RetryError(Error, TimeoutError):
    """It may work if tried again: interrupted, busy, timed out."""

    kind = "retry"


class MissingError(Error, FileNotFoundError):
    """There is no such file, key, data set or block."""

    kind = "missing"


class CorruptError(Error, ValueError):
    """The bytes are not what was written: damaged, cut short, moved, rolled back or forged."""

    kind = "corrupt"


class FullError(Error, OSError):
    """No space, memory or slots left."""

    kind = "full"


class MisuseError(Error, ValueError):
    """The request makes no sense and must change."""

    kind = "misuse"


class UnsupportedError(Error, NotImplementedError):
    """Right in principle, but not with this version, kernel or machine."""

    kind = "unsupported"


class DeniedError(Error, PermissionError):
    """Permissions or a read-only file system stand in the way."""

    kind = "denied"


class DeviceError(Error, OSError):
    """A device failed to read or write."""

    kind = "device"


class ClosedError(Error, RuntimeError):
    """The store is shutting down, or belongs to another process."""

    kind = "closed"


class InterruptedError(Error):
    """The user asked to stop."""

    kind = "interrupted"


_BY_KIND = {
    cls.kind: cls
    for cls in (
        RetryError,
        MissingError,
        CorruptError,
        FullError,
        MisuseError,
        UnsupportedError,
        DeniedError,
        DeviceError,
        ClosedError,
        InterruptedError,
    )
}


def of_kind(
    kind: str,
    message: str,
    hint: Optional[str] = None,
    path: Optional["os.PathLike[str]"] = None,
    block: Optional[Tuple[str, int]] = None,
    offset: Optional[int] = None,
    length: Optional[int] = None,
) -> Error:
    """The exception of this kind, with its place."""
    error = _BY_KIND[kind](message)
    error.hint = hint
    error.path = None if path is None else os.fspath(path)
    error.block, error.offset, error.length = block, offset, length
    return error


def misuse(message: str, hint: Optional[str] = None) -> Error:
    """A request that makes no sense."""
    return of_kind("misuse", message, hint)
