"""What a teacher brings: accuracy, and whether the student decides for the teacher's reasons.

    python benchmarks/distillation_quality.py [--data-dir data] [--part small|pruned] [--jobs 2]

Fashion-MNIST, one thread a process; goes on where it stopped: each finished cell is a line of --out. Tables of means
over seeds with 95% intervals (Student's t), and of each method's lead over the student alone within seeds.

``small``: a ResNet-8 learns from 50 and 200 images of each class and from all 55,000, the same steps for every method;
its teacher is a ResNet-20 that was trained on all of them for 3 epochs. The temperature is 4 where nothing else is
said: every network here has BatchNorm, and bears it. ``pruned``: that ResNet-20 is cut to a quarter
of its multiply-accumulates and fine-tuned for 2 epochs, alone or with its dense self as the teacher.

``similarity`` is the mean cosine of student's and teacher's attributions of the teacher's prediction, on 256 test
images: by input x gradient, which ``explanation`` matches, and by Occlusion and integrated gradients, which nobody was
trained on.
"""

import argparse
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _cells import Cell, missing_cells, read_cells, run_cells
from lightning.pytorch import Trainer, seed_everything
from pruning_quality import accuracy, be_quiet, data, dense, interval, test_set, train_dense
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.callbacks import ExplanationMatching, KnowledgeDistillation, StructuredPruning
from lit_xai.functional import attribute
from lit_xai.models import Classifier, ResNet

SIZES = {"50 per class": (50, 64, 300), "200 per class": (200, 64, 600), "all": (None, 128, 1200)}
"""Images of each class, batch size, steps."""
TUNING_STEPS, TUNING_LR = 2 * (55000 // 128), 0.05
LAYERS = ["layer1", "layer2", "layer3"]
MATCHING = {"explanation": ExplanationMatching("input_x_gradient", weight=1.0)}
SOFT: dict[str, Any] = {"temperature": 4.0}
METHODS: dict[str, dict[str, Any] | None] = {
    "alone": None,
    "KD, temperature 1": {},  # the default
    "KD": SOFT,
    "DKD": {**SOFT, "loss": "decoupled_kl_divergence", "alpha": 0.5},
    "KD + hints": {**SOFT, "features": LAYERS, "feature_weight": 0.1},
    "KD + attention transfer": {
        **SOFT,
        "features": LAYERS,
        "feature_loss": "attention_transfer",
        "feature_weight": 100.0,
    },
    "KD + explanation": {**SOFT, **MATCHING},
    "explanation": {**MATCHING, "alpha": 0.0},
}
PRUNED = ("alone", "KD", "KD + explanation")
EXPLAINERS: dict[str, dict[str, Any]] = {
    "InputXGradient": {},
    "Occlusion": {"attribute_args": {"sliding_window_shapes": [1, 4, 4], "strides": [1, 2, 2]}, "baselines": 0},
    "IntegratedGradients": {"attribute_args": {"n_steps": 16}},
}


def cells(part: str, seeds: list[int]) -> Iterator[Cell]:
    """Yield what identifies each measurement."""
    for seed in seeds:
        for size in SIZES if part == "small" else ["all"]:
            for method in METHODS if part == "small" else PRUNED:
                yield {"part": part, "seed": seed, "size": size, "method": method}


@lru_cache
def images(data_dir: str) -> tuple[Tensor, Tensor]:
    """Return the training images, as the network gets them, and their labels."""
    dataset = data(data_dir).train_dataloader().dataset
    return dataset.__getitems__(list(range(len(dataset))))


def loader(data_dir: str, size: str, seed: int) -> DataLoader:
    """Return batches of a draw of the training images."""
    per_class, batch_size, _ = SIZES[size]
    x, y = images(data_dir)
    if per_class is not None:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(y), generator=generator)
        rows = torch.cat([order[y[order] == label][:per_class] for label in range(10)])
        x, y = x[rows], y[rows]
    shuffled = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(x, y), batch_size, shuffle=True, drop_last=True, generator=shuffled)


def fit(network: nn.Module, batches: DataLoader, steps: int, lr: float, seed: int, callbacks: list[Any]) -> None:
    """Train in place with SGD whose learning rate falls along a cosine."""
    seed_everything(seed, verbose=False)
    network.train()
    sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-(-steps // len(batches)),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        default_root_dir="logs/distillation_quality",
    )
    trainer.fit(Classifier(network, 10, optimizer=sgd, lr_scheduler=cosine, lr_scheduler_interval="step"), batches)


def similarity(student: nn.Module, teacher: nn.Module, data_dir: str) -> dict[str, float]:
    """Return the mean cosine of attributions by each explainer."""
    inputs = torch.cat([x for x, _ in test_set(data_dir)])[:256]
    with torch.no_grad():
        target = teacher.eval()(inputs).argmax(1)
    found = {}
    for method, options in EXPLAINERS.items():
        pair = [attribute(network, inputs, method=method, target=target, **options) for network in (student, teacher)]
        ours, theirs = (value.flatten(1) for value in pair)
        found[method] = float(nn.functional.cosine_similarity(ours, theirs, dim=1).mean())
    return found


def measure(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure a cell, in a process of its own."""
    be_quiet()
    seed, options = cell["seed"], METHODS[cell["method"]]
    teacher = dense(args, seed)
    if cell["part"] == "small":
        torch.manual_seed(seed)
        student: nn.Module = ResNet(8, stem_stride=2, in_channels=1)
        callbacks = [] if options is None else [KnowledgeDistillation(teacher, **options)]
        steps, lr = SIZES[cell["size"]][2], 0.1
    else:
        student = dense(args, seed)
        cut = StructuredPruning(target_macs=0.25, start_epoch=0, end_epoch=0, report_latency=False)
        callbacks = [cut] if options is None else [cut, KnowledgeDistillation("dense", **options)]
        steps, lr = TUNING_STEPS, TUNING_LR
    fit(student, loader(args.data_dir, cell["size"], seed), steps, lr, seed, callbacks)
    found = {"accuracy": accuracy(student, test_set(args.data_dir)), **similarity(student, teacher, args.data_dir)}
    return {**cell, **found, "teacher": accuracy(teacher, test_set(args.data_dir))}


def report(done: list[Cell]) -> None:
    """Print a table for each part and size: accuracy, its lead over the student alone, and similarities."""
    print(f"teacher {interval(list({line['seed']: line['teacher'] for line in done}.values()))} %")
    for part, size in dict.fromkeys((line["part"], line["size"]) for line in done):
        rows: dict[str, dict[int, Cell]] = {}
        for line in done:
            if (line["part"], line["size"]) == (part, size):
                rows.setdefault(line["method"], {})[line["seed"]] = line
        titles = "".join(f"{name:>22}" for name in EXPLAINERS)
        print(f"\n{part}, {size}: accuracy %, lead over alone, similarity x 100\n{'':26}{'':14}{'':14}{titles}")
        for method, seeds in sorted(rows.items(), key=lambda row: -mean(line["accuracy"] for line in row[1].values())):
            leads = [
                v["accuracy"] - rows["alone"][s]["accuracy"] for s, v in seeds.items() if s in rows.get("alone", {})
            ]
            lead = "" if method == "alone" or not leads else interval(leads)
            others = "".join(f"{interval([line[name] for line in seeds.values()]):>22}" for name in EXPLAINERS)
            print(f"  {method:24}{interval([line['accuracy'] for line in seeds.values()]):>14}{lead:>14}{others}")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument(
        "--work-dir", default="logs/pruning_quality", help="where pruning_quality.py left dense weights"
    )
    parser.add_argument("--out", default="logs/distillation_quality/cells.jsonl")
    parser.add_argument("--part", choices=("small", "pruned"), action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    out = Path(args.out)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    wanted = [cell for part in args.part or ["small", "pruned"] for cell in cells(part, args.seeds)]
    missing = missing_cells(wanted, read_cells(out))
    first = [partial(train_dense, seed, args) for seed in args.seeds]
    done = run_cells(out, missing, partial(measure, args=args), args.jobs, first)
    report(done)


if __name__ == "__main__":
    main()
