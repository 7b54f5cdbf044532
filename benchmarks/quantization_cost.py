"""What training for integers costs: a step of the prepared network as a multiple of the float network's own step.

    python benchmarks/quantization_cost.py [--rounds 15] [--batch 64] [--network resnet20-16 ...]

A step is the forward, the backward and SGD with momentum, on random images, one thread; medians over rounds in which
the networks alternate, in time of the processor. "ours" fake-quantizes and observes, "frozen" does so with the
statistics of BatchNorms and the ranges fixed, as the callback does in its last epochs. Beside them NNCF, on the folded
network, and torchao's PT2E with its X86InductorQuantizer, which trains with BatchNorms; where one is not installed or
fails, it says so.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from quantization_speed import cpu, folded, import_nncf, quiet, resnet8, vit
from torch import Tensor, nn

from lit_xai.models import ResNet
from lit_xai.network.copying import copy_network
from lit_xai.quantization.observers import quiet_import
from lit_xai.quantization.quantization import plan_quantization, prepare_

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "resnet20-16": (lambda: ResNet(20, width=16), (3, 32)),
    "resnet8-64": (lambda: resnet8(64), (1, 28)),
    "vit-192": (lambda: vit(192), (1, 28)),
}


def ours(network: nn.Module, x: Tensor, frozen: bool = False) -> nn.Module:
    """Return a network that fake-quantizes, and observes or has its ranges and statistics fixed."""
    prepared = copy_network(network)
    fake_quantizers = prepare_(prepared.train(), plan_quantization(prepared, x))
    prepared(x)
    fake_quantizers.enable_fake_quant_(True)
    fake_quantizers.enable_observer_(not frozen)
    fake_quantizers.freeze_norms_(frozen)
    return prepared


def nncf(network: nn.Module, x: Tensor) -> nn.Module:
    """Return what NNCF trains."""
    library = import_nncf()
    prepared = library.quantize(folded(network, x), library.Dataset([x]), subset_size=1)
    return prepared.train()


def pt2e(network: nn.Module, x: Tensor) -> nn.Module:
    """Return what torchao trains."""
    with quiet_import():
        from torchao.quantization.pt2e import move_exported_model_to_train
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    exported = torch.export.export(copy_network(network).train(), (x,)).module()
    prepared = prepare_qat_pt2e(exported, x86.X86InductorQuantizer().set_global(config))
    return move_exported_model_to_train(prepared)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Take a step and return the time of the processor that it took."""
    start = time.process_time()
    optimizer.zero_grad()
    F.cross_entropy(network(x), y).backward()
    optimizer.step()
    return time.process_time() - start


def candidates(name: str, batch: int) -> tuple[dict[str, nn.Module], list[Tensor]]:
    """Return the networks to compare, and batches, some of which reach beyond the ranges of those before."""
    torch.manual_seed(0)
    make, (channels, size) = NETWORKS[name]
    network, batches = make(), [torch.randn(batch, channels, size, size) for _ in range(5)]
    for x in batches:  # statistics of BatchNorms
        network(x)
    network.eval()
    x = batches[0]
    found = {"float": copy_network(network).train(), "ours": ours(network, x), "frozen": ours(network, x, frozen=True)}
    for peer in (nncf, pt2e):
        try:
            with quiet():
                found[peer.__name__] = peer(network, x)
        except Exception as error:
            print(f"{name:13}{peer.__name__:8} left out: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
    return found, batches


def main() -> None:
    """Print one line a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"{cpu()}; torch {torch.__version__}, 1 thread, batch {arguments.batch}; a step over the float step")
    for name in arguments.network or NETWORKS:
        networks, batches = candidates(name, arguments.batch)
        y = torch.randint(10, (arguments.batch,))
        optimizers = {key: torch.optim.SGD(one.parameters(), 1e-3, 0.9) for key, one in networks.items()}
        seconds: dict[str, list[float]] = {key: [] for key in networks}
        for turn in range(arguments.rounds + 2):
            for key, one in networks.items():
                found = step(one, optimizers[key], batches[turn % len(batches)], y)
                if turn > 1:  # the first rounds warm up
                    seconds[key].append(found)
        for key, found_ in seconds.items():
            ratio = median(a / b for a, b in zip(found_, seconds["float"], strict=True))
            print(f"{name:13}{key:8}{1e3 * median(found_):8.1f} ms{ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
