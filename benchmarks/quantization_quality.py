"""What integers cost in accuracy: after training, trained for, and after pruning with a teacher; in ONNX Runtime.

    python benchmarks/quantization_quality.py [--data-dir data] [--part ladder|whole] [--bits 8] [--jobs 2]

Fashion-MNIST, one thread a process; goes on where it stopped: each finished cell is a line of --out. Tables of means
over seeds with 95% intervals (Student's t).

``ladder``: the dense ResNet-20 of pruning_quality.py, its weights rounded to 8 bits (7 of them used, the default), 4, 3
and 2: after training ("ptq": ranges seen on 16 batches of 64), or for one more epoch ("qat"); "float" is that epoch
without rounding. Accuracy is that of the fake-quantised network; of 8 bits also in ONNX Runtime, with the share of the
10,000 test images on which both predict the same.

``whole``: one run on a dense ResNet-8 of width 64, and 32, with a stem of stride 2: cut to a quarter of its
multiply-accumulates with its dense self as the teacher, then trained for integers. Latency of
the int8 file against the dense float one in ONNX Runtime, one thread, alternating.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _cells import Cell, missing_cells, read_cells, run_cells
from pruning_quality import (
    accuracy,
    be_quiet,
    dense,
    fit,
    interval,
    test_set,
    train_dense,
    training_samples,
)
from torch import nn

from lit_xai.callbacks import KnowledgeDistillation, QuantizationAwareTraining, StructuredPruning
from lit_xai.functional import count_macs, measure_latency, quantize
from lit_xai.models import ResNet
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.session import import_onnxruntime

BITS = (8, 4, 3, 2)
TUNING_LR = 0.02
WIDTHS = (64, 32)
DENSE_EPOCHS, EPOCHS, LR = 3, 5, 0.05
EXAMPLE = torch.zeros(2, 1, 28, 28)


def cells(part: str, seeds: list[int], bits: Iterable[int] = BITS) -> Iterator[Cell]:
    """Yield what identifies each measurement."""
    for seed in seeds:
        if part == "ladder":
            yield {"part": part, "seed": seed, "method": "float", "bits": 32}
            for width in bits:
                for method in ("ptq", "qat"):
                    yield {"part": part, "seed": seed, "method": method, "bits": width}
        else:
            for width in WIDTHS:
                yield {"part": part, "seed": seed, "width": width}


def in_runtime(network: nn.Module, args: argparse.Namespace, path: Path) -> dict[str, float]:
    """Export, and return accuracy in ONNX Runtime and how often it predicts what the network does."""
    onnxruntime = import_onnxruntime()
    export_onnx(network.eval(), EXAMPLE, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    right = same = seen = 0
    for x, y in test_set(args.data_dir):
        found = session.run(None, {"input": x.numpy()})[0].argmax(1)
        with torch.no_grad():
            ours = network(x).argmax(1).numpy()
        right, same, seen = right + int((found == y.numpy()).sum()), same + int((found == ours).sum()), seen + len(y)
    return {"runtime": right / seen, "agreement": same / seen, "images": seen}


def ladder(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure one rung."""
    seed, network = cell["seed"], dense(args, cell["seed"])
    found = {"dense": accuracy(network, test_set(args.data_dir))}
    if cell["method"] == "ptq":
        batches = training_samples(args.data_dir, 16 * 64, seed)
        rounded: nn.Module = quantize(network, batches, bits=cell["bits"], progress=False)
    else:
        trained = cell["method"] == "qat"
        callbacks = [QuantizationAwareTraining(0, bits=cell["bits"], freeze_epoch=1)] if trained else []
        fit(network, args, seed, 1, TUNING_LR, callbacks=callbacks)
        rounded = network
    found["accuracy"] = accuracy(rounded, test_set(args.data_dir))
    if cell["bits"] == 8:
        with tempfile.TemporaryDirectory() as folder:
            found |= in_runtime(rounded, args, Path(folder) / "int8.onnx")
    return found


def whole(cell: Cell, args: argparse.Namespace) -> Cell:
    """Prune, teach and quantise in one run, and compare files."""
    seed, width = cell["seed"], cell["width"]
    torch.manual_seed(seed)
    network = ResNet(8, width=width, stem_stride=2, in_channels=1)
    weights = Path(args.work_dir, f"resnet8-{width}-{seed}.pt")
    if weights.exists():
        network.load_state_dict(torch.load(weights))
    else:
        fit(network, args, seed, DENSE_EPOCHS, 0.1)
        torch.save(network.state_dict(), weights)
    found: Cell = {"dense": accuracy(network, test_set(args.data_dir)), "macs": count_macs(network, EXAMPLE)}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("fp32", "int8")}
        export_onnx(network.eval(), EXAMPLE, files["fp32"])
        callbacks = [
            StructuredPruning(target_macs=0.25, start_epoch=0, end_epoch=1, every_n_epochs=1, report_latency=False),
            KnowledgeDistillation("dense"),
            QuantizationAwareTraining(EPOCHS - 2, freeze_epoch=EPOCHS - 1),
        ]
        fit(network, args, seed, EPOCHS, LR, callbacks=callbacks)
        found |= {"macs_left": count_macs(network, EXAMPLE) / found["macs"]}
        found |= {"accuracy": accuracy(network, test_set(args.data_dir)), **in_runtime(network, args, files["int8"])}
        found["file"] = files["int8"].stat().st_size / files["fp32"].stat().st_size
        for batch in (1, 64):
            inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 1, 28, 28), np.float32))
            times: dict[str, list[float]] = {name: [] for name in files}
            for _ in range(7):
                for name, path in files.items():
                    times[name].append(measure_latency(path, inputs, seconds=0.2).milliseconds)
            found[f"faster_{batch}"] = float(np.median(times["fp32"]) / np.median(times["int8"]))
    return found


def measure(cell: Cell, args: argparse.Namespace) -> Cell:
    """Measure a cell, in a process of its own."""
    be_quiet()
    return {**cell, **(ladder if cell["part"] == "ladder" else whole)(cell, args)}


def report(done: list[Cell]) -> None:
    """Print what there is."""
    rungs = [line for line in done if line["part"] == "ladder"]
    if rungs:
        dense_accuracy = interval(list({line["seed"]: line["dense"] for line in rungs}.values()))
        print(f"ResNet-20 of width 16, dense {dense_accuracy} %\n  {'':12}{'accuracy %':>14}{'over dense':>14}", end="")
        print(f"{'in runtime':>14}{'agreement %':>14}{'qat over ptq':>14}")
    for bits, method in dict.fromkeys((line["bits"], line["method"]) for line in rungs):
        lines = {line["seed"]: line for line in rungs if (line["bits"], line["method"]) == (bits, method)}
        row = [interval([line["accuracy"] for line in lines.values()])]
        row += [interval([line["accuracy"] - line["dense"] for line in lines.values()])]
        for key in ("runtime", "agreement"):
            values = [line[key] for line in lines.values() if key in line]
            row.append(interval(values) if values else "")
        ptq = {x["seed"]: x["accuracy"] for x in rungs if (x["bits"], x["method"]) == (bits, "ptq")}
        leads = [line["accuracy"] - ptq[seed] for seed, line in lines.items() if method == "qat" and seed in ptq]
        row.append(interval(leads) if leads else "")
        print(f"  {f'{bits} bits {method}':12}" + "".join(f"{value:>14}" for value in row))
    for width in dict.fromkeys(line["width"] for line in done if line["part"] == "whole"):
        lines_ = [line for line in done if line["part"] == "whole" and line["width"] == width]
        print(
            f"ResNet-8 of width {width}, pruned, taught and quantised: dense {interval([x['dense'] for x in lines_])} %"
        )
        print(f"  int8 in ONNX Runtime {interval([x['runtime'] for x in lines_])} %,", end=" ")
        print(f"over dense {interval([x['runtime'] - x['dense'] for x in lines_])}, agreement", end=" ")
        print(f"{interval([x['agreement'] for x in lines_])} %, file {interval([x['file'] for x in lines_])} %")
        for batch in (1, 64):
            speed = " ".join(f"{line[f'faster_{batch}']:.1f}" for line in lines_)
            print(f"  batch {batch}: {speed} times as fast as dense float; MACs left {lines_[0]['macs_left']:.3f}")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--work-dir", default="logs/pruning_quality", help="of dense weights")
    parser.add_argument("--out", default="logs/quantization_quality/cells.jsonl")
    parser.add_argument("--part", choices=("ladder", "whole"), action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", type=int, nargs="+", choices=BITS, default=list(BITS), help="of the ladder's rungs")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    out = Path(args.out)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    wanted = [cell for part in args.part or ["ladder", "whole"] for cell in cells(part, args.seeds, args.bits)]
    missing = missing_cells(wanted, read_cells(out))
    trains = any(cell["part"] == "ladder" for cell in missing)
    first = [partial(train_dense, seed, args) for seed in args.seeds if trains]
    done = run_cells(out, missing, partial(measure, args=args), args.jobs, first)
    report(done)


if __name__ == "__main__":
    main()
