"""What faithfulness costs, as a multiple of the bare forward passes that it needs, and ROAD beside Quantus's.

    python benchmarks/faithfulness.py [--repeats 5] [--samples 32]

One thread, medians of alternating runs, residual networks in eval mode. The floor is the same number of rows through
the network in batches of at most the same size, written as a plain loop. Quantus (``pip install quantus``) is none of
the library's dependencies; where it is not installed, its line is left out. It gets images with one channel, whose maps
it takes, the same nine steps and no random orders.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from lit_xai.models import ResNet
from lit_xai.retention.faithfulness import faithfulness

BATCH = 256  # 4 * internal_batch_size


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run each in turn, ``repeats`` times after one warm-up, and return the median CPU seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if repeat:
                seconds[name].append(time.process_time() - start)
    return {name: median(values) for name, values in seconds.items()}


class Case:
    """A residual network whose logits are large enough that samples are explained at all, and images for it."""

    def __init__(self, samples: int, channels: int, size: int, stem_stride: int) -> None:
        self.x = torch.randn(samples, channels, size, size)
        self.maps = torch.randn(samples, 1, size, size)
        self.network = ResNet(depth=8, in_channels=channels, stem_stride=stem_stride).eval()
        last = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.bias.zero_()
            last.weight.mul_(20 / self.network(self.x).std())
            self.target = self.network(self.x).argmax(1)

    def measure(self, metrics: list[str], orders: int = 10) -> dict[str, Tensor]:
        """Ours."""
        return faithfulness(self.network, self.x, self.maps, self.target, metrics=metrics, orders=orders)

    def rows(self, run: Callable[[], object]) -> int:
        """Return how many rows a measurement takes through the network."""
        seen: list[int] = []
        handle = self.network.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
        run()
        handle.remove()
        return sum(seen)

    @torch.no_grad()
    def forward(self, rows: int) -> None:
        """The floor: so many rows, in full batches."""
        batch = self.x.repeat(-(-BATCH // len(self.x)), 1, 1, 1)[:BATCH]
        for _ in range(rows // BATCH):
            self.network(batch)
        if rows % BATCH:
            self.network(batch[: rows % BATCH])

    def quantus_road(self) -> Callable[[], object] | None:
        """Return a run of Quantus's ROAD, or nothing where it is not installed."""
        try:
            import quantus
        except ImportError:
            return None
        metric = quantus.ROAD(percentages=list(range(10, 100, 10)), disable_warnings=True)
        arrays = self.x.numpy(), self.target.numpy(), self.maps.numpy()
        return lambda: metric(self.network, *arrays, channel_first=True, batch_size=BATCH, device="cpu")


def report(case: Case, metrics: list[str], repeats: int) -> None:
    """Print rows, floor, ours and the ratio of some metrics."""
    ours = partial(case.measure, metrics)
    rows = case.rows(ours)
    found = medians({"floor": partial(case.forward, rows), "ours": ours}, repeats)
    ratio = found["ours"] / found["floor"]
    print(f"{' + '.join(metrics):24}{rows:8}{found['floor']:10.3f}{found['ours']:10.3f}{ratio:8.3f}")


def report_road(case: Case, repeats: int) -> None:
    """Print ROAD beside Quantus's."""
    theirs = case.quantus_road()
    if theirs is None:
        print("Quantus is not installed.")
        return
    ours = partial(case.measure, ["road"], orders=0)
    runs = {"floor": partial(case.forward, case.rows(ours)), "ours": ours, "Quantus": theirs}
    found = medians(runs, repeats)
    times = ", ".join(f"{name} {seconds:.3f}" for name, seconds in found.items())
    print(f"ROAD without random orders: {times}; {found['Quantus'] / found['ours']:.1f} times faster")


def main() -> None:
    """Print one line for each metric and network; then ROAD beside Quantus's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    print(f"{arguments.samples} images, 1 thread, {arguments.repeats} repeats, CPU seconds")
    print(f"{'metric':24}{'rows':>8}{'floor':>10}{'lit_xai':>10}{'ratio':>8}")
    for channels, size, stem_stride in ((3, 32, 1), (1, 28, 2)):
        case = Case(arguments.samples, channels, size, stem_stride)
        print(f"ResNet-8, {channels}x{size}x{size}, stem of stride {stem_stride}")
        for metrics in (["deletion"], ["deletion", "insertion"], ["road"]):
            report(case, metrics, arguments.repeats)
    report_road(case, arguments.repeats)


if __name__ == "__main__":
    main()
