"""What pruning costs in accuracy: each importance right after the cut, and ways to prune after the same fine-tuning.

    python benchmarks/pruning_quality.py [--data-dir data] [--part criterion|recovery] [--jobs 2]

ResNet-20 with a stem of stride 2 on Fashion-MNIST, dense for 3 epochs without augmentation, one thread a process. Runs
go on where they stopped: each finished cell is a line of --out, dense weights lie in --work-dir. Then tables of means
over seeds with 95% intervals (Student's t), and of differences within seeds.

``criterion``: channels go without any training afterwards, by Torch-Pruning's own pruner: the same share of each layer
("local", Torch-Pruning's defaults), or ranked over the whole network ("global"). ``raw`` is the accuracy then, ``bn``
the one after BatchNorm's statistics were taken again from 1024 training images, no weight being changed; ``macs`` what
is left of the multiply-accumulates.

``recovery``: multiply-accumulates go down to a half, a quarter and an eighth, followed by the same epochs of
fine-tuning for everyone. Lightning's ModelPruning sets weights to zero and leaves the MACs where they were; it is given
the sparsity that is the same share of weights (``l1_unstructured``) or of channels (``ln_structured``) as goes
elsewhere.
"""

import argparse
import copy
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from _cells import Cell, missing_cells, read_cells, run_cells
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelPruning
from torch import Tensor, nn

from lit_xai.data import FashionMNIST
from lit_xai.models import Classifier, ResNet
from lit_xai.network.profiling import count_macs
from lit_xai.pruning.importance import prepare_importance, resolve_importance

DENSE_EPOCHS, DENSE_LR = 3, 0.1
TUNING_EPOCHS, TUNING_LR = 2, 0.05
EXAMPLE = torch.zeros(1, 1, 28, 28)
RATIOS = (0.1, 0.2, 0.3, 0.4)
FRACTIONS = (1 / 2, 1 / 4, 1 / 8)
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
UNNORMALIZED = {"normalizer": None}
IMPORTANCES: dict[str, tuple[str, dict[str, Any]]] = {
    "AttributionImportance": ("AttributionImportance", {}),
    "GroupMagnitude": ("GroupMagnitudeImportance", {}),
    "GroupMagnitude, unnormalized": ("GroupMagnitudeImportance", UNNORMALIZED),
    "GroupTaylor": ("GroupTaylorImportance", {}),
    "GroupTaylor, unnormalized": ("GroupTaylorImportance", UNNORMALIZED),
    "GroupHessian": ("GroupHessianImportance", {}),
    "GroupHessian, unnormalized": ("GroupHessianImportance", UNNORMALIZED),
    "LAMP": ("LAMPImportance", {}),
    "FPGM": ("FPGMImportance", {}),
    "BNScale": ("BNScaleImportance", {}),
    "Activation": ("ActivationImportance", {}),
    "Random": ("RandomImportance", {}),
}


def cells(part: str, seeds: list[int]) -> Iterator[Cell]:
    """Yield what identifies each measurement."""
    for seed in seeds:
        if part == "criterion":
            for name in IMPORTANCES:
                for scope in ("local", "global"):
                    if not (scope == "local" and name.endswith("unnormalized")):  # ranks the same
                        yield {"part": part, "seed": seed, "method": name, "scope": scope}
        else:
            for method in METHODS:
                for fraction in FRACTIONS:
                    yield {"part": part, "seed": seed, "method": method, "fraction": fraction}


@lru_cache
def data(data_dir: str, batch_size: int = 128) -> FashionMNIST:
    """Read the images once a process; a twelfth of the training images are left aside."""
    module = FashionMNIST(data_dir=data_dir, batch_size=batch_size, val_size=5000, drop_last=True)
    module.prepare_data()
    module.setup()
    return module


@lru_cache
def test_set(data_dir: str) -> list[tuple[Tensor, Tensor]]:
    """Return the test images in batches, ready to be looked at many times."""
    return list(data(data_dir).test_dataloader())


def training_samples(data_dir: str, n: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return a draw of training samples, without augmentation, in batches of 64."""
    dataset = data(data_dir).train_dataloader().dataset
    drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:n]
    return [dataset.__getitems__(part.tolist()) for part in drawn.split(64)]


@torch.no_grad()
def accuracy(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the share of samples that a network, in eval mode, gets right."""
    network.eval()
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def fit(network: nn.Module, args: argparse.Namespace, seed: int, epochs: int, lr: float, **options: Any) -> None:
    """Train in place with SGD whose learning rate falls along a cosine."""
    seed_everything(seed, verbose=False)
    network.train()  # Lightning leaves modes as they are
    sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs * (55000 // 128))
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=args.work_dir,
        **options,
    )
    classifier = Classifier(network, 10, optimizer=sgd, lr_scheduler=cosine, lr_scheduler_interval="step")
    trainer.fit(classifier, datamodule=data(args.data_dir))


def dense(args: argparse.Namespace, seed: int) -> ResNet:
    """Return the trained dense network, from the work folder if it is there."""
    path = Path(args.work_dir, f"dense-{DENSE_EPOCHS}-{seed}.pt")
    torch.manual_seed(seed)
    network = ResNet(20, stem_stride=2, in_channels=1)
    if not path.exists():
        fit(network, args, seed, DENSE_EPOCHS, DENSE_LR)
        partial_path = path.with_suffix(f".{os.getpid()}")
        torch.save(network.state_dict(), partial_path)
        partial_path.replace(path)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def cut(network: nn.Module, importance: Any, ratio: float, everywhere: bool) -> nn.Module:
    """Remove channels by Torch-Pruning's pruner and nothing else, in place."""
    from torch_pruning.pruner import BasePruner

    limit = 0.9 if everywhere else 1.0  # a layer without channels is none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        BasePruner(
            network,
            EXAMPLE,
            importance=importance,
            pruning_ratio=ratio,
            global_pruning=everywhere,
            max_pruning_ratio=limit,
            ignored_layers=[network.fc],
        ).step()
    return network.eval()


def ranked(network: nn.Module, name: str, args: argparse.Namespace, seed: int) -> tuple[nn.Module, Any]:
    """Return a copy and an importance that has seen 256 training samples run through it."""
    copied = copy.deepcopy(network)
    cls, init_args = IMPORTANCES[name]
    samples = training_samples(args.data_dir, 256, seed)
    torch.manual_seed(seed)
    return copied, prepare_importance(resolve_importance(cls, init_args), copied, samples)


@torch.no_grad()
def renew_statistics(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """Take BatchNorm's means and variances again, over all batches alike."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    for inputs, _ in batches:
        network(inputs)
    return network.eval()


def criterion(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure one importance at all ratios."""
    network, test = dense(args, cell["seed"]), test_set(args.data_dir)
    renewing = [torch.cat(part) for part in zip(*training_samples(args.data_dir, 1024, 0), strict=True)]
    batches = list(zip(*(part.split(256) for part in renewing), strict=True))
    raw, bn, macs = [], [], []
    for ratio in RATIOS:
        copied, importance = ranked(network, cell["method"], args, cell["seed"])
        pruned = cut(copied, importance, ratio, cell["scope"] == "global")
        macs.append(count_macs(pruned, EXAMPLE) / count_macs(network, EXAMPLE))
        raw.append(accuracy(pruned, test))
        bn.append(accuracy(renew_statistics(pruned, batches), test))
    return {"dense": accuracy(network, test), "raw": raw, "bn": bn, "macs": macs}


def ratio_for(network: nn.Module, fraction: float, make: Callable[[], tuple[nn.Module, Any]]) -> float:
    """Return the share of each layer's channels to remove that comes nearest to a fraction of the MACs."""
    low, high, wanted = 0.0, 0.95, fraction * count_macs(network, EXAMPLE)
    tried = {}
    for _ in range(8):
        middle = (low + high) / 2
        tried[middle] = count_macs(cut(*make(), middle, False), EXAMPLE)
        low, high = (middle, high) if tried[middle] > wanted else (low, middle)
    return min(tried, key=lambda ratio: abs(tried[ratio] - wanted))


def bare(network: nn.Module, cell: Cell, args: argparse.Namespace, name: str = "GroupMagnitude") -> nn.Module:
    """Cut by Torch-Pruning, then fine-tune with an optimizer built anew."""
    make = partial(ranked, network, name, args, cell["seed"])
    pruned = cut(*make(), ratio_for(network, cell["fraction"], make), False)
    fit(pruned, args, cell["seed"], TUNING_EPOCHS, TUNING_LR)
    return pruned


def ours(network: nn.Module, cell: Cell, args: argparse.Namespace, **options: Any) -> nn.Module:
    """Cut at the start of the fine-tuning, by the callback."""
    from lit_xai.callbacks import StructuredPruning

    pruning = StructuredPruning(
        target_macs=cell["fraction"], start_epoch=0, end_epoch=0, report_latency=False, **options
    )
    fit(network, args, cell["seed"], TUNING_EPOCHS, TUNING_LR, callbacks=[pruning])
    return network


class MasksAtStart(ModelPruning):
    """Lightning's callback, once, before the first epoch like everyone else rather than after it."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Set the masks."""
        self._run_pruning(0)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave them."""


def masks(network: nn.Module, cell: Cell, args: argparse.Namespace, pruning_fn: str) -> nn.Module:
    """Mask weights or channels by Lightning's ModelPruning, then fine-tune."""
    structured = pruning_fn == "ln_structured"
    make = partial(ranked, network, "GroupMagnitude", args, cell["seed"])
    ratio = ratio_for(network, cell["fraction"], make)
    cell["sparsity"] = ratio if structured else 1 - cell["fraction"]
    callback: Callback = MasksAtStart(
        pruning_fn,
        parameters_to_prune=[(m, "weight") for m in network.modules() if isinstance(m, nn.Conv2d)],
        amount=cell["sparsity"],
        use_global_unstructured=not structured,
        use_lottery_ticket_hypothesis=False,
        **({"pruning_dim": 0, "pruning_norm": 2} if structured else {}),
    )
    fit(network, args, cell["seed"], TUNING_EPOCHS, TUNING_LR, callbacks=[callback])
    return network


METHODS: dict[str, Callable[[nn.Module, Cell, argparse.Namespace], nn.Module]] = {
    "StructuredPruning": ours,
    "StructuredPruning, any width": partial(ours, round_to=1),
    "StructuredPruning, AttributionImportance": partial(
        ours, round_to=1, importance="AttributionImportance", global_pruning=True, max_pruning_ratio=0.9
    ),
    "bare Torch-Pruning": bare,
    "random channels": partial(bare, name="Random"),
    "ModelPruning l1_unstructured": partial(masks, pruning_fn="l1_unstructured"),
    "ModelPruning ln_structured": partial(masks, pruning_fn="ln_structured"),
}


def recovery(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure one method at one fraction of the MACs."""
    network = dense(args, cell["seed"])
    macs = count_macs(network, EXAMPLE)
    before = accuracy(network, test_set(args.data_dir))
    told = dict(cell)
    pruned = METHODS[cell["method"]](network, told, args)
    found = {"dense": before, "accuracy": accuracy(pruned, test_set(args.data_dir))}
    return {**found, "macs": count_macs(pruned, EXAMPLE) / macs, "sparsity": told.get("sparsity", 0.0)}


def be_quiet() -> None:
    """Keep a process to one thread and to what matters."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def measure(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure a cell, in a process of its own."""
    be_quiet()
    return {**cell, **({"criterion": criterion, "recovery": recovery}[cell["part"]](cell, args))}


def interval(values: list[float]) -> str:
    """Return the mean in percent and half the 95% interval of it."""
    half = T_95[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{100 * mean(values):5.1f} ± {100 * half:4.1f}"


def columns(done: list[Cell]) -> dict[str, dict[str, dict[int, float]]]:
    """Return ``{column: {method: {seed: value}}}``."""
    table: dict[str, dict[str, dict[int, float]]] = {}
    for line in done:
        if line["part"] == "criterion":
            values = {
                f"{line['scope']} {kind} {ratio:.0%}": value
                for kind in ("raw", "bn", "macs")
                for ratio, value in zip(RATIOS, line[kind], strict=True)
            }
        else:
            values = {f"{1 / line['fraction']:.0f}x": line["accuracy"]}
            values[f"{1 / line['fraction']:.0f}x macs"] = line["macs"]
        for column, value in values.items():
            table.setdefault(column, {}).setdefault(line["method"], {})[line["seed"]] = value
    return table


def report(done: list[Cell], reference: str) -> None:
    """Print each column with its intervals, and the reference's lead over the others within seeds."""
    dense_accuracy = {line["seed"]: line["dense"] for line in done}
    print(f"dense {interval(list(dense_accuracy.values()))}")
    for column, methods in columns(done).items():
        print(f"\n{column:42} %               {reference} leads by")
        for method, seeds in sorted(methods.items(), key=lambda item: -mean(item[1].values())):
            shared = [methods.get(reference, {})[s] - v for s, v in seeds.items() if s in methods.get(reference, {})]
            lead = interval(shared) if method != reference and shared and "macs" not in column else ""
            print(f"  {method:40} {interval(list(seeds.values()))}    {lead}")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", default="logs/pruning_quality")
    parser.add_argument("--out", default="logs/pruning_quality/cells.jsonl")
    parser.add_argument("--part", choices=("criterion", "recovery"), action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="only those that begin with one of these")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    out = Path(args.out)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    parts = args.part or ["criterion", "recovery"]
    wanted = [cell for part in parts for cell in cells(part, args.seeds)]
    missing = missing_cells(wanted, read_cells(out))
    if args.methods:
        missing = [cell for cell in missing if cell["method"].startswith(tuple(args.methods))]
    first = [partial(train_dense, seed, args) for seed in args.seeds]
    done = run_cells(out, missing, partial(measure, args=args), args.jobs, first)
    for part, reference in (("criterion", "AttributionImportance"), ("recovery", "StructuredPruning")):
        of_part = [line for line in done if line["part"] == part]
        if of_part:
            print(f"\n== {part}")
            report(of_part, reference)


def train_dense(seed: int, args: argparse.Namespace) -> None:
    """Train the dense network of a seed, if it is not there."""
    be_quiet()
    dense(args, seed)


if __name__ == "__main__":
    main()
