"""Measures of rankings: how good they are, and how much of one is left in another."""

import torch
from torch import Tensor


def ndcg(scores: Tensor, ratings: Tensor, users: Tensor, k: int = 10) -> float:
    r"""Return the mean over users of the normalized discounted cumulative gain of their ``k`` best-scored items.

    Of each user, the items that have a rating are ranked by their scores; a place :math:`r` counts
    :math:`1 / \log_2(r + 1)` of its item's rating, in shares of what the best order would give.

    Args:
        scores: ``(N,)``, by which items are ranked.
        ratings: ``(N,)``, not negative.
        users: ``(N,)``.
        k: how many places count.

    Example:
        >>> ratings, users = torch.tensor([5.0, 1.0]), torch.tensor([0, 0])
        >>> ndcg(torch.tensor([0.9, 0.1]), ratings, users)
        1.0
        >>> round(ndcg(torch.tensor([0.1, 0.9]), ratings, users), 3)
        0.738
    """
    from torchmetrics.retrieval import RetrievalNormalizedDCG

    metric = RetrievalNormalizedDCG(top_k=k)
    return float(metric(scores.double().cpu(), ratings.double().cpu(), indexes=users.long().cpu()))


def top_items(scores: Tensor, taken: Tensor, k: int = 10) -> Tensor:
    """Return the ``k`` best-scored items of each user ``(users, k)``, best first, but for those already taken.

    Args:
        scores: ``(users, items)``.
        taken: ``(users, items)``, true where an item is not to be recommended.
        k: how many.

    Example:
        >>> top_items(torch.tensor([[3.0, 9.0, 5.0]]), torch.tensor([[False, True, False]]), k=2)
        tensor([[2, 0]])
    """
    return scores.masked_fill(taken, -torch.inf).topk(min(k, scores.shape[1]), dim=1).indices


def overlap(one: Tensor, other: Tensor) -> float:
    """Return the mean over users of the share of recommended items that two rankings have in common.

    Args:
        one: items ``(users, k)``.
        other: items ``(users, k)``.

    Example:
        >>> overlap(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 1], [3, 5]]))
        0.75
    """
    return (one[:, :, None] == other[:, None, :]).any(2).double().mean().item()
