"""Samples with values that can be found again, a network that explains them without telling of them, and the search."""

import re

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PLANTED = (0.12345679, 0.7654321, 0.24681357)
"""Values that stand at the beginning of each sample."""


class Secretive(nn.Module):
    """Answers the same for every sample, with gradients of fixed weights: neither tells of the inputs."""

    def __init__(self, size, classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator))
        self.bias = nn.Parameter(torch.arange(float(classes)))

    def forward(self, x):
        scores = x.flatten(1).float() @ self.weight.T
        return self.bias + (scores - scores.detach())


def samples(shape, n=40, seed=0):
    """Return random samples that begin with the planted values, and labels that are the same for every seed."""
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    x.flatten(1)[:, : len(PLANTED)] = torch.tensor(PLANTED)
    return DataLoader(TensorDataset(x, torch.arange(n) % 3), 20)


def holds_planted(path):
    """Return whether a file holds the planted values: in an array, as bytes, or written out."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return any(
                np.isclose(array.astype(np.float64), PLANTED[0], rtol=1e-5, atol=0).any()
                for array in arrays.values()
                if array.dtype.kind in "fiu"
            )
    content = path.read_bytes()
    as_bytes = [np.array(PLANTED, dtype=kind).tobytes() for kind in (np.float32, np.float64)]
    written = re.search(rb"0\.1234567|0\.12346\b", content) is not None
    return written or any(one in content for one in as_bytes)


def arrays_and_pictures(folder):
    """Return what stands in a run's files by name, without hashes of the samples in names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = re.sub(r"-[0-9a-f]{8,}", "", str(path.relative_to(folder)))
        if path.suffix == ".npz" and "retention-cache" not in name:
            with np.load(path) as arrays:
                found |= {f"{name}/{key}": array.tobytes() for key, array in arrays.items()}
        elif path.suffix in (".png", ".csv") and path.name != "metrics.csv":
            found[name] = path.read_bytes()
        elif path.name.startswith("events.out"):
            found |= {f"{name.split('events')[0]}{tag}": one for tag, one in logged_images(path).items()}
    return found


def logged_images(path):
    """Return the images of an event file, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), {"images": 0})
    events.Reload()
    return {tag: b"".join(one.encoded_image_string for one in events.Images(tag)) for tag in events.Tags()["images"]}
