"""tierstream feeds training jobs from encrypted data that does not fit in memory.

    import tierstream

    dataset = tierstream.Dataset("set/", key="job.key")
    loader = tierstream.Loader(dataset, batch_size=64, shuffle=True)
    for epoch in range(10):
        for batch in loader:            # {"tokens": array of shape (64, 1024)}
            step(batch["tokens"])
        save(loader.state_dict())       # goes on exactly here: loader.load_state_dict(state)

With PyTorch: `tierstream.torch.DataLoader` gives tensors instead. Importing tierstream imports numpy alone.
"""

from ._dataset import Dataset, Field, Stage
from ._errors import (
    ClosedError,
    CorruptError,
    DeniedError,
    DeviceError,
    Error,
    FullError,
    InterruptedError,
    MissingError,
    MisuseError,
    RetryError,
    UnsupportedError,
)
from ._loader import Loader, Packed, Padded
from ._packing import Writer, pack
from ._ragged import Ragged
from ._store import Store
from ._tierstream import Batch, Key, __version__
from .distributed import rank_and_world_size

__all__ = [
    "Batch",
    "ClosedError",
    "CorruptError",
    "Dataset",
    "DeniedError",
    "DeviceError",
    "Error",
    "Field",
    "FullError",
    "InterruptedError",
    "Key",
    "Loader",
    "MissingError",
    "MisuseError",
    "Packed",
    "Padded",
    "Ragged",
    "RetryError",
    "Stage",
    "Store",
    "UnsupportedError",
    "Writer",
    "__version__",
    "pack",
    "rank_and_world_size",
]
