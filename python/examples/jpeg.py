"""JPEG images through a pool of decoding threads, while the next batches are read and decrypted.

    python examples/jpeg.py SET KEY

SET has the fields `image` ("u8", (-1,)), a JPEG file's bytes, and `label` ("i64", ()). Pillow gives up the interpreter's lock
while it decodes, so that threads do; no image is copied between processes.
"""

import collections
import concurrent.futures
import io
import sys

import numpy as np
import PIL.Image
import torch

import tierstream


def decode(jpeg, side):
    """One image as an array of shape (side, side, 3), u8."""
    image = PIL.Image.open(io.BytesIO(jpeg))
    # A smaller image straight from the file's coefficients: most of the work is left out.
    image.draft("RGB", (side, side))
    return np.asarray(image.convert("RGB").resize((side, side)))


def images(loader, side=224, threads=8, batches_ahead=2):
    """Batches of images (batch, 3, side, side), u8, and labels (batch,), in the loader's order."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        ahead = collections.deque()

        def finished():
            decoding, label = ahead.popleft()
            pixels = np.stack([image.result() for image in decoding])
            return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(label)

        for batch in loader:
            # The samples are views: their batch stays until the last of them is decoded.
            ahead.append(([pool.submit(decode, jpeg, side) for jpeg in batch["image"]], batch["label"]))
            if len(ahead) > batches_ahead:
                yield finished()
        while ahead:
            yield finished()


if __name__ == "__main__":
    dataset = tierstream.Dataset(sys.argv[1], key=sys.argv[2])
    for number, (pixels, label) in enumerate(images(tierstream.Loader(dataset, batch_size=64, shuffle=True))):
        print(number, tuple(pixels.shape), label[:8].tolist())
