"""The examples do what they say."""

import io
import pathlib
import runpy

import numpy as np
import PIL.Image

import tierstream

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_jpegs_come_decoded_in_order(place, key):
    path = place / "jpeg"
    with tierstream.Writer(path, key, {"image": ("u8", (-1,)), "label": ("i64", ())}) as writer:
        for number in range(50):
            file = io.BytesIO()
            PIL.Image.new("RGB", (40 + number, 60), (number * 5, 0, 255 - number * 5)).save(file, "JPEG")
            writer.write({"image": file.getvalue(), "label": number})
    images = runpy.run_path(str(EXAMPLES / "jpeg.py"))["images"]
    loader = tierstream.Loader(tierstream.Dataset(path, key), batch_size=8, shuffle=True)
    seen = []
    for pixels, labels in images(loader, side=32, threads=3):
        assert pixels.shape[1:] == (3, 32, 32) and len(pixels) == len(labels)
        for image, label in zip(pixels.numpy(), labels.tolist()):
            assert np.abs(image.mean(axis=(1, 2)) - (label * 5, 0, 255 - label * 5)).max() < 8
        seen += labels.tolist()
    assert sorted(seen) == list(range(50)) and seen != sorted(seen)
