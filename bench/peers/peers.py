"""One class per loader: `write` makes its own format of a data set, `batches` delivers one shuffled epoch of packed
batches, `(buffer, offsets)`. Each is set up as its documentation says for random order, at its best known settings."""

import io
import os
import pathlib
import tarfile

import numpy as np

from data import BATCH, packed, samples

#: Bytes of shards and chunks where a format has them: 64 MB, as the formats recommend.
SHARD_BYTES = 64 << 20


class Peer:
    """A loader under test. `warm` is what may be kept from an epoch that was read before."""

    name = ""
    packages = ()
    workers = 0

    def __init__(self, place, kind, megabytes):
        self.path, self.kind, self.megabytes = pathlib.Path(place) / self.format(), kind, megabytes

    def format(self):
        return type(self).name.split("-")[0]

    def write(self):
        raise NotImplementedError

    def prepare(self):
        """Makes the data set if it is not there."""
        if not (self.path / "complete").exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self.write()
            (self.path / "complete").touch()

    def samples(self):
        return samples(self.kind, self.megabytes)

    def open(self):
        """What is opened once."""

    def batches(self, epoch):
        raise NotImplementedError


class Plain:
    """Samples end to end in a file, over a map: what torch's map-style data sets are made of."""

    def __init__(self, path):
        self.offsets = np.load(path / "offsets.npy")
        self.bytes = np.memmap(path / "samples.bin", np.uint8, "r")

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, index):
        return self.bytes[self.offsets[index] : self.offsets[index + 1]]


class Pread(Plain):
    """The same by read calls."""

    def __init__(self, path):
        self.offsets = np.load(path / "offsets.npy")
        self.file = os.open(path / "samples.bin", os.O_RDONLY)

    def __getitem__(self, index):
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return np.frombuffer(os.pread(self.file, end - start, start), np.uint8)


def to_tensors(parts):
    """A collate_fn for torch."""
    import torch

    buffer, offsets = packed(parts)
    return torch.from_numpy(buffer), torch.from_numpy(offsets)


def to_arrays(batches):
    for buffer, offsets in batches:
        yield buffer.numpy(), offsets.numpy()


class TorchMemmap(Peer):
    name = "torch_memmap"
    packages = ("torch",)
    data_set = Plain

    def format(self):
        return "plain"

    def write(self):
        offsets = [0]
        with open(self.path / "samples.bin", "wb", 1 << 22) as file:
            for sample in self.samples():
                file.write(sample)
                offsets.append(offsets[-1] + len(sample))
        np.save(self.path / "offsets.npy", np.array(offsets))

    def open(self):
        self.opened = self.data_set(self.path)

    def batches(self, epoch):
        import torch

        torch.manual_seed(epoch)
        loader = torch.utils.data.DataLoader(
            self.opened, BATCH, shuffle=True, num_workers=self.workers, collate_fn=to_tensors
        )
        return to_arrays(loader)


class TorchMemmap2(TorchMemmap):
    name = "torch_memmap-w2"
    workers = 2


class TorchPread(TorchMemmap):
    name = "torch_pread"
    data_set = Pread


class Mosaic(Peer):
    name = "mosaic"
    packages = ("mosaicml-streaming",)

    def write(self):
        from streaming import MDSWriter

        out = str(self.path / "mds")
        with MDSWriter(out=out, columns={"x": "bytes"}, size_limit=SHARD_BYTES, progress_bar=False) as writer:
            for sample in self.samples():
                writer.write({"x": sample.tobytes()})

    def batches(self, epoch):
        import torch
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        data_set = StreamingDataset(local=str(self.path / "mds"), shuffle=True, shuffle_seed=epoch, batch_size=BATCH)
        collate = lambda parts: to_tensors([np.frombuffer(part["x"], np.uint8) for part in parts])  # noqa: E731
        return to_arrays(torch.utils.data.DataLoader(data_set, BATCH, num_workers=0, collate_fn=collate))


class LitData(Peer):
    name = "litdata"
    packages = ("litdata",)

    def write(self):
        from litdata.streaming.writer import BinaryWriter

        chunks = self.path / "chunks"
        writer = BinaryWriter(cache_dir=str(chunks), chunk_bytes=SHARD_BYTES)
        for number, sample in enumerate(self.samples()):
            writer.add_item(number, sample.tobytes())
        writer.done()
        writer.merge()

    def batches(self, epoch):
        import litdata

        data_set = litdata.StreamingDataset(str(self.path / "chunks"), shuffle=True, seed=epoch)
        collate = lambda parts: to_tensors([np.frombuffer(part, np.uint8) for part in parts])  # noqa: E731
        return to_arrays(litdata.StreamingDataLoader(data_set, batch_size=BATCH, num_workers=0, collate_fn=collate))


class WebDataset(Peer):
    name = "webdataset"
    packages = ("webdataset",)

    def write(self):
        number = 0
        tar, written = None, 0
        for index, sample in enumerate(self.samples()):
            if tar is None or written > SHARD_BYTES:
                if tar is not None:
                    tar.close()
                tar, written = tarfile.open(self.path / f"shard-{number:05}.tar", "w"), 0
                number += 1
            member = tarfile.TarInfo(f"{index:09}.bin")
            member.size = len(sample)
            tar.addfile(member, io.BytesIO(sample.tobytes()))
            written += len(sample)
        tar.close()

    def batches(self, epoch):
        import webdataset

        shards = sorted(str(path) for path in self.path.glob("*.tar"))
        data_set = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=epoch, empty_check=False)
        collate = lambda parts: packed([np.frombuffer(part, np.uint8) for (part,) in parts])  # noqa: E731
        return iter(data_set.shuffle(1000).to_tuple("bin").batched(BATCH, collation_fn=collate))


class Grain(Peer):
    name = "grain"
    packages = ("grain", "array_record")

    def write(self):
        from array_record.python import array_record_module

        writer = array_record_module.ArrayRecordWriter(str(self.path / "samples.array_record"), "group_size:1")
        for sample in self.samples():
            writer.write(sample.tobytes())
        writer.close()

    def open(self):
        import grain

        self.opened = grain.sources.ArrayRecordDataSource(str(self.path / "samples.array_record"))

    def batches(self, epoch):
        import grain

        collate = lambda parts: packed([np.frombuffer(part, np.uint8) for part in parts])  # noqa: E731
        return iter(grain.MapDataset.source(self.opened).shuffle(seed=epoch).to_iter_dataset().batch(BATCH, batch_fn=collate))


class HuggingFace(Peer):
    name = "hf"
    packages = ("datasets",)

    def write(self):
        import datasets

        features = datasets.Features({"x": datasets.Value("binary")})
        made = datasets.Dataset.from_generator(
            lambda: ({"x": sample.tobytes()} for sample in self.samples()),
            features=features,
            cache_dir=str(self.path / "cache"),
        )
        made.save_to_disk(str(self.path / "arrow"))

    def open(self):
        import datasets

        self.opened = datasets.load_from_disk(str(self.path / "arrow"))

    def batches(self, epoch):
        import torch

        torch.manual_seed(epoch)
        collate = lambda parts: to_tensors([np.frombuffer(part["x"], np.uint8) for part in parts])  # noqa: E731
        return to_arrays(torch.utils.data.DataLoader(self.opened, BATCH, shuffle=True, collate_fn=collate))


class Tierstream(Peer):
    """Ours, sealed with SM4-GCM. Warm: everything in L1, as everything is in the page cache for the others."""

    name = "tierstream_python"

    def format(self):
        return "tierstream"

    @property
    def key(self):
        return str(self.path / "key")

    @property
    def l1_bytes(self):
        return int(self.megabytes * 1.3e6) + (64 << 20)

    def write(self):
        import tierstream

        tierstream.Key.generate("peers").save(self.key)
        with tierstream.Writer(self.path / "set", self.key, {"x": ("u8", (-1,))}, shard_bytes=SHARD_BYTES) as writer:
            for sample in self.samples():
                writer.write({"x": sample})

    def open(self):
        import tierstream

        self.opened = tierstream.Dataset(self.path / "set", self.key, l1_bytes=self.l1_bytes)

    def batches(self, epoch):
        import tierstream

        loader = tierstream.Loader(self.opened, batch_size=BATCH, shuffle=True, seed=epoch, num_epochs=1)
        for batch in loader:
            yield batch["x"].values, batch["x"].offsets


PEERS = {
    peer.name: peer
    for peer in (
        TorchMemmap,
        TorchMemmap2,
        TorchPread,
        Mosaic,
        LitData,
        WebDataset,
        Grain,
        HuggingFace,
        Tierstream,
    )
}
