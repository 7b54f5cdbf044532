"""Well-known architectures, reduced in size: cut to a share of their cost, quantized, exported, checked."""

import contextlib
import copy
import importlib.util
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from dense_networks import DENSE
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lit_xai.network.calling import call_network
from lit_xai.network.copying import copy_network
from lit_xai.network.linearized import is_transposed
from lit_xai.network.profiling import count_macs, with_batch_size
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import reach
from lit_xai.quantization.quantization import describe_quantization, quantize
from lit_xai.runtime.flat import FlatNetwork
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.session import import_onnxruntime
from lit_xai.structure.kinds import apply_step_

HAS_TIMM = importlib.util.find_spec("timm") is not None


@dataclass(frozen=True)
class Architecture:
    """What builds a network, what it is called with, and its output that goes into a file."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    output: Any = None


def of_transformers(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**options))

    return build


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **options)

    return build


def images(size: int = 64) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, 3, size, size)


def words() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(1, 100, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.int64)}


def sequences() -> dict[str, Tensor]:
    return words() | {"decoder_input_ids": torch.randint(1, 100, (2, 7))}


def sounds() -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, 16, 64), "decoder_input_ids": torch.randint(1, 100, (2, 7))}


BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
WHISPER = {
    **{"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 100},
    **{"decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 16},
    **{"max_source_positions": 32, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1},
    **{"eos_token_id": 2, "decoder_start_token_id": 1, "use_cache": False},
}
SEGFORMER = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "patch_sizes": [3, 3], "strides": [2, 2]}
SEGFORMER |= {"hidden_sizes": [16, 32], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 24}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 10}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 10}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 48), "num_classes": 10}

ARCHITECTURES: Mapping[str, Architecture] = {
    **{name: Architecture(build, images(32)) for name, build in DENSE.items()},
    "timm ConvNeXt": Architecture(of_timm("convnext_atto", **CONVNEXT), images()),
    "timm EfficientNet": Architecture(of_timm("efficientnet_b0", num_classes=10), images()),
    "timm Swin": Architecture(of_timm("swin_tiny_patch4_window7_224", **SWIN), images()),
    "timm ViT": Architecture(of_timm("vit_tiny_patch16_224", **VIT), images(32)),
    "HF BERT": Architecture(
        of_transformers("BertForSequenceClassification", "BertConfig", vocab_size=100, **BERT), words
    ),
    "HF GPT-2": Architecture(
        of_transformers("GPT2LMHeadModel", "GPT2Config", vocab_size=100, use_cache=False, **GPT2), words
    ),
    "HF T5": Architecture(of_transformers("T5ForConditionalGeneration", "T5Config", use_cache=False, **T5), sequences),
    "HF Whisper": Architecture(of_transformers("WhisperForConditionalGeneration", "WhisperConfig", **WHISPER), sounds),
    "HF Segformer": Architecture(
        of_transformers("SegformerForSemanticSegmentation", "SegformerConfig", **SEGFORMER), images(32)
    ),
}
"""By name."""


@dataclass
class Row:
    """What became of one architecture."""

    name: str
    dense: int
    share: float
    """Of the dense network's multiply-accumulates."""
    reasons: list[str] = field(default_factory=list)
    """Why no lower share can be reached, layers that stay whole by reason."""
    difference: float = math.nan
    """The largest between the cut network and the dense one with zeros, as a share of the largest output."""
    integer: int = 0
    layers: int = 0
    """Layers with weights that compute products."""
    exported: str = ""
    """How far the file is from the network, or why there is none."""
    exported_integers: str = ""

    def __str__(self) -> str:
        reasons = "; ".join(self.reasons)
        return (
            f"{self.name:18} {self.share:6.1%} of {self.dense / 1e6:7.2f} M | oracle {self.difference:.1e} |"
            f" integers {self.integer}/{self.layers} | file {self.exported} | int8 file {self.exported_integers}"
            + (f" | {reasons}" if reasons else "")
        )


def made(name: str) -> tuple[nn.Module, Any]:
    """Return a network in eval mode whose every weight and statistic counts in the output, and inputs for it."""
    torch.manual_seed(0)
    network, inputs = ARCHITECTURES[name].build().eval(), ARCHITECTURES[name].inputs()
    with torch.no_grad():
        for parameter in network.parameters():
            # Fresh networks of transformers have weights so small that most of them change no output.
            size = (parameter.numel() / len(parameter)) ** -0.5 if parameter.dim() > 1 else 0.2
            if parameter.dim() < 2 or parameter.std() < size / 2:
                parameter.add_(size * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return network, inputs


def cut(network: nn.Module, inputs: Any, share: float, output: Any = None) -> tuple[dict[str, Any], list[str]]:
    """Return the step to a share of the MACs, or to the lowest one with the reasons, by the library."""
    dense = count_macs(network, inputs, output=output)
    prunable = Prunable(copy_network(network), inputs, output=output)
    measure = lambda pruned: float(count_macs(pruned, inputs, output=output))  # noqa: E731
    try:
        _, step = prunable.take(lambda: reach(prunable, measure, share * dense)[0], exact=True)
        return step, []
    except ValueError as error:
        if "out of reach" not in str(error):
            raise
        _, step = prunable.take(lambda: prunable.moves, exact=True)
        reasons: dict[str, list[str]] = {}
        for kept in prunable.kept_whole:
            reasons.setdefault(kept.reason, []).extend(kept.layers)
        return step, [f"{', '.join(layers)}: {reason}" for reason, layers in reasons.items()]


class Statless(TorchDispatchMode):
    """Normalize, and scale scores, by nothing that depends on the number of channels."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        if name in ("native_layer_norm", "native_group_norm", "_fused_rms_norm"):
            weight, bias = {
                "native_layer_norm": lambda: args[2:4],
                "native_group_norm": lambda: args[1:3],
                "_fused_rms_norm": lambda: (args[2], None),
            }[name]()
            shape = [-1] + [1] * (args[0].dim() - 2) if name == "native_group_norm" else [-1]
            value = args[0] if weight is None else args[0] * weight.view(shape)
            return (value if bias is None else value + bias.view(shape), *func(*args, **kwargs)[1:])
        if "scaled_dot_product" in name:
            kwargs["scale"] = 0.5
        if name == "mean" and list(args[1] or []) == [-1] and len(args) > 2 and args[2]:  # of a norm by hand
            return torch.ones_like(func(*args, **kwargs))
        return func(*args, **kwargs)


@contextlib.contextmanager
def without_statistics() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Scores written out are divided by the root of a head's width.
        with Statless(), mock.patch.object(math, "sqrt", return_value=2.0), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def outputs(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return every floating tensor that a network gives, in doubles."""
    found: list[Tensor] = []

    def keep(result: Any) -> Tensor:
        found.extend(v for v in tree_leaves(result) if isinstance(v, Tensor) and v.is_floating_point())
        return found[0]

    inputs = tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, inputs)
    call_network(network, inputs, output=keep)
    return found


def oracle(network: nn.Module, inputs: Any, step: dict[str, Any], zeroed: dict[str, Any] | None = None) -> float:
    """Return how far the cut network is from the dense one with zeros for what is gone: the independent witness.

    ``zeroed`` is the step to set to zero, if another.
    """
    pruned, masked = copy.deepcopy(network).double(), copy.deepcopy(network).double()
    tensors = {**dict(masked.named_parameters(remove_duplicate=False)), **dict(masked.named_buffers())}
    for name, dim, size, kept in (zeroed or step)["kept"]:
        gone = sorted(set(range(size)) - set(kept))
        tensors[name].data.index_fill_(dim, torch.tensor(gone), 0.0)
    apply_step_(pruned, step)
    with without_statistics():
        pairs = list(zip(outputs(pruned, inputs), outputs(masked, inputs), strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def parity(network: nn.Module, inputs: Any, output: Any) -> str:
    """Return the largest difference between a network and its file, on other data, as a share of the largest output."""
    onnxruntime = import_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            export_onnx(network, inputs, path, output=output)
        except ValueError as error:
            return f"none ({' '.join(str(error).split())[:160]})"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        flat = FlatNetwork(copy_network(network).float(), with_batch_size(inputs, 2), output=output)
        with torch.no_grad():
            expected = flat()
        given = {name: tensor.numpy() for name, tensor in flat.tensors.items()}
        taken = {one.name for one in session.get_inputs()}
        found = torch.from_numpy(session.run(None, {k: v for k, v in given.items() if k in taken})[0])
    return f"{float((found - expected).abs().max() / expected.abs().max()):.1e}"


def measure(name: str, share: float = 0.7) -> Row:
    """Cut, quantize and export one architecture."""
    architecture = ARCHITECTURES[name]
    network, inputs = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense = count_macs(network, inputs, output=architecture.output)
        step, reasons = cut(network, inputs, share, architecture.output)
        row = Row(name, dense, math.nan, reasons, oracle(network, inputs, step))
        apply_step_(network, step)
        row.share = count_macs(network, inputs, output=architecture.output) / dense
        row.exported = parity(network, inputs, architecture.output)
        quantized = quantize(
            network, [inputs], batch_to_inputs=lambda batch: batch, output=architecture.output, progress=False
        )
        row.integer = len(describe_quantization(quantized)["integer"])
        products = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
        row.layers = sum(isinstance(m, products) or is_transposed(m) for m in quantized.modules())
        row.exported_integers = parity(quantized, inputs, architecture.output)
    return row
