"""Opening data sets, and what errors tell."""

import os
import pathlib
import pickle
import shutil

import pytest

import tierstream


def test_a_data_set_says_what_is_in_it(dataset, files, key):
    assert len(dataset) == 1000
    assert dataset.fields == [tierstream.Field("tokens", "u16", (96,))]
    info = dataset.info
    assert info["cipher"] == "sm4-gcm" and info["records"] == 1000 and len(info["shards"]) > 1
    assert tierstream.Dataset(files, key).fields == [tierstream.Field("data", "u8", (-1,))]
    assert dataset.metrics()["tiers"]["l1"]["hits"] == 0


@pytest.mark.parametrize("engine", ["auto", "psync", "mmap"])
def test_every_engine_reads_the_same(tokens, key, engine):
    loader = tierstream.Loader(tierstream.Dataset(tokens, key, io_engine=engine), batch_size=100)
    assert [int(batch["tokens"][0, 5]) for batch in loader] == [100 * number + 5 for number in range(10)]


def test_errors_carry_kind_place_and_hint(tmp_path, tokens, key):
    with pytest.raises(tierstream.MissingError) as missing:
        tierstream.Dataset(tmp_path / "none", key)
    assert missing.value.kind == "missing" and "none" in missing.value.path
    assert "hint:" in str(missing.value) and missing.value.hint
    assert isinstance(missing.value, FileNotFoundError) and isinstance(missing.value, tierstream.Error)

    other = tmp_path / "other.key"
    tierstream.Key.generate("other").save(other)
    with pytest.raises(tierstream.Error, match="wrapped under key"):
        tierstream.Dataset(tokens, other)
    with pytest.raises(tierstream.MisuseError, match="unknown I/O engine"):
        tierstream.Dataset(tokens, key, io_engine="magnetic")
    with pytest.raises(tierstream.MisuseError, match="l2_bytes"):
        tierstream.Dataset(tokens, key, l2=tmp_path)
    with pytest.raises(tierstream.MisuseError, match="key or through a daemon"):
        tierstream.Dataset(tokens)
    again = pickle.loads(pickle.dumps(missing.value))
    assert (again.kind, again.path, again.hint) == ("missing", missing.value.path, missing.value.hint)


def test_a_damaged_block_is_named_and_never_given_out(tmp_path, tokens, key):
    path = tmp_path / "damaged"
    shutil.copytree(tokens, path)
    shard = sorted(path.glob("shard-*.tss"))[2]
    with open(shard, "r+b") as file:
        file.seek(8192)
        byte = file.read(1)
        file.seek(8192)
        file.write(bytes([byte[0] ^ 1]))
    loader = tierstream.Loader(tierstream.Dataset(path, key), batch_size=10)
    seen = 0
    with pytest.raises(tierstream.CorruptError) as corrupt:
        for batch in loader:
            seen += len(batch["tokens"])
    assert 0 < seen < 1000
    skipping = tierstream.Loader(tierstream.Dataset(path, key), batch_size=10, on_corrupt="skip")
    left = sum(len(batch["tokens"]) for batch in skipping)
    assert left < 1000 and left + skipping.skipped_samples == 1000
    assert shard.name in corrupt.value.path and corrupt.value.kind == "corrupt"
    assert isinstance(corrupt.value, ValueError)


def test_keys_come_from_files_variables_and_commands(tokens, key, monkeypatch, tmp_path):
    text = pathlib.Path(key).read_text()
    monkeypatch.setenv("A_KEY", text)
    for source in ("env:A_KEY", f"cmd:cat {key}", f"file:{key}", tierstream.Key.from_text(text)):
        assert len(tierstream.Dataset(tokens, source)) == 1000
    other = tierstream.Key.generate("other")
    assert len(tierstream.Dataset(tokens, [other, key])) == 1000
    for source, words in (
        ("env:NO_SUCH", "NO_SUCH is not set"),
        ("cmd:echo s3cret; echo why >&2; exit 3", "exit code 3: why"),
        (str(tmp_path / "none.key"), "keys new"),
    ):
        with pytest.raises(tierstream.Error, match=words) as error:
            tierstream.Dataset(tokens, source)
        assert "s3cret" not in str(error.value)


def test_a_key_shows_nothing_of_itself(key, tmp_path):
    opened = tierstream.Key.from_file(key)
    secret = [line for line in pathlib.Path(key).read_text().split("\n") if line.startswith("root")][0].split()[-1]
    assert secret not in repr(opened) and secret not in opened.id
    with pytest.raises(tierstream.MisuseError, match="pickle"):
        pickle.dumps(opened)
    assert os.stat(key).st_mode & 0o777 == 0o600
    sealed = tmp_path / "sealed.key"
    opened.save(sealed, passphrase="correct horse")
    assert tierstream.Key.from_file(sealed, passphrase="correct horse").id == opened.id
    with pytest.raises(tierstream.MisuseError, match="passphrase"):
        tierstream.Key.from_file(sealed)
    with pytest.raises(tierstream.Error):
        tierstream.Key.from_file(sealed, passphrase="wrong horses")
    with pytest.raises(tierstream.MisuseError, match="never overwritten"):
        opened.save(sealed)
