"""Data sets for the tests: small, sealed, and telling which sample is which."""

import os

import numpy as np
import pytest

import tierstream

#: Samples of the token data set, and tokens of each.
SAMPLES, LENGTH = 1000, 96


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher's variables from outside reach a test."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="session")
def key(place):
    path = place / "test.key"
    tierstream.Key.generate("test").save(path)
    return str(path)


@pytest.fixture(scope="session")
def tokens(place, key):
    """Sample i holds the tokens i, i + 1, ... modulo 2^16."""
    source = place / "text"
    source.mkdir()
    values = (np.arange(SAMPLES)[:, None] + np.arange(LENGTH)).astype(np.uint16)
    values.tofile(source / "tokens.bin")
    path = place / "tokens"
    tierstream.pack(source, path, key, sample_bytes=2 * LENGTH, dtype="u16", shard_bytes=40_000, threads=2)
    return str(path)


@pytest.fixture(scope="session")
def files(place, key):
    """File i of 50 holds its number i, i % 7 * 100 + 1 times."""
    source = place / "files"
    source.mkdir()
    for number in range(50):
        (source / f"{number:03}.bin").write_bytes(bytes([number]) * (number % 7 * 100 + 1))
    path = place / "files-set"
    tierstream.pack(source, path, key)
    return str(path)


@pytest.fixture
def dataset(tokens, key):
    return tierstream.Dataset(tokens, key)
