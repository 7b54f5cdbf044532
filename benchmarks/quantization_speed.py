"""What 8-bit integers buy at run time: an int8 file's latency as a share of the fp32 file's, in each runtime.

    python benchmarks/quantization_speed.py [--rounds 15] [--network resnet8-16 ...]

Quantised after training, for any CPU (the default), on random images; one thread, batches of 1, 16 and 64, medians over
rounds in which the files alternate, in time of the processor. Beside it: the size of the file, and how many of the
convolutions, sums and matrix products with weights are integer in the graph that the runtime executes. Where a runtime
can compute floats in fewer bits on this CPU (bf16 in OpenVINO), that is a row too.

On some networks the same for NNCF, which gets the network with its BatchNorms folded, for torchao's PT2E with its
X86InductorQuantizer, each exported by the exporter of torch that can, and for FasterAI, whose own export takes a single
batch size. Where one is not installed (``pip install nncf``, or ``fasterai`` with torch 2.14) or fails, it says so. On
vision transformers the same for weights alone in integers, and for ONNX Runtime's dynamic quantization; on recommenders
the same with tables of embeddings in float. NNCF compiles C++ when first used, for up to a minute: let it.
"""

import argparse
import contextlib
import importlib
import io
import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_xai.models import ResNet, TextTransformer, TwoTower, VisionTransformer
from lit_xai.network.copying import copy_network
from lit_xai.network.profiling import with_batch_size
from lit_xai.pruning.pruning import pruned_copy
from lit_xai.quantization.folding import find_foldable, fold_batch_norms_
from lit_xai.quantization.observers import quiet_import
from lit_xai.quantization.quantization import quantize
from lit_xai.runtime.latency import cpu_name
from lit_xai.runtime.loaded import feed_of
from lit_xai.runtime.onnx import export_onnx, named_tensors
from lit_xai.runtime.runtimes import RUNTIMES
from lit_xai.runtime.session import import_onnxruntime

USERS, ITEMS, GENRES = 943, 1682, 19
BATCHES = (1, 16, 64)
KINDS = ("convolution", "sum", "matrix product")


class Residual(nn.Module):
    """Four convolutions with BatchNorm, a max-pooling and a residual sum."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv4, self.bn4 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of 3x32x32 images."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x))))) + x)
        return self.head(x.mean((2, 3)))


def mobile(width: int = 64) -> nn.Module:
    """Return a stem and four pairs of a depthwise and a pointwise convolution, as in MobileNet."""

    def conv(taken: int, given: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(taken, given, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(given), nn.ReLU6()]

    layers, channels = conv(1, width, 3, 2), width
    for given, stride in ((width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2)):
        layers += [*conv(channels, channels, 3, stride, channels), *conv(channels, given, 1)]
        channels = given
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def bert(hidden: int) -> nn.Module:
    """Return a BERT of two layers."""
    with quiet_import():
        from transformers import BertConfig, BertForSequenceClassification
    sizes = {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": hidden // 32}
    return BertForSequenceClassification(BertConfig(vocab_size=1000, intermediate_size=4 * hidden, **sizes))


def text(dim: int, share: float = 0.0) -> nn.Module:
    """Return the transformer for texts, of one block, with a share of its channels removed: half leaves a quarter."""
    network = TextTransformer(8000, dim=dim, depth=1, heads=4)
    return pruned_copy(network, sentences(25), pruning_ratio=share, round_to=16) if share else network


def images(channels: int, size: int) -> Callable[[], Tensor]:
    """Return what makes random images."""
    return lambda: torch.randn(64, channels, size, size)


def sentences(length: int = 32) -> dict[str, Tensor]:
    """Return random sentences."""
    return {"input_ids": torch.randint(1000, (64, length)), "attention_mask": torch.ones(64, length, dtype=torch.long)}


def resnet8(width: int) -> nn.Module:
    """Return a ResNet-8 for 1x28x28 images."""
    return ResNet(8, width=width, stem_stride=2, in_channels=1)


def vit(dim: int) -> nn.Module:
    """Return a vision transformer of two blocks on 16 tokens."""
    return VisionTransformer(28, 7, 1, 10, dim=dim, depth=2, heads=dim // 32)


def two_tower(factors: int) -> nn.Module:
    """Return the recommender of configs/two_tower.yaml, at a width."""
    network = TwoTower(USERS, ITEMS, GENRES, factors=factors, mean=3.5)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0.0, 0.1)  # tables start near zero
    return network


def ratings() -> dict[str, Tensor]:
    """Return what a recommender is asked: users and items, and what is known of them."""
    user, item = torch.randint(USERS, (64,)), torch.randint(ITEMS, (64,))
    seen, genres = torch.rand(64, ITEMS) < 0.06, torch.rand(64, GENRES) < 0.1
    history = torch.randn(64, ITEMS) * seen
    return {"user": user, "item": item, "history": history, "seen": seen.float(), "genres": genres.float()}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "residual": (Residual, images(3, 32)),
    **{f"resnet8-{width}": (lambda width=width: resnet8(width), images(1, 28)) for width in (16, 32, 64)},
    "mobile-64": (mobile, images(1, 28)),
    **{f"vit-{dim}": (lambda dim=dim: vit(dim), images(1, 28)) for dim in (64, 192, 384)},
    **{f"bert-{hidden}": (lambda hidden=hidden: bert(hidden), sentences) for hidden in (64, 384)},
    **{f"text-{dim}": (lambda dim=dim: text(dim), lambda: sentences(25)) for dim in (64, 128, 256)},
    **{f"half-{dim}": (lambda dim=dim: text(dim, 0.5), lambda: sentences(25)) for dim in (64, 128, 256, 384, 512)},
    **{f"two-tower-{n}": (lambda n=n: two_tower(n), ratings) for n in (8, 32, 64, 128)},
}
WRITERS_OF = {
    **dict.fromkeys(("residual", "resnet8-16", "resnet8-64"), ("ours", "nncf", "pt2e", "fasterai")),
    **dict.fromkeys(("vit-192", "vit-384"), ("ours", "weights", "dynamic")),
    **dict.fromkeys((f"two-tower-{n}" for n in (8, 32, 64, 128)), ("ours", "tables")),
}
"""The writers of files of networks that have other ones than ours."""


def folded(network: nn.Module, inputs: Any) -> nn.Module:
    """Return a copy without BatchNorms."""
    copied = copy_network(network)
    fold_batch_norms_(copied, find_foldable(copied, inputs))
    return copied


def import_nncf() -> Any:
    """Import NNCF: without telemetry, and with the path to ninja, which it compiles with."""
    os.environ.update(CI="true", NNCF_CI="1", NNCF_EXTENSION_LOAD_TIMEOUT="600")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf


def write_ours(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write what this library makes of a network."""
    export_onnx(quantize(network, batches, progress=False), batches[0], path)


def write_weights(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write a network with weights alone in integers."""
    export_onnx(quantize(network, batches, activations="float", progress=False), batches[0], path)


def write_tables(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write what this library makes of a network, with its tables of embeddings in float."""
    export_onnx(quantize(network, batches, ignored_layers=[nn.Embedding], progress=False), batches[0], path)


def write_dynamic(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write what ONNX Runtime makes of the float file, with the range of each activation taken in every call."""
    import_onnxruntime()
    tools = importlib.import_module("onnxruntime.quantization")
    options = {"weight_type": tools.QuantType.QInt8, "per_channel": True}
    tools.quantize_dynamic(path.with_name("fp32.onnx"), path, **options)


def write_nncf(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write what NNCF makes of it: the newer exporter stumbles on its fake-quantisers."""
    nncf = import_nncf()
    found = nncf.quantize(folded(network, batches[0]), nncf.Dataset(batches), subset_size=len(batches))
    plain = nncf.strip(found, do_copy=True, example_input=batches[0])
    axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(plain, (batches[0],), str(path), dynamo=False, opset_version=17, **names)


def write_pt2e(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write what torchao makes of it."""
    with quiet_import():
        from torchao.quantization.pt2e import move_exported_model_to_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    dynamic = ({0: torch.export.Dim.AUTO},)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(network, (batches[0],), dynamic_shapes=dynamic).module(), quantizer)
    for batch in batches:
        prepared(batch)
    found = move_exported_model_to_eval(convert_pt2e(prepared))
    program = torch.onnx.export(found, (batches[0],), input_names=["input"], dynamic_shapes=dynamic, dynamo=True)
    program.save(path, external_data=False)


def write_fasterai(network: nn.Module, batches: list[Any], path: Path) -> None:
    """Write what FasterAI makes of it, for this number of samples alone."""
    from fasterai.export.onnx_exporter import export_onnx as export

    options: dict[str, Any] = {"quantize": True, "quantize_mode": "static", "calibration_data": batches}
    export(copy_network(network), batches[0], path, **options).replace(path)


WRITERS = {
    "ours": write_ours,
    "nncf": write_nncf,
    "pt2e": write_pt2e,
    "fasterai": write_fasterai,
    "weights": write_weights,
    "tables": write_tables,
    "dynamic": write_dynamic,
}


def written(name: str, network: nn.Module, batches: list[Any], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that there can be of a network."""
    export_onnx(network, batches[0], folder / "fp32.onnx")
    yield "fp32", folder / "fp32.onnx"
    for writer in WRITERS_OF.get(name, ("ours",)):
        try:
            with quiet(), torch.no_grad():
                WRITERS[writer](network, batches, folder / f"{writer}.onnx")
            yield writer, folder / f"{writer}.onnx"
        except Exception as error:
            if writer == "ours":
                raise
            print(f"{name:14}{writer:9} left out: {type(error).__name__}: {str(error).strip().splitlines()[0]}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters print from the table."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def opened(files: dict[str, Path]) -> dict[tuple[str, str, str], Any]:
    """Load each file on one thread in each runtime that is installed, float files in each precision that it has."""
    return {
        (name, runtime.name, precision): runtime.load(path, 1, precision)
        for runtime in RUNTIMES.values()
        if runtime.is_installed and ".onnx" in runtime.suffixes
        for name, path in files.items()
        for precision in (runtime.precisions() if name == "fp32" else ("f32",))
    }


def seconds(model: Any, feed: dict[str, Any], calls: int) -> float:
    """Return the time of the processor that a call takes."""
    start = time.process_time()
    for _ in range(calls):
        model.run(feed)
    return (time.process_time() - start) / calls


Shares = dict[tuple[str, str, str], tuple[float, float]]
"""Milliseconds, and the share of the float file's in the same runtime and round, of a file, runtime and precision."""


def takes(model: Any, rows: int) -> bool:
    """Return whether a file takes so many samples."""
    return all(one.shape[0] in (None, rows) for one in model.inputs.values())


def latencies(files: dict[str, Path], inputs: Any, rounds: int) -> Shares:
    """Return milliseconds, and the share of the fp32 file's in the same runtime and round; medians."""
    rows = len(next(iter(named_tensors(inputs).values())))
    models = {key: one for key, one in opened(files).items() if takes(one, rows)}
    feeds = {key: feed_of(model, inputs) for key, model in models.items()}
    calls = {key: 1 + int(0.02 / seconds(model, feeds[key], 3)) for key, model in models.items()}
    found: dict[tuple[str, str, str], list[float]] = {key: [] for key in models}
    for _ in range(rounds):
        for key, model in models.items():
            found[key].append(seconds(model, feeds[key], calls[key]))
    return {
        (name, runtime, precision): (
            1e3 * median(times),
            median(a / b for a, b in zip(times, found["fp32", runtime, "f32"], strict=True)),
        )
        for (name, runtime, precision), times in found.items()
    }


def integers(path: Path, runtime: str) -> str:
    """Count what a runtime computes in integers."""
    found = RUNTIMES[runtime].operators(path)
    counted = {kind: [one.integer for one in found if one.kind == kind] for kind in KINDS}
    return "".join(f"{f'{sum(one)}/{len(one)}':>15}" for one in counted.values())


def cpu() -> str:
    """Name the processor, and what it has for products of integers."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return f"{cpu_name()}, what it has for integers is not known"
    known = {"AVX-512 VNNI": "avx512_vnni", "AVX-VNNI": "avx_vnni", "AMX": "amx_int8", "ARM dot products": "asimddp"}
    return f"{cpu_name()}, with {' and '.join(name for name, flag in known.items() if flag in flags) or 'none of VNNI'}"


def main() -> None:
    """Print one line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    versions = ", ".join(f"{one.label} {one.version}" for one in RUNTIMES.values() if one.is_installed)
    print(f"{cpu()}; {versions}, 1 thread; milliseconds of the fp32 file, and shares of it in the same runtime")
    titles = "".join(f"{f'batch {n}':>11}" for n in BATCHES) + "".join(f"{kind:>15}" for kind in KINDS)
    print(f"{'':41}{'size':>7}{titles}")
    for name in arguments.network or NETWORKS:
        torch.manual_seed(0)
        make, inputs = NETWORKS[name]
        network, batches = make(), [inputs() for _ in range(4)]
        if not isinstance(batches[0], dict):
            for batch in batches:  # statistics of BatchNorms
                network(batch)
        network.eval()
        with tempfile.TemporaryDirectory() as folder:
            files = dict(written(name, network, batches, Path(folder)))
            found = [latencies(files, with_batch_size(batches[0], n), arguments.rounds) for n in BATCHES]
            for variant, runtime, precision in found[-1]:
                path = files[variant]
                size = path.stat().st_size / files["fp32"].stat().st_size
                row = f"{name:14}{variant:9}{runtime:12}{precision:6}{size:7.2f}"
                for one in found:
                    milliseconds, share = one.get((variant, runtime, precision), (math.nan, math.nan))
                    row += f"{milliseconds:9.3f}ms" if (variant, precision) == ("fp32", "f32") else f"{share:11.2f}"
                print(row + (integers(path, runtime) if precision == "f32" else ""), flush=True)


if __name__ == "__main__":
    main()
