"""Metrics over samples and processes: similarity and faithfulness of explanations as torchmetrics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec
from lit_xai.network.check import check_choice, check_integer
from lit_xai.retention.faithfulness import check_metrics, faithfulness
from lit_xai.retention.similarity import SIMILARITIES, is_zero


class ExplanationSimilarity(Metric):
    """The mean similarity of two models' explanations of the same samples, over all processes.

    Args:
        similarity: ``"cosine"`` or ``"rank"``, both signed.

    Raises:
        ValueError: another similarity.

    Example:
        >>> metric, maps = ExplanationSimilarity(), torch.randn(4, 9)
        >>> metric.update(maps, 2 * maps, agree=torch.tensor([True, True, False, True]))
        >>> {name: round(float(value), 4) for name, value in metric.compute().items()}
        {'similarity': 1.0, 'agreeing': 1.0, 'disagreeing': 1.0, 'zero_maps': 0.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    n: Tensor
    total_agreeing: Tensor
    n_agreeing: Tensor
    zero_maps: Tensor

    def __init__(self, similarity: str = "cosine", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("similarity", similarity, tuple(SIMILARITIES))
        self.similarity = similarity
        for name in ("total", "n", "total_agreeing", "n_agreeing", "zero_maps"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, reference: Tensor, maps: Tensor, agree: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Take in the explanations of some samples.

        Args:
            reference: maps of the reference, ``(N, D)``.
            maps: of the other model, ``(N, D)``.
            agree: whether both models predict the same, ``(N,)``; default all do.
            mask: as for :func:`signed_cosine`.
        """
        values = SIMILARITIES[self.similarity](reference, maps, mask).to(self.total)
        agree = torch.ones_like(values, dtype=torch.bool) if agree is None else agree.to(values.device).bool()
        self.total += values.sum()
        self.n += len(values)
        self.total_agreeing += values[agree].sum()
        self.n_agreeing += agree.sum()
        self.zero_maps += (is_zero(reference) | is_zero(maps)).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the means, NaN where there is no sample, and the number of samples with a map of zeros."""
        others = self.n - self.n_agreeing
        return {
            "similarity": self.total / self.n,
            "agreeing": self.total_agreeing / self.n_agreeing,
            "disagreeing": (self.total - self.total_agreeing) / others,
            "zero_maps": self.zero_maps.clone(),
        }


class Faithfulness(Metric):
    """The mean of :func:`faithfulness` over samples, for :class:`~lit_xai.callbacks.AttributionMonitor`.

    It is logged as ``attribution/<name>/Faithfulness/deletion`` and so on. Over several processes sums are added up.

    Args:
        metrics: names, as for :func:`faithfulness`.
        baselines: of removed elements, a number or a tensor ``(1, ...)``.
        steps: points of a curve.
        orders: random orders for each sample.
        seed: of the random orders.
        output: where the logits are.
        internal_batch_size: a quarter of the most samples in one forward pass.

    Raises:
        ValueError: an unknown metric, or a number out of range.

    Example:
        >>> from lit_xai import AttributionMonitor
        >>> monitor = AttributionMonitor("Saliency", metrics=[Faithfulness(["deletion", "road"])], probe=64)
        >>> metric = Faithfulness("sparseness")
        >>> metric.update(nn.Linear(4, 2), torch.zeros(2, 4), torch.eye(2, 4), torch.tensor([0, 1]))
        >>> metric.compute()
        {'sparseness': tensor(0.7500)}
    """

    n: Tensor
    left_out: Tensor
    updates: Tensor

    def __init__(
        self,
        metrics: Sequence[str] | str = ("deletion", "insertion", "sparseness"),
        *,
        baselines: Any = None,
        steps: int = 10,
        orders: int = 10,
        seed: int = 0,
        output: OutputSpec = None,
        internal_batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.names = check_metrics(metrics)
        self._call: dict[str, Any] = {"metrics": self.names, "baselines": baselines, "output": output}
        self._call |= {"steps": check_integer("steps", steps, 2), "orders": check_integer("orders", orders, 0)}
        self._call["internal_batch_size"] = check_integer("internal_batch_size", internal_batch_size)
        self.seed = seed
        for name in self.names:
            self.add_state(f"total_{name}", torch.zeros(()), dist_reduce_fx="sum")
        for name in ("n", "left_out", "updates"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, network: nn.Module, inputs: Inputs, attributions: Any, target: Tensor | None) -> None:
        """Take in the explanations of some samples; see :class:`~lit_xai.attribution.quality.ExplanationMetric`."""
        # Batches of other samples get other random orders.
        seed = self.seed + int(self.updates)
        found, before = faithfulness(network, inputs, attributions, target, seed=seed, **self._call), self.left_out
        for name, values in found.items():
            total = getattr(self, f"total_{name}")
            total += values.nansum().to(total)
            if name != "sparseness":
                self.left_out = before + values.isnan().sum()  # the same ones for all of these metrics
        self.n += len(values)
        self.updates += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the means by name; ``"left_out"`` is how many samples were counted out of those that ask the network.

        A mean of no samples is NaN.
        """
        means = {
            name: getattr(self, f"total_{name}") / (self.n if name == "sparseness" else self.n - self.left_out)
            for name in self.names
        }
        return means if self.names == ("sparseness",) else means | {"left_out": self.left_out.clone()}
