"""Whether the callbacks' defaults keep standard training recipes whole: recipes x networks x seeds, nothing clipped.

    python benchmarks/recipes.py [--data-dir data] [--part float|qat|distillation] [--jobs 2]
    python benchmarks/recipes.py --table

20,000 images of Fashion-MNIST, averaged down to 14 x 14, for 8 epochs: one thread and 20 to 40 seconds a run. It goes
on where it stopped: each finished run is a line of --out, and the last line of a run counts.

``float``: no callback. ``qat``: QuantizationAwareTraining with its defaults, from a quarter, a half and 0.7 of the run
on. ``distillation``: KnowledgeDistillation with its defaults, from a ResNet-14 of width 16 that was trained on all
60,000 images and is better than every student. Further arguments of the two callbacks: --options.

A run with QAT continues the checkpoint of the float run, where there is one, at the epoch in which quantization begins:
bit for bit what a run with the callback from the first epoch on comes to, since batches are drawn by seed and epoch.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _cells import Cell, read_cells, run_cells
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from pruning_quality import accuracy, be_quiet
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.utils.data import DataLoader, Sampler

from lit_xai.callbacks import KnowledgeDistillation, QuantizationAwareTraining
from lit_xai.data import FashionMNIST
from lit_xai.models import Classifier, ResNet
from lit_xai.trainer.scheduling import resolve

EPOCHS, IMAGES, BATCH = 8, 20000, 128
STARTS = (0.25, 0.5, 0.7)
TEACHER_EPOCHS = 5
MOST_OF_MEAN, MOST_OF_RUN = 0.01, 0.03
"""What the mean over seeds, and a single run, may lose against the run without the callback."""

sgd = partial(SGD, lr=0.1, momentum=0.9, nesterov=True)
RECIPES: dict[str, dict[str, Any]] = {
    "SGD one-cycle": {"optimizer": sgd, "lr_scheduler": partial(OneCycleLR, max_lr=0.1)},
    "SGD cosine": {"optimizer": sgd, "lr_scheduler": CosineAnnealingLR},
    "AdamW": {"optimizer": partial(AdamW, lr=3e-3), "lr_scheduler": CosineAnnealingLR},
}


# --- networks ---------------------------------------------------------------------------------------------------------


def resnet() -> nn.Module:
    """Return a ResNet-8."""
    return ResNet(8, width=12, stem_stride=2, in_channels=1)


def negative_gammas() -> nn.Module:
    """Return a ResNet-8 in which every second channel of a BatchNorm begins with a negative factor."""
    network = resnet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight[::2].detach(), -1.0)
    return network


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution and its BatchNorm."""
    padding = kernel // 2
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


def vgg() -> nn.Module:
    """Return a VGG of five convolutions."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (8, "pool", 16, 16, "pool", 32, 32):
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [*conv(channels, width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def mobilenet() -> nn.Module:
    """Return a MobileNet of three depthwise separable convolutions."""
    layers, channels = [*conv(1, 16), nn.ReLU6()], 16
    for width, stride in ((32, 2), (48, 1), (96, 2)):
        layers += [*conv(channels, channels, 3, stride, channels), nn.ReLU6(), *conv(channels, width, 1), nn.ReLU6()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-8": resnet,
    "VGG": vgg,
    "MobileNet": mobilenet,
    "negative gammas": negative_gammas,
}

# --- data -------------------------------------------------------------------------------------------------------------


@lru_cache
def images(data_dir: str, train: bool) -> tuple[Tensor, Tensor]:
    """Return normalized images ``(N, 1, 14, 14)`` and labels, training or test."""
    module = FashionMNIST(data_dir=data_dir, val_size=0, augment=False)
    module.prepare_data()
    module.setup()
    dataset = (module.train_dataloader() if train else module.test_dataloader()).dataset
    x, y = dataset.__getitems__(list(range(len(dataset))))
    return nn.functional.avg_pool2d(x, 2), y


def test_batches(data_dir: str) -> list[tuple[Tensor, Tensor]]:
    """Return the test images in batches."""
    return list(zip(*(part.split(500) for part in images(data_dir, False)), strict=True))


class Samples(torch.utils.data.Dataset):
    """Samples in memory, a batch being one indexing operation."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.x[indices], self.y[indices]


class Order(Sampler[int]):
    """A random order by seed and epoch, so that a resumed run sees the batches that one in a single piece sees."""

    def __init__(self, n: int, seed: int, trainer: Trainer) -> None:
        self.n, self.seed, self.trainer = n, seed, trainer

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1000 * self.seed + self.trainer.current_epoch)
        return iter(torch.randperm(self.n, generator=generator).tolist())


def _as_it_is(batch: Any) -> Any:
    return batch


# --- runs -------------------------------------------------------------------------------------------------------------


def fit(
    make: Callable[[], nn.Module],
    recipe: str,
    seed: int,
    args: argparse.Namespace,
    callbacks: list[Any],
    *,
    ckpt_path: Path | None = None,
    epochs: int = EPOCHS,
    size: int = IMAGES,
) -> nn.Module:
    """Train a network by a recipe, and return it."""
    seed_everything(seed, verbose=False)
    module = Classifier(make(), 10, lr_scheduler_interval="step", **RECIPES[recipe])
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=callbacks,
        default_root_dir=args.work_dir,
    )
    x, y = images(args.data_dir, True)
    order = Order(size, seed, trainer)
    batches = DataLoader(Samples(x[:size], y[:size]), BATCH, sampler=order, drop_last=True, collate_fn=_as_it_is)
    trainer.fit(module, batches, ckpt_path=ckpt_path)
    return module.network


def checkpoints(cell: Cell, args: argparse.Namespace) -> Path:
    """Return the folder of a float run's checkpoints."""
    return Path(args.work_dir, f"{cell['network']}-{cell['recipe']}-{cell['seed']}".replace(" ", "_"))


def run_float(cell: Cell, args: argparse.Namespace) -> list[Any]:
    """Return what keeps the checkpoints that runs with QAT continue."""
    return [ModelCheckpoint(checkpoints(cell, args), "{epoch}", save_top_k=-1, enable_version_counter=False)]


def run_qat(cell: Cell, args: argparse.Namespace) -> list[Any]:
    """Return the callback."""
    return [QuantizationAwareTraining(cell["start"], **json.loads(cell.get("options", "{}")))]


def run_distillation(cell: Cell, args: argparse.Namespace) -> list[Any]:
    """Return the callback; its teacher runs once for all students, since images are not augmented."""
    logits = str(Path(args.work_dir, "teacher-logits.pt"))
    return [KnowledgeDistillation(teacher(args), cache=logits, **json.loads(cell.get("options", "{}")))]


RUNS = {"float": run_float, "qat": run_qat, "distillation": run_distillation}


def start(cell: Cell, args: argparse.Namespace) -> Path | None:
    """Return the checkpoint of the float run at the epoch in which quantization begins, ``None`` if there is none."""
    if cell["part"] != "qat":
        return None
    path = checkpoints(cell, args) / f"epoch={resolve(cell['start'], EPOCHS, 'start_epoch') - 1}.ckpt"
    return path if path.exists() else None


def teacher(args: argparse.Namespace) -> nn.Module:
    """Return the teacher, trained once."""
    path = Path(args.work_dir, "teacher.pt")
    make = partial(ResNet, 14, width=16, in_channels=1)
    if not path.exists():
        network = fit(make, "SGD one-cycle", 0, args, [], epochs=TEACHER_EPOCHS, size=60000)
        torch.save(network.state_dict(), path.with_suffix(f".{os.getpid()}"))
        path.with_suffix(f".{os.getpid()}").replace(path)
    network = make()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def measure(cell: Cell, args: argparse.Namespace) -> Cell:
    """Make one run, in a process of its own."""
    be_quiet()
    callbacks = RUNS[cell["part"]](cell, args)
    network = fit(NETWORKS[cell["network"]], cell["recipe"], cell["seed"], args, callbacks, ckpt_path=start(cell, args))
    return {**cell, "accuracy": accuracy(network, test_batches(args.data_dir))}


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """Yield what identifies each run, seeds first, so that whatever is there by an early end covers everything."""
    for seed in args.seeds:
        for part in args.part or list(RUNS):
            for network in args.networks:
                for recipe in args.recipes:
                    for start_epoch in args.starts if part == "qat" else [None]:
                        cell: Cell = {"part": part, "network": network, "recipe": recipe, "seed": seed}
                        options = {} if args.options == "{}" or part == "float" else {"options": args.options}
                        yield cell | options | ({} if start_epoch is None else {"start": start_epoch})


def report(done: list[Cell]) -> None:
    """Print the mean and the worst run of each cell against the runs without the callback."""
    runs: dict[tuple[Any, ...], dict[int, float]] = {}
    for line in done:  # the last line of a run counts
        group = (line["part"], line.get("options", ""), line["network"], line["recipe"], line.get("start"))
        runs.setdefault(group, {})[line["seed"]] = line["accuracy"]
    alone = {group[2:4]: seeds for group, seeds in runs.items() if group[0] == "float"}
    print(f"{'':60}{'seeds':>6}{'alone %':>9}{'with %':>9}{'mean':>8}{'worst':>8}")
    verdicts = []
    for group, seeds in sorted(runs.items(), key=lambda item: [str(part) for part in item[0]]):
        title = " ".join(str(part) for part in group if part not in ("", None))
        reference = {seed: value for seed, value in alone.get(group[2:4], {}).items() if seed in seeds}
        if group[0] == "float" or not reference:
            print(f"{title:60}{len(seeds):6}{100 * mean(seeds.values()):9.2f}  lowest {100 * min(seeds.values()):.2f}")
            continue
        differences = [seeds[seed] - value for seed, value in reference.items()]
        holds = mean(differences) >= -MOST_OF_MEAN and min(differences) >= -MOST_OF_RUN
        verdicts.append(holds)
        means = mean(reference.values()), mean(seeds[seed] for seed in reference)
        row = f"{title:60}{len(reference):6}{100 * means[0]:9.2f}{100 * means[1]:9.2f}"
        print(f"{row}{100 * mean(differences):+8.2f}{100 * min(differences):+8.2f}{'' if holds else '  harmed'}")
    print(f"{sum(verdicts)} of {len(verdicts)} cells hold: mean within 1 point, no run more than 3 below")


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", default="logs/recipes", help="of checkpoints and the teacher")
    parser.add_argument("--out", default="logs/recipes/results.jsonl")
    parser.add_argument("--part", choices=tuple(RUNS), action="append")
    parser.add_argument("--recipes", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--starts", nargs="+", type=float, default=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--options", default="{}", help="JSON, further arguments of the callback")
    parser.add_argument("--again", action="store_true", help="make runs again that are there")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    out = Path(args.out)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    done = read_cells(out)
    wanted = [] if args.table else list(cells(args))
    keys = ("part", "network", "recipe", "seed", "options", "start")
    there = [] if args.again else [{key: line[key] for key in keys if key in line} for line in done]
    missing = [cell for cell in wanted if cell not in there]
    if any(cell["part"] == "distillation" for cell in missing):
        be_quiet()
        print(f"teacher: ResNet-14 of width 16, {100 * accuracy(teacher(args), test_batches(args.data_dir)):.2f} %")
    report(run_cells(out, missing, partial(measure, args=args), args.jobs))


if __name__ == "__main__":
    main()
