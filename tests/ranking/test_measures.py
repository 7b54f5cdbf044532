import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from lit_xai.ranking.measures import ndcg, overlap, top_items


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_is_that_of_scikit_learn_on_average_over_users(k):
    rng = np.random.default_rng(0)
    users, scores, ratings = np.repeat(np.arange(6), 7), rng.random(42), rng.integers(1, 6, 42).astype(float)
    expected = np.mean([ndcg_score([ratings[users == u]], [scores[users == u]], k=k) for u in range(6)])
    order = rng.permutation(42)  # users need not be together
    found = ndcg(*(torch.tensor(values[order]) for values in (scores, ratings, users)), k=k)
    assert found == pytest.approx(expected)


def test_the_best_items_are_those_of_a_sort_but_for_taken_ones():
    torch.manual_seed(0)
    scores, taken = torch.randn(4, 9), torch.rand(4, 9) < 0.3
    found = top_items(scores, taken, k=3)
    for user in range(4):
        free = [i for i in range(9) if not taken[user, i]]
        assert found[user].tolist() == sorted(free, key=lambda i: -scores[user, i].item())[:3]


def test_overlap_counts_items_in_any_order():
    torch.manual_seed(0)
    one, other = (torch.stack([torch.randperm(20)[:5] for _ in range(8)]) for _ in range(2))
    expected = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(one.tolist(), other.tolist(), strict=True)])
    assert overlap(one, other) == pytest.approx(expected)
    assert overlap(one, one.flip(1)) == 1
