"""What compression costs: accuracy, latency and explanations, under five compressions and three ways to train.

    python benchmarks/study.py [--data-dir data] [--quick | --full] [--seeds 0 1 2 3 4] [--jobs 2]

Fashion-MNIST, a ResNet-8 of width 16 with a stem of stride 2, dense for 3 epochs on 19,200 images: under two hours on
one core for five seeds. Each compressed network starts from the dense one and trains for the same 6 epochs; all
channels go before the first of them, and integers are trained for in the last. Compressions: a half and a quarter of
the multiply-accumulates (``prune 2x``, ``prune 4x``), 8-bit integers, and both. Training: on labels alone (``labels``),
with the dense network as a teacher (``KD``), and with its InputXGradient explanations matched as well (``KD +
explanations``). ``dense, trained on`` is the dense network after as many more epochs, uncompressed: explanations of a
network that merely goes on training change as well.

Explanations are judged by methods nobody trained on, Integrated Gradients of 16 steps and Occlusion of 4x4 windows, on
256 test images; retention is what docs/callbacks/retention-monitor.md says. Beside it: accuracy on 10,000 test images,
the share of changed predictions, and the KL divergence from the dense network's. Latency is that of the ONNX file in
ONNX Runtime, one thread, 64 images, in rounds in which all files of a seed run one after the other; it is measured
after all training, by one process.

Runs go on where they stopped: each finished cell is a line of cells.jsonl in --work-dir, and its file lies beside it.
``--table`` prints what is there, ``--figure`` draws it. ``--quick``: one seed, two epochs, two of the compressions, in
minutes. ``--full``: CIFAR-10 and a ResNet-20 of width 16, dense for 60 epochs and 30 more for each, for a GPU.
"""

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from _cells import Cell, missing_cells, read_cells, run_cells
from _retention import batches, dense, fit, images, predictions, reference, where
from filelock import FileLock
from pruning_quality import be_quiet, interval
from torch import Tensor, nn

from lit_xai.callbacks import ExplanationMatching, KnowledgeDistillation, QuantizationAwareTraining, StructuredPruning
from lit_xai.functional import count_macs
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.runtime.latency import cpu_name, measure_latency
from lit_xai.runtime.onnx import export_onnx

LR, BATCH, ROUNDS = 0.05, 64, 15
JUDGES = ["IG", "Occlusion"]
DENSE, LONGER = "dense", "dense, trained on"

COMPRESSIONS: dict[str, tuple[float | None, bool]] = {
    "prune 2x": (0.5, False),
    "prune 4x": (0.25, False),
    "int8": (None, True),
    "prune 2x + int8": (0.5, True),
    "prune 4x + int8": (0.25, True),
}
"""The share of multiply-accumulates that is left, and whether it ends in 8-bit integers."""
TRAINING: dict[str, dict[str, Any] | None] = {
    "labels": None,
    "KD": {},
    "KD + explanations": {"explanation": ExplanationMatching("input_x_gradient", weight=5.0)},
}
"""What KnowledgeDistillation is told."""
QUICK = ("int8", "prune 4x + int8")


def epochs(args: argparse.Namespace) -> int:
    """Return how long each compressed network trains."""
    return 2 if args.quick else 30 if args.full else 6


def cells(args: argparse.Namespace) -> list[Cell]:
    """Return what is to be measured."""
    names = [name for name in COMPRESSIONS if not args.quick or name in QUICK]
    one = [(DENSE, "labels"), (LONGER, "labels"), *((name, how) for name in names for how in TRAINING)]
    found = [{"seed": seed, "network": name, "training": how} for seed in args.seeds for name, how in one]
    # Dense networks and untrained ones first: the others of a seed, in any process, read what they left.
    return sorted(found, key=lambda cell: cell["network"] != DENSE)


def example(args: argparse.Namespace, n: int = 2) -> Tensor:
    """Return test images."""
    return images(where(args), "test")[0][:n]


def compressed(cell: Cell, args: argparse.Namespace) -> nn.Module:
    """Train the network of a cell."""
    network = copy.deepcopy(dense(args, cell["seed"]))
    if cell["network"] == DENSE:
        return network
    share, is_int8 = COMPRESSIONS.get(cell["network"], (None, False))
    teach, length, callbacks = TRAINING[cell["training"]], epochs(args), []
    if share is not None:
        callbacks += [StructuredPruning(target_macs=share, start_epoch=0, end_epoch=0, report_latency=False)]
    if teach is not None:
        callbacks += [KnowledgeDistillation(copy.deepcopy(network), **teach)]
    if is_int8:
        callbacks += [QuantizationAwareTraining(length - 1, freeze_epoch=length)]
    accelerator = where(args).setting.accelerator
    fit(network, batches(args, cell["seed"]), cell["seed"], length, LR, callbacks, accelerator=accelerator)
    return network


def file_of(cell: Cell, args: argparse.Namespace) -> Path:
    """Return where a cell's ONNX file lies."""
    name = f"{cell['seed']}-{cell['network']}-{cell['training']}".replace(" ", "_").replace(",", "")
    return Path(args.work_dir, "files", f"{name}.onnx")


def measure(cell: Cell, args: argparse.Namespace) -> Cell:
    """Train and measure a cell, in a process of its own."""
    be_quiet()
    original = dense(args, cell["seed"])
    network = compressed(cell, args)
    path = file_of(cell, args)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(network, example(args), path)
    ratio = count_macs(network, example(args, 1)) / count_macs(original, example(args, 1))
    judged = reference(where(args), args.work_dir, cell["seed"])
    found = judged.judge(network, f"study-{path.stem}", JUDGES)
    return {**cell, "macs": ratio, "kB": path.stat().st_size / 1000, **found, **predictions(network, original, args)}


def with_latency(done: list[Cell], args: argparse.Namespace) -> None:
    """Measure the files of each seed by turns, and keep each one's milliseconds and its share of the dense file's."""
    inputs = example(args, BATCH)
    for seed in args.seeds:
        lines = [line for line in done if line["seed"] == seed]
        if not lines or all("ms" in line for line in lines):
            continue
        times: dict[int, list[float]] = {place: [] for place in range(len(lines))}
        for _ in range(ROUNDS):
            for place, line in enumerate(lines):
                found = measure_latency(file_of(line, args), inputs, repeats=3, seconds=0.05)
                times[place].append(found.milliseconds)
        (first,) = (place for place, line in enumerate(lines) if line["network"] == DENSE)
        for place, line in enumerate(lines):
            line["ms"] = median(times[place])
            line["of_dense"] = median(a / b for a, b in zip(times[place], times[first], strict=True))
            line["as_in_torch"] = agreement(line, args)


def agreement(line: Cell, args: argparse.Namespace) -> float:
    """Return the accuracy of a file in ONNX Runtime, which has to be that of torch."""
    x, y = images(where(args), "test")
    network = FileNetwork(file_of(line, args), threads=1)
    right = sum(
        int((network(part).argmax(1) == target).sum()) for part, target in zip(x.split(500), y.split(500), strict=True)
    )
    return right / len(y)


# --- the table and the figure -----------------------------------------------------------------------------------------

COLUMNS = {
    "accuracy": ("accuracy %", lambda line: line["accuracy"]),
    "change": ("against dense", lambda line: line["accuracy"] - line["dense"]),
    "latency": ("latency, % of dense", lambda line: line.get("of_dense")),
    "IG": ("retention, IG", lambda line: line["IG"]),
    "Occlusion": ("retention, Occlusion", lambda line: line["Occlusion"]),
    "flips": ("flips %", lambda line: line["flips"]),
    "kl": ("KL x 100", lambda line: line["kl"]),
}


def grouped(done: list[Cell]) -> dict[tuple[str, str], dict[int, Cell]]:
    """Return ``{(network, training): {seed: cell}}``, in the order of the study."""
    names = [DENSE, LONGER, *COMPRESSIONS]
    ordered = sorted(done, key=lambda line: (names.index(line["network"]), list(TRAINING).index(line["training"])))
    table: dict[tuple[str, str], dict[int, Cell]] = {}
    for line in ordered:
        table.setdefault((line["network"], line["training"]), {})[line["seed"]] = line
    return table


def report(done: list[Cell]) -> None:
    """Print means over seeds with 95% intervals (Student's t), and what training adds within seeds."""
    table = grouped(done)
    print(f"{'':42}{'seeds':>6}" + "".join(f"{title:>22}" for title, _ in COLUMNS.values()))
    for (name, how), seeds in table.items():
        print(f"{name + ', ' + how:42}{len(seeds):6}" + _columns(list(seeds.values())))
    for other in list(TRAINING)[1:]:
        for base in list(TRAINING)[: list(TRAINING).index(other)]:
            print(f"\n{other} over {base}, within seeds")
            for name in COMPRESSIONS:
                first, second = table.get((name, other), {}), table.get((name, base), {})
                shared = sorted(first.keys() & second.keys())
                if shared:
                    print(
                        f"{name:42}{len(shared):6}" + _columns([first[s] for s in shared], [second[s] for s in shared])
                    )
    gaps = [abs(line["as_in_torch"] - line["accuracy"]) for line in done if "as_in_torch" in line]
    if gaps:
        print(f"\nfiles in ONNX Runtime on {cpu_name()}: accuracy at most {100 * max(gaps):.2f} points from torch's")


def _columns(lines: list[Cell], against: list[Cell] | None = None) -> str:
    text = ""
    for _, read in COLUMNS.values():
        values = [read(line) for line in lines]
        if against is not None:
            values = [None if a is None else a - read(b) for a, b in zip(values, against, strict=True)]
        known = [value for value in values if value is not None]
        text += f"{interval(known) if known else '':>22}"
    return text


# Okabe and Ito's, told apart with any kind of colour vision; and by the mark, in print.
LOOKS = {"labels": ("o", "#D55E00"), "KD": ("^", "#0072B2"), "KD + explanations": ("s", "#009E73")}


def draw(done: list[Cell], path: Path) -> None:
    """Draw accuracy and retention of each compression, with 95% intervals over seeds, and its latency."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 9})
    table = grouped([line for line in done if "of_dense" in line])
    names = [name for name in [LONGER, *COMPRESSIONS] if (name, "labels") in table]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    panels: list[tuple[str, Callable[[Cell], float]]] = [
        ("Accuracy, points against dense", lambda line: 100 * (line["accuracy"] - line["dense"])),
        ("Retention of explanations, Integrated Gradients", lambda line: line["IG"]),
    ]
    for axis, (title, read) in zip(axes, panels, strict=True):
        for shift, (how, (mark, hue)) in enumerate(LOOKS.items()):
            there = [place for place, name in enumerate(names) if (name, how) in table]
            values = [[read(line) for line in table[names[place], how].values()] for place in there]
            x = [place + 0.22 * (shift - 1) for place in there]
            middle, half = [mean(one) for one in values], [_half(one) for one in values]
            axis.errorbar(x, middle, half, fmt=mark, color=hue, markersize=6, elinewidth=1.2, label=how)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xticks(range(len(names)), [_label(name, table) for name in names])
        axis.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="x", length=0)
    axes[0].axhline(0, color="#999999", linewidth=0.8)
    axes[1].axhline(1, color="#999999", linewidth=0.8)
    axes[1].set_ylim(0, 1.05)
    figure.supxlabel("compression, and the latency of its file, in percent of the dense one's", fontsize=9)
    axes[1].legend(loc="lower left", title="trained on", frameon=False, fontsize=8.5, alignment="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _label(name: str, table: dict[tuple[str, str], dict[int, Cell]]) -> str:
    shares = [line["of_dense"] for (one, _), seeds in table.items() if one == name for line in seeds.values()]
    return name.replace(" + ", "\n+ ").replace(", ", ",\n") + f"\n{100 * mean(shares):.0f}%"


def _half(values: list[float]) -> float:
    from scipy.stats import t

    n = len(values)
    spread = float(torch.tensor(values, dtype=torch.float64).std()) if n > 1 else 0.0
    return float(t.ppf(0.975, n - 1)) * spread / n**0.5 if n > 1 else 0.0


def main() -> None:
    """Measure what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", help="of weights, maps and files; default logs/study, with -quick or -full")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true")
    size.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--figure", help="where to draw it")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    args.dataset = "cifar10" if args.full else "fashion_mnist"
    args.seeds = args.seeds or ([0] if args.quick else [0, 1, 2, 3, 4])
    args.work_dir = args.work_dir or f"logs/study{'-quick' if args.quick else '-full' if args.full else ''}"
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    out = Path(args.work_dir, "cells.jsonl")
    missing = missing_cells([] if args.table else cells(args), read_cells(out))
    done = run_cells(out, missing, partial(measure, args=args), args.jobs)
    if not args.table:
        with FileLock(Path(args.work_dir, "latency.lock")):
            torch.set_num_threads(1)
            with_latency(done, args)
            whole = out.with_suffix(".partial")
            whole.write_text("".join(json.dumps(line) + "\n" for line in done))
            whole.replace(out)
    report(done)
    if args.figure:
        draw(done, Path(args.figure))


if __name__ == "__main__":
    main()
