"""Samples of different lengths, end to end in one array."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np


class Ragged:
    """A field whose samples differ in length, without padding and without a copy.

    Attributes:
        values: all samples' values end to end, shape `(total, ...)`; the known dimensions follow the first.
        offsets: int64 of shape `(len + 1,)`: sample `i` is `values[offsets[i]:offsets[i + 1]]`. Read only.
    """

    __slots__ = ("values", "offsets")

    def __init__(self, values: "np.ndarray[Any, Any]", offsets: "np.ndarray[Any, Any]") -> None:
        self.values = values
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> "np.ndarray[Any, Any]":
        """The array of sample `index`, a view of `values`; negative indices count from the end."""
        length = len(self)
        if index < -length or index >= length:
            raise IndexError(f"sample {index} of {length}")
        index %= length
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> "Iterator[np.ndarray[Any, Any]]":
        for start, end in zip(self.offsets[:-1], self.offsets[1:]):
            yield self.values[start:end]

    @property
    def lengths(self) -> "np.ndarray[Any, Any]":
        """Length of each sample along its first dimension: int64 of shape `(len,)`."""
        return np.diff(self.offsets)

    def padded(self, value: float = 0, length: "int | None" = None) -> "np.ndarray[Any, Any]":
        """A copy of shape `(len, length, ...)`, filled up with `value`. Default length: the longest sample's."""
        lengths = self.lengths
        longest = int(lengths.max(initial=0)) if length is None else length
        if len(lengths) and int(lengths.max()) > longest:
            raise ValueError(f"a sample of length {int(lengths.max())} does not fit {longest}")
        out = np.full((len(self), longest, *self.values.shape[1:]), value, dtype=self.values.dtype)
        out[np.arange(longest) < lengths[:, None]] = self.values
        return out

    def __repr__(self) -> str:
        return f"tierstream.Ragged({len(self)} samples, {self.values.dtype}, {self.values.shape[0]} values)"
