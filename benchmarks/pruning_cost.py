"""What a cut costs, as a multiple of the bare Torch-Pruning call; and how long a target takes.

    python benchmarks/pruning_cost.py [--repeats 15]

ResNet-20 on 28x28 images, one thread, medians of alternating runs. "Bare" traces the network and prunes it in place.
"An event" decides on copies, makes sure that the result runs, and cuts the network and its optimizer. "Once a run"
makes sure, before the first one, that what is left computes what the network does with the other channels at zero.
"""

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
import torch_pruning

from lit_xai.models import ResNet
from lit_xai.network.copying import copy_network
from lit_xai.network.profiling import count_macs
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import reach
from lit_xai.structure.attachment import take_step_


def made() -> tuple[ResNet, torch.Tensor, torch.optim.Optimizer]:
    """Return a network with an optimizer that has moments."""
    torch.manual_seed(0)
    network, inputs = ResNet(20, stem_stride=2, in_channels=1), torch.randn(1, 1, 28, 28)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(8, 1, 28, 28)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return network, inputs, optimizer


def bare() -> float:
    """Time the call of Torch-Pruning."""
    network, inputs, _ = made()
    start = time.perf_counter()
    fresh: dict[str, dict] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(
        network, inputs, importance, pruning_ratio=0.5, ignored_layers=[network.fc], **fresh
    ).step()
    return time.perf_counter() - start


def event() -> float:
    """Time a cut by a ratio, as the callback makes it."""
    network, inputs, optimizer = made()
    start = time.perf_counter()
    prunable = Prunable(copy_network(network), inputs, pruning_ratio=0.5, round_to=8)
    take_step_(network, prunable.step(prunable.due()), [optimizer])
    return time.perf_counter() - start


def once() -> float:
    """Time the comparison with zeros."""
    network, inputs, _ = made()
    prunable = Prunable(copy_network(network), inputs, pruning_ratio=0.5, round_to=8)
    start = time.perf_counter()
    prunable.check(prunable.due())
    return time.perf_counter() - start


def target() -> float:
    """Time a cut to a quarter of the MACs."""
    network, inputs, optimizer = made()
    start = time.perf_counter()
    prunable = Prunable(copy_network(network), inputs, round_to=8)
    dense = count_macs(copy.deepcopy(network), inputs)
    moves, _ = reach(prunable, lambda pruned: float(count_macs(pruned, inputs)), dense / 4)
    take_step_(network, prunable.step(moves), [optimizer])
    return time.perf_counter() - start


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cases: dict[str, Callable[[], float]] = {
        "bare Torch-Pruning": bare,
        "an event": event,
        "once a run": once,
        "to a quarter": target,
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, run in cases.items():
            found = run()
            if repeat:  # the first round warms up
                seconds[name].append(found)
    floor = median(seconds["bare Torch-Pruning"])
    for name, found in seconds.items():
        print(f"{name:20}{median(found) * 1e3:8.1f} ms {median(found) / floor:6.2f}")


if __name__ == "__main__":
    main()
