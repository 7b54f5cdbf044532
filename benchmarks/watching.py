"""The cost of watching a step before the first one, in forward passes of the run's own batches.

Watching copies the module, runs its step on at most 8 samples below autograd, and runs its forward once to compare. The
table gives, for networks and batch sizes, the time of watching the training step as a multiple of one forward pass in
training mode, medians of five, single-threaded, and the largest number of copies of the weights that are alive at once.

    python benchmarks/watching.py
"""

import argparse
import gc
import statistics
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.models import MLP, Classifier, ResNet, VisionTransformer
from lit_xai.trainer.watching import forget, watch

NETWORKS = {
    "MLP 784-512-512": (lambda: MLP(784, [512, 512]), (784,)),
    "ResNet-20, width 16": (lambda: ResNet(depth=20, width=16), (3, 32, 32)),
    "ResNet-20, width 64": (lambda: ResNet(depth=20, width=64), (3, 32, 32)),
    "ViT, 128 wide": (lambda: VisionTransformer(image_size=32, patch_size=4), (3, 32, 32)),
}


class Measure(Callback):
    """Measures in ``on_train_start``, where callbacks ask."""

    def __init__(self, repeats: int) -> None:
        self.repeats, self.ratio, self.copies = repeats, 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Time both by turns."""
        batch = next(iter(trainer.train_dataloader))
        watching, forward = [], []
        for _ in range(self.repeats):
            forget(trainer)
            started = time.perf_counter()
            watch(trainer, pl_module, "train")
            watching.append(time.perf_counter() - started)
            started = time.perf_counter()
            pl_module(batch[0])
            forward.append(time.perf_counter() - started)
        gc.collect()
        like = {tuple(p.shape) for p in pl_module.network.parameters()}
        count = sum(1 for one in gc.get_objects() if isinstance(one, torch.nn.Parameter) and tuple(one.shape) in like)
        self.copies = count // sum(1 for _ in pl_module.network.parameters())
        self.ratio = statistics.median(watching) / statistics.median(forward)
        trainer.should_stop = True


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | batch | watching, in forward passes | copies left afterwards |\n|---|---:|---:|---:|")
    for name, (make, shape) in NETWORKS.items():
        for size in options.batch_sizes:
            data = DataLoader(TensorDataset(torch.randn(2 * size, *shape), torch.randint(10, (2 * size,))), size)
            measure = Measure(options.repeats)
            trainer = Trainer(
                max_steps=1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[measure],
            )
            trainer.fit(Classifier(make(), num_classes=10), data)
            print(f"| {name} | {size} | {measure.ratio:.2f} | {measure.copies - 1} |", flush=True)


if __name__ == "__main__":
    main()
