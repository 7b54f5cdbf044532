"""Networks that pass on accuracy although something is wrong with them: does the first screen of a report name it?

    python benchmarks/planted.py [--data-dir data] [--seeds 0 1 2]

Fashion-MNIST, a network of two convolutions and two linear layers, dense for 3 epochs on 19,200 images, then cut to 70%
of its multiply-accumulates and fine-tuned for one. 3% of all images are negatives, and the bags are 3% of the test
images; a fifth of the test images bear their class as a mark in the corner. Planted while fine-tuning:

``group``: a share of the negatives has another image's label.
``class``: a share of the bags is left out.
``shortcut``: a share of the images bears the mark.

Reports are drawn from the test samples, with replacement: how often one passes on accuracy (a drop of at most 2
points), how often it names what was planted, and how often anything else. ``A/A``: the two networks of ``nothing``
change places for a random half of the samples, so that neither is better and nothing may be named; groups are drawn as
well. Records of all networks and a figure lie in --work-dir; a run goes on where it stopped.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _retention import DENSE_EPOCHS, data, fit, images, marked, normalized, pixels, where
from matplotlib.figure import Figure
from pruning_quality import be_quiet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.callbacks import StructuredPruning
from lit_xai.functional import CompareOptions, compare_networks
from lit_xai.report.hurt import parts_of, surely_hurt, worth
from lit_xai.report.measured import evidence_of
from lit_xai.report.record import Candidate, Record
from lit_xai.report.shortcuts import shortcut_rows
from lit_xai.report.verdict import judge
from lit_xai.retention.requirements import Requirement

BATCH, TUNING_LR, BAG = 128, 0.02, 8
GROUPS = ("plain", "negative", "marked")
PLANTED = {"group": "negative", "class": "Bag", "shortcut": "shortcut: marked"}
MARGIN, SIZES = 0.02, (1000, 2000, 4000, 9000)
REQUIRED = Requirement.read("accuracy", f"drop<={MARGIN}")
WIDTHS = {"passes": 10, "named": 9, "others": 17}
CASES = {
    "nothing": ("", 0.0),
    **{f"group {share:.0%}": ("group", share) for share in (0.25, 0.5, 1.0)},
    **{f"class {share:.0%}": ("class", share) for share in (0.5, 0.9, 1.0)},
    **{f"shortcut {share:.0%}": ("shortcut", share) for share in (0.1, 0.3, 0.6)},
}


def training(args: argparse.Namespace, seed: int, fault: str = "", share: float = 0.0) -> DataLoader:
    """Return batches of the training images with a fault in a share of them."""
    x, y = images(where(args), "train")
    generator = torch.Generator().manual_seed(seed)
    negative = torch.arange(len(x)) % 33 == 0
    x = torch.where(negative[:, None, None, None], normalized(args, 1 - pixels(args, x)), x)
    chosen = torch.rand(len(x), generator=generator) < share
    if fault == "group":
        others = y[torch.randperm(len(y), generator=generator)]
        y = torch.where(negative & chosen, others, y)
    if fault == "class":
        kept = ~((y == BAG) & chosen)
        x, y = x[kept], y[kept]
    if fault == "shortcut":
        x = torch.where(chosen[:, None, None, None], marked(args, x, y), x)
    return DataLoader(TensorDataset(x, y), BATCH, shuffle=True, drop_last=True, generator=generator)


def testing(args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Return the test images, their labels and their groups."""
    x, y = images(where(args), "test")
    places = torch.arange(len(x))
    groups = torch.where(places % 33 == 0, 1, torch.where(places % 5 == 1, 2, 0))
    x = torch.where((groups == 1)[:, None, None, None], normalized(args, 1 - pixels(args, x)), x)
    x = torch.where((groups == 2)[:, None, None, None], marked(args, x, y), x)
    kept = (y != BAG) | (torch.cumsum(y == BAG, 0) % 10 < 3)
    return x[kept], y[kept], groups[kept]


def dense(args: argparse.Namespace, seed: int) -> nn.Module:
    """Return the trained dense network."""
    torch.manual_seed(seed)
    network: nn.Module = nn.Sequential(
        nn.Conv2d(1, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    path = Path(args.work_dir, f"dense-{seed}.pt")
    if not path.exists():
        fit(network, training(args, seed), seed, DENSE_EPOCHS, 0.05, rises=True)
        torch.save(network.state_dict(), path)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def networks(args: argparse.Namespace, seed: int) -> dict[str, nn.Module]:
    """Return the dense network and what was made of it in each case."""
    found = {"dense": dense(args, seed)}
    for name, (fault, share) in CASES.items():
        network = copy.deepcopy(found["dense"])
        cut = StructuredPruning(target_macs=0.7, start_epoch=0, end_epoch=0, report_latency=False)
        fit(network, training(args, seed, fault, share), seed, 1, TUNING_LR, [cut])
        found[name] = network
    return found


def measured(args: argparse.Namespace, seed: int) -> Record:
    """Return the record of all networks of a seed, from the work folder if it is there."""
    folder = Path(args.work_dir, f"record-{seed}")
    if not folder.exists():
        options = CompareOptions(groups=2, explainers=["IntegratedGradients"], n=args.n, nulls=3, rounds=0)
        loader = DataLoader(TensorDataset(*testing(args)), 500)
        names = [str(one) for one in data(where(args)).class_names]
        record = compare_networks(networks(args, seed), loader, options, class_names=names)
        folder.mkdir()
        record.save(folder)
    return Record.load(folder)


def drawn(record: Record, name: str, n: int, rng: np.random.Generator, is_null: bool = False) -> Record:
    """Return a record of the dense network and another on samples that are drawn with replacement.

    Args:
        record: of all networks.
        name: of the other.
        n: samples.
        rng: draws.
        is_null: whether the networks change places for half of the samples, and the groups are drawn.
    """
    (other,) = (one for one in record.networks if one.name == name)
    (first,) = record.explained
    # Explained samples come first, and are drawn among themselves: as many of n as a report explains.
    explained = rng.integers(len(first.samples), size=min(len(first.samples), n // 4))
    rows = np.concatenate([first.samples[explained], rng.integers(record.n, size=n - len(explained))])
    outputs = [record.reference.outputs[rows], other.outputs[rows]]
    groups = record.groups[rows]
    if is_null:
        swapped = (rng.random(n) < 0.5)[:, None]
        outputs = [np.where(swapped, outputs[1], outputs[0]), np.where(swapped, outputs[0], outputs[1])]
        groups = rng.permutation(groups)
    similarity = {name: first.similarity[name][explained]}
    return replace(
        record,
        networks=(Candidate("dense", outputs[0]), Candidate(name, outputs[1])),
        labels=record.labels[rows],
        groups=groups,
        explained=(replace(first, samples=np.arange(len(explained)), similarity=similarity, null=np.empty((0, 0))),),
        group_names=GROUPS,
    )


def named(record: Record) -> set[str]:
    """Return what the first screen of a report names."""
    parts = parts_of(record)
    hurt = {part.name for part, is_hurt in zip(parts, surely_hurt(record, parts, MARGIN), strict=True) if is_hurt}
    return hurt | {f"shortcut: {row['name']}" for row in shortcut_rows(record)}


def passes(record: Record) -> bool:
    """Return whether accuracy passes."""
    return judge([REQUIRED], evidence_of(record, [REQUIRED])).outcome == "passed"


def rates(records: Sequence[Record], name: str, n: int, draws: int) -> dict[str, float]:
    """Return how often reports of a case pass, name what was planted, and name anything else."""
    rng, rows = np.random.default_rng(0), []
    for record in records:
        for _ in range(draws):
            one = drawn(record, name, n, rng)
            found = named(one)
            wanted = PLANTED.get(CASES[name][0], "")
            rows.append((passes(one), wanted in found, bool(found - {wanted})))
    return dict(zip(("passes", "named", "others"), np.mean(rows, 0).tolist(), strict=True))


def draw(found: dict[str, list[float]], path: str) -> None:
    """Draw how often what was planted is named against the number of test samples, a panel for each fault."""
    figure = Figure((9, 3), layout="constrained")
    panels = figure.subplots(1, len(PLANTED), sharey=True)
    for panel, fault in zip(panels, PLANTED, strict=True):
        shown = [(name, share) for name, (kind, share) in CASES.items() if kind in ("", fault)]
        for place, (name, share) in enumerate(shown):
            color, label = ("0.5", "nothing planted") if not share else (f"C{place - 1}", f"{share:.0%}")
            panel.plot(SIZES, [100 * one for one in found[name]], "o-", color=color, label=label)
        panel.set(title=fault, xlabel="test samples", xscale="log", ylim=(-3, 135), xlim=(900, 10_000))
        panel.set_xticks(SIZES, [f"{n:,}" for n in SIZES], rotation=45)
        panel.minorticks_off()
        panel.set_yticks(range(0, 101, 20))
        panel.legend(frameon=False, fontsize=8, loc="upper center", ncols=2)
    panels[0].set_ylabel("named on the first screen, %")
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", default="logs/planted")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n", type=int, default=320, help="explained samples")
    parser.add_argument("--draws", type=int, default=100, help="of each size and seed")
    parser.add_argument("--nulls", type=int, default=200, help="of each size and seed")
    args = parser.parse_args(argv)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    be_quiet()
    torch.set_num_threads(1)
    records = [measured(args, seed) for seed in args.seeds]
    print(f"{'of all samples':16}{'drop, points':>14}{'passes':>8}  named on the first screen")
    for record in records:
        for name in CASES:
            (one,) = (each for each in record.networks if each.name == name)
            pair = replace(record, networks=(record.reference, one), group_names=GROUPS)
            before, after = (float(each.mean()) for each in worth(pair))
            shown = ", ".join(sorted(named(pair))) or "-"
            print(f"{name:16}{100 * (before - after):14.2f}{'yes' if passes(pair) else 'no':>8}  {shown}")
    print(f"\n{'of':>16}{'n':>8}{'passes %':>10}{'named %':>9}{'anything else %':>17}")
    curves: dict[str, list[float]] = {}
    for name in CASES:
        for n in SIZES:
            found = rates(records, name, n, args.draws)
            print(f"{name:>16}{n:8}" + "".join(f"{100 * found[key]:{w}.0f}" for key, w in WIDTHS.items()), flush=True)
            curves.setdefault(name, []).append(found["named" if CASES[name][0] else "others"])
    draw(curves, str(Path(args.work_dir, "planted.png")))
    for n in SIZES:
        rng = np.random.default_rng(1)
        found = [bool(named(drawn(record, "nothing", n, rng, True))) for record in records for _ in range(args.nulls)]
        print(f"{'A/A':>16}{n:8}  {sum(found)} of {len(found)} name anything", flush=True)


if __name__ == "__main__":
    main()
