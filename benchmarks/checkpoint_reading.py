"""Seconds to read a good checkpoint, checked to its last byte, against torch's own reading of the same file.

A file of a module and its Adam, 240 MB, in the cache of the disk. Ways alternate; figures are medians, and ratios are
medians of the ratios within one run. Checks are not remembered between runs: the file's time stamp is new each time.
Ends with an error where a reading costs more than 2.5 times torch's.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_xai import load_from_checkpoint
from lit_xai.structure.archive import check_archive
from lit_xai.structure.checkpoints import read_checkpoint

LAYERS, WIDTH, RUNS, MOST = 20, 1000, 11, 2.5


class Net(LightningModule):
    """Layers of 4 MB each."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))


def save(path: Path) -> None:
    """Write a checkpoint with the weights and two moments of each."""
    trainer, module = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False), Net()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path)
    moments = {name: [torch.randn_like(w), torch.rand_like(w)] for name, w in module.state_dict().items()}
    torch.save({**checkpoint, "optimizer_states": [{"state": moments, "param_groups": []}]}, path)


def seconds(way: Callable[[Path], object], path: Path) -> float:
    """Return the seconds of one reading of a file that was not checked before."""
    path.touch()  # a new time stamp: the check is not remembered
    start = perf_counter()
    way(path)
    return perf_counter() - start


WAYS: dict[str, Callable[[Path], object]] = {
    "torch.load": lambda path: torch.load(path, weights_only=True),
    "MyModule.load_from_checkpoint": Net.load_from_checkpoint,
    "the checks alone": check_archive,
    "read_checkpoint (--ckpt_path, --init_from)": read_checkpoint,
    "lit_xai.load_from_checkpoint": lambda path: load_from_checkpoint(Net, path),
}


def main() -> None:
    """Print a table and compare with the limit."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ckpt"
        save(path)
        sleep(1)
        for way in WAYS.values():
            seconds(way, path)  # warm-up
        runs = [{name: seconds(way, path) for name, way in WAYS.items()} for _ in range(RUNS)]
        gigabytes = path.stat().st_size / 1e9
    print(f"{gigabytes * 1000:.0f} MB, {RUNS} runs, one thread\n")
    print("| way | s per GB | times torch.load | times Lightning's |")
    print("|:--|--:|--:|--:|")
    times = {}
    for name in WAYS:
        ratios = [median(run[name] / run[base] for run in runs) for base in list(WAYS)[:2]]
        times[name] = ratios
        print(f"| {name} | {median(run[name] for run in runs) / gigabytes:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    reading, loading = times["read_checkpoint (--ckpt_path, --init_from)"][0], times["lit_xai.load_from_checkpoint"][1]
    if max(reading, loading) > MOST:
        sys.exit(f"reading costs {reading:.2f} times torch.load, loading {loading:.2f} times Lightning's: over {MOST}")


if __name__ == "__main__":
    main()
