"""How much of the MACs that pruning saves arrives as speed: at half the MACs, against bare Torch-Pruning.

    python benchmarks/pruning_speed.py [--rounds 15] [--round-to 8]

ResNet-20 of widths 16 and 64 on 3x32x32 images, ONNX Runtime, one thread, batch 64, medians of alternating blocks.
Torch-Pruning gets the ratio that comes nearest to the same MACs; its widths come out odd, ours in multiples of
--round-to.
"""

import argparse
import copy
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch_pruning
from torch import nn

from lit_xai.models import ResNet
from lit_xai.network.copying import copy_network
from lit_xai.network.profiling import count_macs
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import reach
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.session import import_onnxruntime


def ours(network: ResNet, inputs: torch.Tensor, share: float, round_to: int) -> nn.Module:
    """Prune to a share of the MACs."""
    dense = count_macs(network, inputs)
    prunable = Prunable(copy_network(network), inputs, round_to=round_to)
    moves, _ = reach(prunable, lambda pruned: float(count_macs(pruned, inputs)), share * dense)
    with prunable.pruned(moves) as pruned:
        return copy_network(pruned)


def theirs(network: ResNet, inputs: torch.Tensor, ratio: float) -> nn.Module:
    """Prune by a ratio with Torch-Pruning alone."""
    pruned = copy.deepcopy(network)
    fresh: dict[str, dict] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(
        pruned, inputs, importance, pruning_ratio=ratio, ignored_layers=[pruned.fc], **fresh
    ).step()
    return pruned


def seconds(sessions: dict[str, Any], batch: Any, rounds: int) -> dict[str, float]:
    """Return medians of alternating blocks."""
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            start = time.perf_counter()
            for _ in range(3):
                session.run(None, {session.get_inputs()[0].name: batch})
            if turn:
                found[name].append((time.perf_counter() - start) / 3)
    return {name: median(values) for name, values in found.items()}


def main() -> None:
    """Print one line a width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--round-to", type=int, default=8)
    arguments = parser.parse_args()
    rounds, round_to = arguments.rounds, arguments.round_to
    onnxruntime = import_onnxruntime()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    inputs, batch = torch.randn(1, 3, 32, 32), torch.randn(64, 3, 32, 32).numpy()
    for width in (16, 64):
        torch.manual_seed(0)
        network = ResNet(20, width=width).eval()
        dense = count_macs(network, inputs)
        bare = min(
            (theirs(network, inputs, ratio / 100) for ratio in range(20, 40)),
            key=lambda pruned: abs(count_macs(pruned, inputs) - dense / 2),
        )
        mine = ours(network, inputs, count_macs(bare, inputs) / dense, round_to)
        networks = {"dense": network, "bare": bare, "ours": mine}
        with tempfile.TemporaryDirectory() as folder:
            sessions = {}
            for name, one in networks.items():
                path = Path(folder) / f"{name}.onnx"
                export_onnx(one, inputs, path)
                sessions[name] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            found = seconds(sessions, batch, rounds)
        print(f"width {width}:")
        for name, one in networks.items():
            saved, faster = dense / count_macs(one, inputs), found["dense"] / found[name]
            line = f"  {name:6}{saved:6.2f}x fewer MACs {found[name] * 1e3:8.2f} ms {faster:6.2f}x as fast as dense"
            print(line + (f", {(faster - 1) / (saved - 1):.0%} of the saving arrives" if saved > 1.01 else ""))
        print(f"  ours against bare Torch-Pruning: {found['bare'] / found['ours']:.2f}x as fast")


if __name__ == "__main__":
    main()
