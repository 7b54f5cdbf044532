"""What each callback would do with a network, in lines of text; nothing here changes the network."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lit_xai.attribution.explanation import explain
from lit_xai.attribution.tokens import METHOD, embedding_instead
from lit_xai.network.calling import Inputs, OutputSpec, call_network
from lit_xai.network.copying import copy_network
from lit_xai.network.describing import describe
from lit_xai.network.layers import channels
from lit_xai.network.packages import ONNX, require
from lit_xai.network.profiling import batch_size, count_macs, count_parameters, with_batch_size
from lit_xai.network.trees import Held
from lit_xai.network.untouched import untouched
from lit_xai.pruning.culprits import in_words
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.targets import DEFAULT, LEAST
from lit_xai.quantization.quantization import prepare_
from lit_xai.quantization.rehearsal import rehearse
from lit_xai.render.summary import write_number
from lit_xai.runtime.onnx import export_onnx

SCHEME: dict[str, Any] = {"bits": 8, "cpu": "any", "activations": "unsigned", "ignored_layers": ()}
"""How QuantizationAwareTraining quantizes by default."""


def sizes(network: nn.Module, inputs: Inputs, output: OutputSpec) -> str:
    """Return the size of the network, and what it answers.

    Example:
        >>> sizes(nn.Linear(4, 2), torch.zeros(1, 4), None)
        '10 parameters, 8 MACs for one sample; logits Tensor[1, 2] float32.'
    """
    with untouched(network), torch.no_grad():
        logits = call_network(network, inputs, output=output)
    try:
        macs = f"{write_number('MACs', count_macs(network, inputs, output=output))} for one sample"
    except ValueError as error:
        macs = f"MACs unknown ({error})"
    return f"{write_number('params', count_parameters(network))} parameters, {macs}; logits {describe(logits)}."


def pruning(network: nn.Module, inputs: Inputs, output: OutputSpec) -> str:
    """Return what StructuredPruning can remove, and what stays whole.

    Raises:
        ValueError: nothing can be removed; says why.
    """
    prunable = Prunable.copy_of(network, inputs, output=output)
    prunable.take(prunable.halved, exact=True)
    names = [name for group in prunable.groups for name in group.layers]
    layers = [name for name in channels(network) if name in names]
    with prunable.pruned(prunable.moves) as smallest:
        least = count_parameters(smallest) / max(1, count_parameters(network))
        try:
            least_macs = count_macs(smallest, inputs, output=output) / max(
                1, count_macs(network, inputs, output=output)
            )
        except ValueError:
            least_macs = None
    reach = f"{least:.1%} of the parameters" + ("" if least_macs is None else f" and {least_macs:.1%} of the MACs")
    whole = f" Stay whole: {in_words(prunable.kept_whole)}." if prunable.kept_whole else ""
    n = f"{len(prunable.groups)} groups" if len(prunable.groups) != 1 else "1 group"
    count = f"{len(layers)} layer{'s' if len(layers) != 1 else ''}"
    default = ""
    if least_macs is not None and least_macs <= 1 - LEAST:
        default = f" Without a target, StructuredPruning leaves {max(DEFAULT.amount, least_macs):.0%} of the MACs."
    return f"{count} in {n} can lose channels, down to {reach}.{default}{whole}"


def quantization(network: nn.Module, inputs: Inputs, output: OutputSpec) -> str:
    """Return which layers QuantizationAwareTraining computes in integers.

    Raises:
        ValueError: nothing can be quantized; says why.
    """
    return f"{rehearse(network, inputs, SCHEME, output).summary()}"


def attribution(network: nn.Module, inputs: Inputs, labels: Tensor | None, output: OutputSpec) -> str:
    """Return what AttributionMonitor explains by default.

    Raises:
        ValueError: nothing can be explained; says why.
    """
    started = time.perf_counter()
    tokens = embedding_instead(network, inputs, output=output)
    by: dict[str, Any] = {"method": "IntegratedGradients"}
    if tokens is not None:
        by = {"method": METHOD, "layer": tokens.layer, "baselines": tokens.padding}
    found = explain(network, inputs, labels, output=output, internal_batch_size=64, **by)
    seconds = time.perf_counter() - started
    n = len(next(iter(found.attributions.values())))
    what = ", ".join(f"{name or 'input'} {list(value.shape[1:])}" for name, value in found.attributions.items())
    where = "" if tokens is None else f" at the embedding {tokens.layer!r}"
    return f"{by['method']} of {what}{where}; {seconds / n:.2g} s a sample."


def distillation(network: nn.Module, inputs: Inputs, output: OutputSpec) -> str:
    """Return what a teacher of KnowledgeDistillation is called with, and has to answer."""
    with untouched(network), torch.no_grad():
        logits = call_network(network, inputs, output=output)
    shape = ", ".join(str(size) for size in logits.shape[1:]) or "no more dimensions"
    called = (
        {key: value for key, value in inputs.items() if not isinstance(value, Held)} if _is_dict(inputs) else inputs
    )
    return f"a teacher is called with {describe(called)}, and answers with (samples, {shape}), as this network does."


def _is_dict(inputs: Inputs) -> TypeGuard[dict[str, Any]]:
    return isinstance(inputs, dict)


def export(network: nn.Module, inputs: Inputs, output: OutputSpec) -> str:
    """Return the size of the ONNX file that ModelExport writes.

    Raises:
        ValueError: the network cannot be exported; says why.
    """
    require("ModelExport", *ONNX, "onnxruntime")
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(network, inputs, path, output=output)
        return f"an ONNX file of {write_number('size', path.stat().st_size)}."


def costs(network: nn.Module, inputs: Inputs, output: OutputSpec, samples: int = 8) -> str:
    """Return the time of a forward and backward pass, and how much of it quantization and a teacher add."""
    several = with_batch_size(inputs, samples) if batch_size(inputs) else inputs
    plain, forward = _times(copy_network(network), several, output)
    text = f"forward and backward {plain * 1e3:.3g} ms for {samples} samples; with a teacher of its own size"
    text += f" {(plain + forward) / plain:.2f} times that"
    try:
        quantized = copy_network(network)
        prepare_(quantized, rehearse(network, inputs, SCHEME, output).plan).enable_fake_quant_(True)
    except ValueError:
        return f"{text}."
    return f"{text}, quantized {_times(quantized, several, output)[0] / plain:.2f} times."


def _times(copied: nn.Module, inputs: Inputs, output: OutputSpec) -> tuple[float, float]:
    """Return the seconds of a forward and backward pass, and of a forward pass alone."""
    with untouched(copied):
        both = _seconds(lambda: call_network(copied, inputs, output=output).float().sum().backward())
        with torch.no_grad():
            return both, _seconds(lambda: call_network(copied, inputs, output=output))


def _seconds(work: Callable[[], object], repeats: int = 5) -> float:
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
