"""What a monitor adds to an epoch in which it has nothing to do, and to one in which it shows its figure.

Whole epochs differ by some percent from fit to fit, so the time inside the monitor's own hook is given as well.

    python benchmarks/monitor.py [--repeats 7]

One thread, medians of alternating fits of a small residual network on the digits; a fit without a monitor runs beside.
"""

import argparse
import logging
import tempfile
import time
import warnings
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from lit_xai.callbacks import AttributionMonitor
from lit_xai.data import Digits
from lit_xai.models import Classifier, ResNet

EPOCHS = 4


class Timed(AttributionMonitor):
    """Measures its own hook."""

    hook_seconds: float = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what it does, timed."""
        start = time.perf_counter()
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.current_epoch == 1:
            self.hook_seconds = time.perf_counter() - start


class EpochTimes(Callback):
    """Measures epochs from start to start; comes last, so that every other callback's work is inside."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: object, pl_module: object) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: object, pl_module: object) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.start)


def epoch_seconds(monitor: AttributionMonitor | None) -> float:
    """Fit once and return the median second of an epoch, the first and the last left out."""
    seed_everything(0, verbose=False)
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=EPOCHS,
            callbacks=[*([monitor] if monitor else []), times],
            accelerator="cpu",
            logger=False,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Classifier(ResNet(8, in_channels=1), num_classes=10), datamodule=Digits(batch_size=64))
    return median(times.seconds[1:-1])


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cases = {
        "none": lambda: None,
        "nothing to do": lambda: Timed(every_n_epochs=EPOCHS),
        "every epoch": lambda: Timed(attribute_args={"n_steps": 32}),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    inside: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, monitor in cases.items():
            watched = monitor()
            found = epoch_seconds(watched)
            if repeat:  # the first round warms up
                seconds[name].append(found)
                inside[name].append(watched.hook_seconds if watched else 0.0)
    plain = median(seconds["none"])
    print(f"an epoch of ResNet-8 on the digits, 1 thread, medians of {repeats} fits: {plain:.2f} s")
    for name in list(cases)[1:]:
        share = median(inside[name]) / plain
        print(
            f"{name:16}{median(seconds[name]) / plain:6.3f} times as long, {share:.3%} of an epoch inside the monitor"
        )


if __name__ == "__main__":
    main()
