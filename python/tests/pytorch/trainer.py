"""A small training job: `trainer.py SET KEY DIR EPOCHS [KILL_AT]`. Appends a line per step to DIR/losses, saves a checkpoint
every 7 steps, goes on from the one that is there, and kills itself with SIGKILL at step KILL_AT."""

import os
import signal
import sys

import torch

import tierstream
from tierstream.torch import DataLoader


def model():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def main(path, key, directory, epochs, kill_at=None):
    torch.set_num_threads(1)
    net = model()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(tierstream.Dataset(path, key), batch_size=32, shuffle=True, seed=11, num_epochs=epochs)
    checkpoint, step = os.path.join(directory, "checkpoint"), 0
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint, weights_only=False)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        loader.load_state_dict(saved["loader"])
        step = saved["step"]
    with open(os.path.join(directory, "losses"), "a", buffering=1) as losses:
        for _ in range(loader.epoch, epochs):
            for batch in loader:
                loss = torch.nn.functional.cross_entropy(net(batch["image"]), batch["label"])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1
                losses.write(f"{step} {loss.item().hex()}\n")
                if step % 7 == 0:
                    saved = {
                        "net": net.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "loader": loader.state_dict(),
                        "step": step,
                    }
                    torch.save(saved, checkpoint + ".new")
                    os.replace(checkpoint + ".new", checkpoint)
                if step == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), *map(int, sys.argv[5:]))
