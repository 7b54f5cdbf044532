import torch
from torch.utils.data import DataLoader

from lit_xai.data.rating_rows import RatingRows


def rows():
    torch.manual_seed(0)
    histories = torch.randn(4, 6) * (torch.rand(4, 6) < 0.6)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(6))
    return RatingRows(pairs, torch.arange(24.0), histories, torch.eye(6)[:, :3])


def test_a_history_holds_what_else_the_user_rated_scaled_by_the_root_of_its_length():
    data = rows()
    batch = data.__getitems__(list(range(24)))
    for k in range(24):
        user, item = divmod(k, 6)
        others = [j for j in range(6) if j != item and data.histories[user, j] != 0]
        expected = torch.zeros(6)
        for j in others:
            expected[j] = data.histories[user, j] / len(others) ** 0.5
        torch.testing.assert_close(batch["history"][k], expected)
        torch.testing.assert_close(batch["seen"][k], (expected != 0) / max(len(others), 1) ** 0.5)
        assert (batch["user"][k], batch["item"][k], batch["label"][k]) == (user, item, k)
        assert torch.equal(batch["genres"][k], data.genres[item])


def test_the_stored_histories_stay_as_they_are():
    data = rows()
    before = data.histories.clone()
    data.__getitems__([0, 7, 8])
    assert torch.equal(data.histories, before)


def test_whole_batches_are_those_of_single_samples():
    data = rows()
    whole = data.__getitems__([3, 1, 20])
    (stacked,) = DataLoader([data[k] for k in (3, 1, 20)], batch_size=3)
    (loaded,) = DataLoader(data, batch_size=3, sampler=[3, 1, 20], collate_fn=data.collate_fn)
    for name, value in whole.items():
        assert torch.equal(value, stacked[name])
        assert torch.equal(value, loaded[name])
