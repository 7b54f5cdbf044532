"""The deployed model: how much faster than the dense network, in the runtime that suits it, and what it costs.

    python benchmarks/deployed.py [--data-dir data] [--seeds 0 1 2] [--speed-only]

Fashion-MNIST, a ResNet-8 of width 64, dense for 4 epochs on 19,200 images (``--stem_stride 2``: at a quarter of the
cost, and with less to gain). Compressed from there in 6 more epochs, with the dense network as a teacher: channels go
in the first three of them until a quarter of the multiply-accumulates is left, and the last two train for 8-bit
integers. Each network is exported and its file run in every runtime that is installed: accuracy on 10,000 test images,
the share of predictions that are the quantized network's in torch, and latency on one thread at batch 1 and 64, in time
of the processor, in rounds in which all files run in turn. Ratios are against the dense network in float in ONNX
Runtime.

``--speed-only``: latencies of networks of these shapes with random weights, in a minute. ``--ignore conv1`` leaves the
first convolution in float, which ONNX Runtime computes faster on images of one channel.
"""

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from _retention import batches, fit, images, where
from pruning_quality import be_quiet
from torch import Tensor, nn

from lit_xai.callbacks import KnowledgeDistillation, QuantizationAwareTraining, StructuredPruning
from lit_xai.functional import count_macs, quantize
from lit_xai.models import ResNet
from lit_xai.pruning.pruning import pruned_copy
from lit_xai.runtime.latency import cpu_name
from lit_xai.runtime.loaded import feed_of
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.runtimes import RUNTIMES

BATCHES, ROUNDS, DENSE_EPOCHS, EPOCHS = (1, 64), 25, 4, 6
EXAMPLE = torch.zeros(64, 1, 28, 28)


@dataclass(frozen=True)
class File:
    """A file in a runtime.

    Args:
        name: of the network.
        runtime: that runs it, and the precision of its floats.
        path: of the file.
    """

    name: str
    runtime: tuple[str, str]
    path: Path

    def __str__(self) -> str:
        """Return what it is and where it runs, for the table."""
        return f"{self.name} {'/'.join(self.runtime)}"

    def load(self) -> Any:
        """Return the file on one thread."""
        name, precision = self.runtime
        return RUNTIMES[name].load(self.path, 1, precision)


def network(args: argparse.Namespace) -> ResNet:
    """Return an untrained dense network."""
    return ResNet(8, width=64, stem_stride=args.stem_stride, in_channels=1)


def dense(args: argparse.Namespace, seed: int) -> nn.Module:
    """Return the trained dense network, from the work folder if it is there."""
    path = Path(args.work_dir, f"dense-{args.stem_stride}-{seed}.pt")
    torch.manual_seed(seed)
    trained = network(args)
    if not path.exists():
        fit(trained, batches(args, seed), seed, DENSE_EPOCHS, 0.1, rises=True)
        torch.save(trained.state_dict(), path)
    trained.load_state_dict(torch.load(path, weights_only=True))
    return trained.eval()


def compressed(args: argparse.Namespace, seed: int, original: nn.Module) -> nn.Module:
    """Return the network that is deployed, with fake-quantize modules."""
    made = copy.deepcopy(original)
    callbacks = [
        StructuredPruning(target_macs=0.25, start_epoch=0, end_epoch=2, round_to=16, report_latency=False),
        KnowledgeDistillation(copy.deepcopy(original), cache="memory"),
        QuantizationAwareTraining(EPOCHS - 2, cpu=args.cpu, ignored_layers=args.ignore),
    ]
    fit(made, batches(args, seed), seed, EPOCHS, 0.05, callbacks)
    return made.eval()


def untrained(args: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Return networks of these shapes with random weights."""
    torch.manual_seed(0)
    original, x = network(args), torch.rand(64, 1, 28, 28)
    with torch.no_grad():
        for _ in range(3):  # statistics of BatchNorms
            original(torch.rand(64, 1, 28, 28))
    made = pruned_copy(original.eval(), x, pruning_ratio=0.5)
    return original, quantize(made, [x], progress=False, cpu=args.cpu, ignored_layers=args.ignore)


def files(folder: Path, original: nn.Module, made: nn.Module) -> Iterator[File]:
    """Export both networks, and yield their files in each runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in (("dense", original), ("deployed", made)):
        export_onnx(one, EXAMPLE, folder / f"{name}.onnx")
    yield from exported(folder)


def exported(folder: Path) -> Iterator[File]:
    """Yield the files of a folder in each runtime."""
    for name in ("dense", "deployed"):
        path = folder / f"{name}.onnx"
        for runtime in RUNTIMES.values():
            if runtime.is_installed and ".onnx" in runtime.suffixes:
                for precision in runtime.precisions() if name == "dense" else ("f32",):
                    yield File(name, (runtime.name, precision), path)


def latencies(every: list[File], x: Tensor) -> dict[str, dict[int, list[float]]]:
    """Return milliseconds of the processor for each file at each batch size, of each round."""
    models = {str(one): one.load() for one in every}
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in BATCHES} for name in models}
    for n in BATCHES:
        feeds = {name: feed_of(model, x[:n]) for name, model in models.items()}
        calls = {name: 1 + int(0.03 / seconds(models[name], feeds[name], 3)) for name in models}
        for _ in range(ROUNDS):
            for name, model in models.items():
                found[name][n].append(1e3 * seconds(model, feeds[name], calls[name]))
    return found


def seconds(model: Any, feed: Any, calls: int) -> float:
    """Return the time of the processor that a call takes: what else the machine does costs nothing."""
    model.run(feed)
    start = time.process_time()
    for _ in range(calls):
        model.run(feed)
    return (time.process_time() - start) / calls


def predictions(model: Any, x: Tensor) -> Tensor:
    """Return the classes that a file predicts."""
    return torch.cat([torch.from_numpy(model.run(feed_of(model, part))[0]).argmax(1) for part in x.split(500)])


def folder_of(args: argparse.Namespace, seed: int) -> Path:
    """Return where the files of a seed lie."""
    return Path(args.work_dir, "-".join([f"files-{args.stem_stride}-{seed}", args.cpu, *args.ignore]))


def measure(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train, export and measure the networks of a seed."""
    original, x, y = dense(args, seed), *images(where(args), "test")
    made = compressed(args, seed, original)
    every = list(files(folder_of(args, seed), original, made))
    with torch.no_grad():
        in_torch = torch.cat([made(part).argmax(1) for part in x.split(500)])
    line: dict[str, Any] = {"seed": seed, "macs": count_macs(made, EXAMPLE[:1]) / count_macs(original, EXAMPLE[:1])}
    line["accuracy"], line["agreement"] = {}, {}
    for one in every:
        predicted, name = predictions(one.load(), x), str(one)
        line["accuracy"][name] = 100 * float((predicted == y).float().mean())
        if one.name == "deployed":
            line["agreement"][name] = 100 * float((predicted == in_torch).float().mean())
    return line


def report(lines: list[dict[str, Any]]) -> None:
    """Print each file's latency, its share of the dense float file's, accuracy and agreement, as means over seeds."""
    print(f"{cpu_name()}, 1 thread; medians of {ROUNDS} rounds, means of seeds {[line['seed'] for line in lines]}")
    names = list(lines[0]["ms"])
    for name in names:
        text = f"{name:32}"
        for n in BATCHES:
            own, base = ([line["ms"][one][n] for line in lines] for one in (name, names[0]))
            faster = [median(b / a for a, b in zip(*pair, strict=True)) for pair in zip(own, base, strict=True)]
            text += f"  batch {n}: {mean(map(median, own)):8.3f} ms, {mean(faster):5.2f} times as fast"
        if "accuracy" in lines[0]:
            each = [line["accuracy"][name] - line["accuracy"][names[0]] for line in lines]
            text += f"  accuracy {mean(line['accuracy'][name] for line in lines):.2f}% ({mean(each):+.2f}:"
            text += f" {', '.join(f'{one:+.2f}' for one in each)})"
        if name in lines[0].get("agreement", {}):
            agreed = (line["agreement"][name] for line in lines)
            text += "  as in torch " + ", ".join(f"{one:.2f}%" for one in agreed)
        print(text)


def main() -> None:
    """Measure and print; seeds that are done are read from the work folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", default="logs/deployed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stem_stride", type=int, default=1, choices=(1, 2))
    parser.add_argument("--cpu", default="any", help="the target of the integers: any, vnni or arm64")
    parser.add_argument("--ignore", nargs="*", default=[], help="layers that stay in float")
    parser.add_argument("--speed-only", action="store_true")
    args = parser.parse_args()
    be_quiet()
    torch.set_num_threads(1)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    if args.speed_only:
        every = list(files(Path(args.work_dir, "untrained"), *untrained(args)))
        report([{"seed": "none", "ms": latencies(every, torch.rand(64, 1, 28, 28))}])
        return
    lines = []
    for seed in args.seeds:
        path = folder_of(args, seed).with_suffix(".json")
        if not path.exists():
            path.write_text(json.dumps(measure(args, seed)))
        every = list(exported(folder_of(args, seed)))
        lines.append({**json.loads(path.read_text()), "ms": latencies(every, images(where(args), "test")[0])})
        report(lines)


if __name__ == "__main__":
    main()
