"""A real training: as good as with torch's own DataLoader, and the same to the last bit when it is killed and goes on."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.utils.data
from sklearn.datasets import load_digits

import tierstream
import trainer
from tierstream.torch import DataLoader


@pytest.fixture(scope="module")
def digits(place, key):
    """sklearn's 1797 handwritten digits of 8 x 8 pixels, for training and for testing: two data sets of one store."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    paths = []
    for name, part in (("train", order[:1500]), ("test", order[1500:])):
        path = place / f"digits-{name}"
        with tierstream.Writer(path, key, {"image": ("f32", (64,)), "label": ("i64", ())}) as writer:
            writer.write_batch({"image": bunch.data[part].astype(np.float32) / 16, "label": bunch.target[part]})
        paths.append(str(path))
    return paths


def train(loader, epochs=12):
    torch.set_num_threads(1)
    net = trainer.model()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(epochs):
        for image, label in loader:
            loss = torch.nn.functional.cross_entropy(net(image), label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return net, losses


def accuracy(net, images, labels):
    with torch.no_grad():
        return (net(images).argmax(1) == labels).float().mean().item()


def test_training_reaches_what_it_reaches_with_torchs_loader(digits, key):
    ours = DataLoader(tierstream.Dataset(digits[0], key), batch_size=32, shuffle=True, output="tuple")
    images, labels = next(iter(DataLoader(tierstream.Dataset(digits[0], key), batch_size=1500, output="tuple")))
    held_out = next(iter(DataLoader(tierstream.Dataset(digits[1], key), batch_size=297, output="tuple")))
    plain = torch.utils.data.TensorDataset(images, labels)
    theirs = torch.utils.data.DataLoader(plain, batch_size=32, shuffle=True)
    reached = [accuracy(train(loader)[0], *held_out) for loader in (ours, theirs)]
    print(f"accuracy with tierstream {reached[0]:.4f}, with torch's DataLoader {reached[1]:.4f}")
    assert min(reached) > 0.94 and reached[0] > reached[1] - 0.02


def test_the_same_order_gives_the_same_losses(digits, key):
    dataset = tierstream.Dataset(digits[0], key)
    ours = DataLoader(dataset, batch_size=32, shuffle=True, output="tuple", seed=3)
    raw = tierstream.Loader(dataset, batch_size=32, shuffle=True, output="batch", seed=3, num_epochs=3)
    order = [batch.sample_ids.tolist() for batch in raw.stream()]
    plain = torch.utils.data.TensorDataset(
        *next(iter(DataLoader(dataset, batch_size=1500, output="tuple")))
    )
    theirs = torch.utils.data.DataLoader(plain, batch_sampler=order)
    assert train(ours, epochs=3)[1] == train(theirs, epochs=1)[1]


def test_killed_in_an_epoch_it_goes_on_with_an_identical_loss_curve(digits, key, tmp_path):
    def run(directory, *kill_at):
        directory.mkdir(exist_ok=True)
        command = [sys.executable, trainer.__file__, digits[0], key, str(directory), "4", *map(str, kill_at)]
        return subprocess.run(command, timeout=120).returncode

    def curve(directory):
        steps = [line.split() for line in (directory / "losses").read_text().splitlines()]
        return {int(step): loss for step, loss in steps}, [int(step) for step, _ in steps]

    shared = sorted(os.listdir("/dev/shm"))
    assert run(tmp_path / "whole") == 0
    for kill_at in (60, 117):
        assert run(tmp_path / "killed", kill_at) == -signal.SIGKILL
        assert sorted(os.listdir("/dev/shm")) == shared
    assert run(tmp_path / "killed") == 0
    whole, killed = curve(tmp_path / "whole"), curve(tmp_path / "killed")
    assert len(whole[0]) == 4 * 47 and killed[0] == whole[0]
    # It went on at the checkpoints, not from the start: the steps since the last one were done twice.
    assert killed[1] == [*range(1, 61), *range(57, 118), *range(113, 189)]
