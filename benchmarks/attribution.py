"""What `attribute` costs, as a multiple of the bare batched passes that the method needs.

    python benchmarks/attribution.py [--repeats 7]

One thread, medians of alternating runs, a CIFAR-style residual network in eval mode. The floor is the same number of
forward/backward passes (forward only for Occlusion) of 64 images, written as a plain loop. Captum's own call with its
default settings runs beside it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import captum.attr
import torch
from torch import Tensor, nn

from lit_xai.functional import attribute
from lit_xai.models import ResNet

STEPS, SAMPLES, IMAGES, WINDOW = 32, 16, 64, 4


def forward_backward(network: nn.Module, x: Tensor, target: Tensor, times: int) -> None:
    """The floor of a gradient method: ``times`` passes of the whole batch, gradients with respect to the input."""
    for _ in range(times):
        part = x.detach().requires_grad_()
        torch.autograd.grad(network(part).gather(1, target[:, None]).sum(), part)


@torch.no_grad()
def forward(network: nn.Module, x: Tensor, times: int) -> None:
    """The floor of a perturbation method: ``times`` passes of the whole batch."""
    for _ in range(times):
        network(x)


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run each in turn, ``repeats`` times after one warm-up, and return the median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def main() -> None:
    """Print one line a method: floor, ours and Captum's defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--only", default="", help="methods whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ResNet(depth=arguments.depth).eval()
    x, target = torch.randn(IMAGES, 3, 32, 32), torch.randint(10, (IMAGES,))
    windows = (32 // WINDOW) ** 2 + 1  # and once the whole image
    occlusion = {"sliding_window_shapes": (3, WINDOW, WINDOW), "strides": (3, WINDOW, WINDOW)}
    both = partial(forward_backward, network, x, target)
    zeros = torch.zeros_like(x[:1])
    cases = {
        "IntegratedGradients": ({"n_steps": STEPS}, partial(both, STEPS)),
        "GradientShap": ({"n_samples": SAMPLES, "baselines": zeros}, partial(both, SAMPLES)),
        "Occlusion": (occlusion, partial(forward, network, x, windows)),
        "Saliency": ({}, partial(both, 1)),
        "DeepLift": ({}, partial(both, 2)),
    }
    print(f"ResNet-{arguments.depth} (width 16), {IMAGES} images of 3x32x32, 1 thread, {arguments.repeats} repeats")
    print(f"{'method':22}{'floor':>10}{'lit_xai':>10}{'Captum, defaults':>20}")
    for name, (options, floor) in cases.items():
        if arguments.only not in name:
            continue
        own = {key: value for key, value in options.items() if key != "baselines"}
        ours = partial(
            attribute, network, x, method=name, target=target, attribute_args=own, baselines=options.get("baselines")
        )
        theirs = partial(
            getattr(captum.attr, name)(network).attribute, x.clone().requires_grad_(), target=target, **options
        )
        time_of = medians({"floor": floor, "ours": ours, "captum": theirs}, arguments.repeats)
        ratio = {key: value / time_of["floor"] for key, value in time_of.items()}
        print(f"{name:22}{time_of['floor'] * 1e3:>7.0f} ms{ratio['ours']:>10.2f}{ratio['captum']:>20.2f}", flush=True)


if __name__ == "__main__":
    main()
