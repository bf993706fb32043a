"""The two data sets, as every peer gets them: sample i begins with i as an int64, the rest is noise."""

import hashlib

import numpy as np

BATCH = 64
#: Lengths are multiples of 8, so that numbers can be read from a packed batch without a copy.
KINDS = {"tokens": (4096, 8192), "images": (100 << 10, 100 << 10)}


def lengths(kind, megabytes):
    """Length of each sample in bytes: `megabytes` in all."""
    low, high = KINDS[kind]
    count = int(megabytes * 1e6 / ((low + high) / 2))
    if low == high:
        return np.full(count, low, np.int64)
    return np.random.default_rng(7).integers(low // 8, high // 8 + 1, count) * 8


def samples(kind, megabytes):
    """The samples, one array of u8 after the other."""
    seed = int.from_bytes(hashlib.sha256(kind.encode()).digest()[:8], "little")
    noise = np.random.default_rng(seed).integers(0, 256, 64 << 20, dtype=np.uint8)
    at = 0
    for number, length in enumerate(lengths(kind, megabytes)):
        # Pieces of one long noise at changing places: incompressible, and made as fast as it is written.
        at = (at + 999_983 * 8) % (len(noise) - (1 << 20))
        sample = noise[at : at + length].copy()
        sample[:8] = np.frombuffer(np.int64(number).tobytes(), np.uint8)
        yield sample


def numbers_of(buffer, offsets):
    """The numbers of the samples in a packed batch."""
    return buffer.view(np.int64)[np.asarray(offsets)[:-1] >> 3]


def packed(parts):
    """Samples side by side: what every peer is asked to deliver."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    buffer = np.empty(offsets[-1], np.uint8)
    np.concatenate(parts, out=buffer)
    return buffer, offsets
