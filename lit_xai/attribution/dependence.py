"""Partial dependence: the mean output of a network as one feature takes one value after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.check import refusal
from lit_xai.network.untouched import untouched

ROWS = 8192
"""Rows in one pass of the network."""


def partial_dependence(
    network: nn.Module,
    inputs: Tensor,
    columns: Sequence[int],
    grid: Tensor,
    target: int | None = None,
    output: OutputSpec = None,
) -> Tensor:
    r"""Return the mean score over samples whose columns are set to each row of a grid, :math:`\frac1N\sum_n f(g, x_n)`.

    J. Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 29 (2001). Of an
    additive model it is the feature's shape function, up to a constant. It averages over combinations of features that
    may not occur, where features go together.

    Args:
        network: left exactly as it was.
        inputs: samples ``(N, F)``.
        columns: of the feature: several for a category.
        grid: their values, ``(P, columns)``.
        target: the class whose logit is meant; see :func:`score_of`.
        output: the logits in the network's output.

    Returns:
        ``(P,)``, on the CPU.

    Raises:
        ValueError: inputs are no table, or the grid has not as many columns.

    Example:
        >>> network = nn.Linear(2, 1, bias=False)
        >>> curve = partial_dependence(network, torch.zeros(4, 2), [0], torch.tensor([[0.0], [1.0]]))
        >>> torch.allclose(curve, torch.stack([curve[0] * 0, network.weight[0, 0].detach()]))
        True
    """
    if inputs.dim() != 2:
        raise refusal("inputs", "a table (N, features)", f"shape {tuple(inputs.shape)}")
    if grid.dim() != 2 or grid.shape[1] != len(columns):
        raise refusal("grid", f"values (points, {len(columns)}), one for each of the columns", tuple(grid.shape))
    points = max(1, ROWS // len(inputs))
    means = []
    with untouched(network), torch.no_grad():
        for part in grid.to(inputs).split(points):
            rows = inputs.repeat(len(part), 1)
            rows[:, list(columns)] = part.repeat_interleave(len(inputs), 0)
            score = score_of(call_network(network, rows, "forward", output), target)
            means.append(score.float().reshape(len(part), len(inputs)).mean(1).cpu())
    return torch.cat(means)


def score_of(logits: Tensor, target: int | None = None) -> Tensor:
    """Return one number for each sample: the only output, the log odds of the second of two classes, or a class' logit.

    Args:
        logits: ``(N,)`` or ``(N, outputs)``.
        target: a class, which more than two outputs need.

    Raises:
        ValueError: there are more than two outputs and no target, or it is none of them.

    Example:
        >>> score_of(torch.tensor([[1.0, 3.0]])), score_of(torch.tensor([[1.0, 3.0, 5.0]]), target=2)
        (tensor([2.]), tensor([5.]))
    """
    if logits.dim() > 2:
        raise refusal("outputs", "scores or values of each sample, (N, outputs)", f"shape {tuple(logits.shape)}")
    if logits.dim() == 1 or logits.shape[1] == 1:
        return logits.reshape(-1)
    count = logits.shape[1]
    if target is None and count == 2:
        return logits[:, 1] - logits[:, 0]
    if target is None or not 0 <= target < count:
        raise refusal("target", f"a class from 0 to {count - 1}, as the network has {count} outputs", target)
    return logits[:, target]
