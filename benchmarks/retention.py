"""What retention measures, how far it can be trusted, and how much of it a compressed network can keep.

    python benchmarks/retention.py [--data-dir data] [--part ladder|bands|recipe|shortcut|beyond|cost] [--seeds 0 1 2]

Fashion-MNIST, a ResNet-8 of width 16 with a stem of stride 2, dense for 3 epochs on 19,200 images, one thread a
process. Runs go on where they stopped: each finished cell is a line of --out; dense weights, untrained networks'
similarities, and the similarity and map of every sample of every network (``maps/*.npz``) lie in --work-dir.
``--table`` prints what is there: means over seeds with 95% intervals (Student's t), and gains within seeds.

Retention is (S - S0) / (1 - S0) of the mean signed cosine S to the dense network's maps of 256 test images, S0 that of
10 untrained networks, by Integrated Gradients of 16 steps, InputXGradient, Occlusion of 4x4 windows (baseline: black)
and GradCAM of ``layer3``.

``ladder``: networks that differ from the dense one by more and more: 8-bit integers (and their file in ONNX Runtime by
Occlusion), weights of fewer bits, fewer channels without training, one more epoch, another seed; and half the channels
with one epoch of fine-tuning, a teacher and matched explanations.
``bands``: 50 untrained networks for each seed. Each ten of them make a prediction band, and the 40 others are left out:
the share of them that the band covers.
``recipe``: to a quarter of the multiply-accumulates and 8-bit integers, the same epochs from the dense network for
every arm; no path method in the loss. All share the learning rate, its cosine, and the epochs that train for integers.
``shortcut``: half the channels go, and a mark in the corner says the class in a share of the images of the epoch after
it; retention on clean images and on marked ones.
``beyond``: 20 compressed networks for each seed: does retention say anything about robustness to 8 corruptions or
calibration that accuracy, flipped predictions and KL divergence do not say?
``cost``: Integrated Gradients of 256 images as a multiple of its bare passes (with and without the forward pass for
predictions), medians of alternating runs.
"""

import argparse
import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from _cells import Cell, missing_cells, read_cells, run_cells
from _retention import (
    CORRUPTIONS,
    EXAMPLE,
    EXPLAINERS,
    NULLS,
    PROBE,
    Darkened,
    Reference,
    batches,
    dense,
    fit,
    images,
    in_runtime,
    marked,
    predictions,
    probe,
    quantized,
    reference,
    robustness,
    where,
)
from attribution import forward, forward_backward, medians
from pruning_quality import accuracy, be_quiet, interval
from scipy.stats import rankdata
from torch import nn

from lit_xai.callbacks import (
    ExplanationMatching,
    KnowledgeDistillation,
    QuantizationAwareTraining,
    StructuredPruning,
)
from lit_xai.functional import count_macs
from lit_xai.pruning.pruning import pruned_copy
from lit_xai.retention.changed_networks import rounded_copy
from lit_xai.retention.intervals import prediction_band

UNTRAINED, TUNING_LR = 50, 0.05


# --- parts ------------------------------------------------------------------------------------------------------------

CUT: dict[str, Any] = {"start_epoch": 0, "report_latency": False}
MATCHED = {weight: ExplanationMatching("input_x_gradient", weight=weight) for weight in (1.0, 5.0)}
BITS = (8, 6, 4, 3, 2)
SHARES = (10, 30, 50, 70, 90)
TUNED: dict[str, dict[str, Any] | None] = {
    "half the channels, 1 epoch": None,
    "the same + KD": {},
    "the same + KD + matching": {"explanation": MATCHED[1.0]},
}
LADDER = [
    "itself",
    "int8",
    "int8, ONNX Runtime",
    *(f"{bits} bits" for bits in BITS),
    "one more epoch",
    *TUNED,
    "another seed",
    *(f"{share}% of the channels, no training" for share in SHARES),
    "untrained",
]


def tuned(args: argparse.Namespace, network: nn.Module, seed: int, options: Any, share: float = 0.0) -> nn.Module:
    """Cut half the channels and fine-tune for one epoch, with a teacher or without."""
    cut = StructuredPruning(0.5, end_epoch=0, **CUT)
    callbacks = [cut] if options is None else [cut, KnowledgeDistillation("dense", **options)]
    fit(network, batches(args, seed, share), seed, 1, TUNING_LR, callbacks)
    return network


def ladder(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure one network."""
    seed, name = cell["seed"], cell["network"]
    original, explained = dense(args, seed), reference(where(args), args.work_dir, seed)
    if name == "int8, ONNX Runtime":
        with tempfile.TemporaryDirectory() as folder:
            return explained.judge(in_runtime(quantized(args, original), folder), name, ["Occlusion"])
    network = on_ladder(name, original, explained, args, seed)
    return {**explained.judge(network, name), **predictions(network, original, args)}


def on_ladder(name: str, original: nn.Module, explained: Reference, args: argparse.Namespace, seed: int) -> nn.Module:
    """Return the network of a name."""
    network = copy.deepcopy(original)
    if name == "int8":
        return quantized(args, network)
    if name.endswith(" bits"):
        return rounded_copy(network, int(name.split()[0]))
    if "no training" in name:
        return pruned_copy(network, EXAMPLE, pruning_ratio=int(name.split("%")[0]) / 100, round_to=1)
    if name == "untrained":
        return explained.of("IG").untrained(UNTRAINED)  # one that is in no band
    if name == "another seed":
        return dense(args, seed + 100)
    if name == "one more epoch":
        fit(network, batches(args, seed), seed, 1, TUNING_LR)
    if name in TUNED:
        tuned(args, network, seed, TUNED[name])
    return network


def bands(cell: Cell, args: argparse.Namespace) -> Cell:
    """Count how often bands of ten untrained networks cover those that are left out."""
    means = reference(where(args), args.work_dir, cell["seed"]).nulls(cell["explainer"], UNTRAINED).mean(1)
    covered, halves, counts = [], [], []
    for first in range(0, UNTRAINED, NULLS):
        band = prediction_band(means[first : first + NULLS])
        assert band is not None
        others = torch.cat([means[:first], means[first + NULLS :]])
        counts.append(int(((others >= band.low) & (others <= band.high)).sum()))
        covered.append(counts[-1] / len(others))
        halves.append((band.high - band.low) / 2)
    found = {"covered": mean(covered), "covers": counts, "halves": halves, "half": mean(halves), "widest": max(halves)}
    return {**found, "null": float(means.mean()), "sd": float(means.std())}


EPOCHS = 14
"""From the dense network; the last one trains for integers."""
ONCE: dict[str, Any] = {"target_macs": 0.25, "end_epoch": 0, **CUT}
ARMS: dict[str, tuple[bool, dict[str, Any] | None, bool]] = {
    "dense, as many epochs": (False, None, False),
    "one cut": (True, None, False),
    "one cut + KD": (True, {}, False),
    "one cut + KD, darkened": (True, {}, True),
    "one cut + KD + matching": (True, {"explanation": MATCHED[5.0]}, False),
    "one cut + KD + matching, darkened": (True, {"explanation": MATCHED[5.0]}, True),
}
"""Whether it is compressed, what KnowledgeDistillation is told, and whether half of the images are darkened."""


def recipe(cell: Cell, args: argparse.Namespace) -> Cell:
    """Compress by one recipe."""
    seed, (is_cut, teach, is_darkened) = cell["seed"], ARMS[cell["arm"]]
    original, loader = dense(args, seed), batches(args, seed)
    network, callbacks = copy.deepcopy(original), []
    callbacks += [StructuredPruning(**ONCE)] if is_cut else []
    callbacks += [KnowledgeDistillation("dense", **teach)] if teach is not None else []
    callbacks += [QuantizationAwareTraining(EPOCHS - 1, freeze_epoch=EPOCHS)] if is_cut else []
    fit(network, Darkened(loader, args) if is_darkened else loader, seed, EPOCHS, TUNING_LR, callbacks)
    found = {"macs": count_macs(network, EXAMPLE[:1]) / count_macs(original, EXAMPLE[:1])}
    judged = reference(where(args), args.work_dir, seed).judge(network, f"recipe-{cell['arm']}")
    return {**found, **judged, **predictions(network, original, args), **robustness(network, args)}


SHORTCUTS: dict[str, tuple[bool, float | None]] = {
    "no mark": (False, 0.0),
    "30% marked": (False, 0.3),
    "100% marked": (False, 1.0),
    "dense learned the mark, int8 of it": (True, None),
    "dense learned the mark, then fine-tuned clean": (True, 0.0),
}
"""Whether the dense network learned the mark, and the share of marked images after the cut (no cut: int8)."""


def shortcut(cell: Cell, args: argparse.Namespace) -> Cell:
    """Fine-tune on images with a mark."""
    seed, (learned, share) = cell["seed"], SHORTCUTS[cell["case"]]
    original = dense(args, seed)
    if learned:
        fit(original, batches(args, seed, 1.0), seed, 1, TUNING_LR)
    network = copy.deepcopy(original)
    network = quantized(args, network) if share is None else tuned(args, network, seed, None, share)
    x, y = images(where(args), "test")
    wrong = (y + torch.randint(1, 10, y.shape, generator=torch.Generator().manual_seed(0))) % 10
    found = {"clean": accuracy(network, [(x, y)])}
    found["marked"] = accuracy(network, [(marked(args, x, y), y)])
    found["wrong"] = accuracy(network, [(marked(args, x, wrong), y)])
    for name, inputs in {"clean": x[:PROBE], "marked": marked(args, x, y)[:PROBE]}.items():
        title = f"{'learned' if learned else 'dense'}{'-marked' if name == 'marked' else ''}-{seed}"
        judged = Reference(original, inputs, args, title, seed).judge(network, f"shortcut-{cell['case']}", ["IG"])
        found[f"IG, {name} probe"] = judged["IG"]
    return found


COMPRESSED: dict[str, tuple[str, Any]] = {f"{bits} bits": ("bits", bits) for bits in (6, 4, 3)}
COMPRESSED |= {"int8": ("int8", None), "one more epoch": ("tuned", (None, None))}
COMPRESSED |= {
    f"{name}, {fraction:g} of the MACs": ("tuned", (fraction, options))
    for fraction in (0.5, 0.25, 0.125)
    for name, options in {
        "alone": None,
        "KD": {},
        "KD at temperature 4": {"temperature": 4.0},
        "matching": {"explanation": MATCHED[5.0]},
        "hints": {"features": ["layer1", "layer2", "layer3"], "feature_weight": 0.1},
    }.items()
}


def beyond(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure one compressed network."""
    seed, (kind, given) = cell["seed"], COMPRESSED[cell["network"]]
    original = dense(args, seed)
    network = copy.deepcopy(original)
    if kind == "bits":
        network = rounded_copy(network, given)
    elif kind == "int8":
        network = quantized(args, network)
    else:
        fraction, options = given
        cut = [StructuredPruning(target_macs=fraction, end_epoch=0, **CUT)] if fraction else []
        teach = [KnowledgeDistillation("dense", **options)] if options is not None else []
        fit(network, batches(args, seed), seed, 1, TUNING_LR, cut + teach)
    judged = reference(where(args), args.work_dir, seed).judge(network, f"beyond-{cell['network']}")
    return {**judged, **predictions(network, original, args), **robustness(network, args)}


def cost(cell: Cell, args: argparse.Namespace) -> Cell:
    """Compare Integrated Gradients of the probe with its bare passes."""
    network, x = dense(args, cell["seed"]), probe(args)
    explained = Reference(network, x, args, "cost", 0).of("IG")
    parts = list(zip(x.split(64), explained.logits.argmax(1).split(64), strict=True))

    def floor() -> None:
        for part, target in parts:
            forward_backward(network, part, target, explained.steps or 16)

    def passes() -> None:  # and once for predictions, from which the sum is checked
        floor()
        for part, _ in parts:
            forward(network, part, 1)

    seconds = medians({"floor": floor, "passes": passes, "compare": lambda: explained.compare(network)}, 5)
    ratios = {"ratio": seconds["compare"] / seconds["floor"], "of_all": seconds["compare"] / seconds["passes"]}
    return {**seconds, **ratios, "steps": explained.steps}


# --- tables -----------------------------------------------------------------------------------------------------------


def rows(done: list[Cell], key: str) -> dict[str, dict[int, Cell]]:
    """Return ``{row: {seed: cell}}``."""
    table: dict[str, dict[int, Cell]] = {}
    for line in done:
        table.setdefault(line[key], {})[line["seed"]] = line
    return table


def print_table(table: dict[str, dict[int, Cell]], columns: Sequence[str], baseline: str | None = None) -> None:
    """Print means over seeds with intervals, and gains of some columns over a row within seeds; all times 100."""
    print(f"{'x 100':48}{'seeds':>6}" + "".join(f"{name:>20}" for name in columns))
    for name, seeds in table.items():
        values = [[line[column] for line in seeds.values() if column in line] for column in columns]
        print(f"{name:48}{len(seeds):6}" + "".join(f"{interval(v) if v else '':>20}" for v in values))
    if baseline is None or baseline not in table:
        return
    print(f"gain over {baseline!r} within seeds")
    for name, seeds in table.items():
        shared = [seed for seed in seeds if seed in table[baseline]]
        if name != baseline and shared:
            gains = [[seeds[s][c] - table[baseline][s][c] for s in shared if c in seeds[s]] for c in columns]
            print(f"{name:48}{len(shared):6}" + "".join(f"{interval(v) if v else '':>20}" for v in gains))


def report_ladder(done: list[Cell]) -> None:
    """Print the pilot's table, and whether it is monotone."""
    table = rows(done, "network")
    print_table({name: table[name] for name in LADDER if name in table}, ["accuracy", *EXPLAINERS])
    for title, names in {
        "bits": ["itself", *(f"{bits} bits" for bits in BITS)],
        "channels": ["itself", *(f"{share}% of the channels, no training" for share in SHARES)],
    }.items():
        for key in EXPLAINERS:
            seeds = set.intersection(*(set(table.get(name, {})) for name in names))
            falls = {s: all(table[a][s][key] > table[b][s][key] for a, b in itertools.pairwise(names)) for s in seeds}
            print(f"{title} by {key}: monotone in {sum(falls.values())} of {len(falls)} seeds")
    file, torch_ = table.get("int8, ONNX Runtime", {}), table.get("int8", {})
    gaps = [abs(file[s]["Occlusion"] - torch_[s]["Occlusion"]) for s in file if s in torch_]
    if gaps:
        print(f"file in ONNX Runtime by Occlusion, largest difference from torch: {max(gaps):.5f}")
    if "itself" in table:
        worst = max(abs(line[key] - 1) for line in table["itself"].values() for key in EXPLAINERS)
        print(f"the dense network itself: at most {worst:.1e} from 1")


def report_bands(done: list[Cell]) -> None:
    """Print coverage and widths."""
    print(
        f"{'':16}{'bands':>8}{'left out':>10}{'coverage %':>20}{'of all':>10}{'half-width':>12}{'widest':>9}"
        f"{'S0':>9}{'sd':>8}"
    )
    for name, seeds in rows(done, "explainer").items():
        lines = list(seeds.values())
        counts = [count for line in lines for count in line["covers"]]
        left = UNTRAINED - NULLS
        print(
            f"{name:16}{len(counts):8}{left:10}{interval([line['covered'] for line in lines]):>20}"
            f"{100 * sum(counts) / (left * len(counts)):10.1f}{mean(line['half'] for line in lines):12.3f}"
            f"{max(line['widest'] for line in lines):9.3f}{mean(line['null'] for line in lines):9.3f}"
            f"{mean(line['sd'] for line in lines):8.3f}"
        )


def report_recipe(done: list[Cell]) -> None:
    """Print the arms, and gains over KD and over plain fine-tuning."""
    table = rows(done, "arm")
    table = {name: table[name] for name in ARMS if name in table}
    columns = ["accuracy", *EXPLAINERS, "flips", "corruptions"]
    print(f"dense {interval([line['dense'] for line in next(iter(table.values())).values()])} %")
    print_table(table, columns, "one cut + KD")
    print_table(table, columns, "one cut")
    print_table(table, list(CORRUPTIONS))
    costs = {name: [line["accuracy"] - line["dense"] for line in seeds.values()] for name, seeds in table.items()}
    for name, values in costs.items():
        macs = mean(line["macs"] for line in table[name].values())
        print(f"{name:48} accuracy over dense {interval(values)}, MACs left {macs:.3f}")


def report_shortcut(done: list[Cell]) -> None:
    """Print the cases."""
    table = rows(done, "case")
    columns = ["clean", "marked", "wrong", "IG, clean probe", "IG, marked probe"]
    print_table({name: table[name] for name in SHORTCUTS if name in table}, columns, "no mark")


def partial_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Return the rank correlation of two columns once what others say of them is taken away."""
    ranks = np.column_stack([rankdata(column) for column in given.T] + [np.ones(len(x))])
    left = []
    for values in (rankdata(x), rankdata(y)):
        left.append(values - ranks @ np.linalg.lstsq(ranks, values, rcond=None)[0])
    return float(np.corrcoef(left[0], left[1])[0, 1])


def report_beyond(done: list[Cell]) -> None:
    """Print partial rank correlations within seeds, with intervals of a bootstrap over networks."""
    groups = [[line for line in done if line["seed"] == seed] for seed in sorted({line["seed"] for line in done})]
    rng = np.random.default_rng(0)
    print(f"{sum(map(len, groups))} networks of {len(groups)} seeds, given accuracy, flips and KL divergence")
    for outcome in ("corruptions", "ece"):
        for key in EXPLAINERS:

            def once(draw: bool, key: str = key, outcome: str = outcome) -> float:
                found = []
                for lines in groups:
                    chosen = rng.integers(len(lines), size=len(lines)) if draw else np.arange(len(lines))
                    column = {
                        k: np.array([lines[i][k] for i in chosen]) for k in (key, outcome, "accuracy", "flips", "kl")
                    }
                    given = np.column_stack([column["accuracy"], column["flips"], column["kl"]])
                    found.append(partial_correlation(column[key], column[outcome], given))
                return mean(found)

            def plain(lines: list[Cell], key: str = key, outcome: str = outcome) -> float:
                return float(
                    np.corrcoef(rankdata([x[key] for x in lines]), rankdata([x[outcome] for x in lines]))[0, 1]
                )

            low, high = np.nanquantile([once(True) for _ in range(1000)], [0.025, 0.975])
            alone = mean(plain(lines) for lines in groups)
            print(f"  {outcome:12} {key:16} alone {alone:+.2f}   partial {once(False):+.2f} [{low:+.2f}, {high:+.2f}]")


def report_cost(done: list[Cell]) -> None:
    """Print the ratio."""
    for line in done:
        print(
            f"IG of {PROBE} images, {line['steps']} steps: {line['compare']:.2f} s,"
            f" {line['ratio']:.3f} of its forward/backward passes, {line['of_all']:.3f} of all its passes"
        )


Part = tuple[
    Callable[[list[int]], Iterator[Cell]], Callable[[Cell, argparse.Namespace], Cell], Callable[[list[Cell]], None]
]


def grid(**lists: Sequence[Any]) -> Callable[[list[int]], Iterator[Cell]]:
    """Return what yields each seed with each value of one list."""
    ((key, values),) = lists.items()
    return lambda seeds: ({"seed": seed, key: value} for seed in seeds for value in values)


PARTS: dict[str, Part] = {
    "ladder": (grid(network=LADDER), ladder, report_ladder),
    "bands": (grid(explainer=["IG"]), bands, report_bands),
    "recipe": (grid(arm=list(ARMS)), recipe, report_recipe),
    "shortcut": (grid(case=list(SHORTCUTS)), shortcut, report_shortcut),
    "beyond": (grid(network=list(COMPRESSED)), beyond, report_beyond),
    "cost": (grid(repeat=[0]), cost, report_cost),
}


def measure(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure a cell, in a process of its own."""
    be_quiet()
    return {**cell, **PARTS[cell["part"]][1](cell, args)}


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", default="logs/retention", help="of weights and maps")
    parser.add_argument("--out", default="logs/retention/cells.jsonl")
    parser.add_argument("--part", choices=tuple(PARTS), action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="cells by name: arms, networks, cases or explainers")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    out, parts = Path(args.out), args.part or list(PARTS)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    wanted = [] if args.table else [{"part": part, **cell} for part in parts for cell in PARTS[part][0](args.seeds)]
    wanted = [cell for cell in wanted if not args.only or set(args.only) & set(map(str, cell.values()))]
    missing = missing_cells(wanted, read_cells(out))
    done = run_cells(out, missing, partial(measure, args=args), args.jobs)
    for part in parts:
        if lines := [line for line in done if line["part"] == part]:
            print(f"\n{part}")
            PARTS[part][2](lines)


if __name__ == "__main__":
    main()
