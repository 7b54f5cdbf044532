import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lit_xai.data import Ratings, RatingsDataModule
from lit_xai.data.ratings import damped_effects
from lit_xai.models import MatrixFactorization, Regressor


def some(n=200, times=True):
    rng = np.random.default_rng(0)
    places = rng.choice(20 * 15, n, replace=False)
    genres = {j: ["War", "Drama"][: 1 + j % 2] for j in range(15)}
    return Ratings(
        [int(k) * 7 for k in places // 15],
        [int(k) for k in places % 15],
        rng.integers(1, 6, n),
        rng.random(n) if times else None,
        {j: f"film {j}" for j in range(15)},
        genres,
    )


class Own(RatingsDataModule):
    given = some()

    def read(self):
        return self.given


def test_ids_are_numbered_from_zero_in_their_order():
    ratings = some()
    assert ratings.user_ids == sorted(set(ratings.users))
    for (user, item), u, i in zip(ratings.pairs.tolist(), ratings.users, ratings.items, strict=True):
        assert (ratings.user_ids[user], ratings.item_ids[item]) == (u, i)
    assert ratings.genre_names == ["Drama", "War"]
    assert ratings.genre_table[1].tolist() == [1, 1]
    assert ratings.genre_table[2].tolist() == [0, 1]


def test_items_that_nobody_rated_have_a_row_too():
    ratings = Ratings(["a"], ["x"], [1.0], titles={"y": "Why"})
    assert ratings.item_names == ["x", "Why"]
    assert ratings.genre_table.shape == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1], [1, 2]), "items expected one for each of 2 users, but got 1"),
        (([1], [1], [1], [1, 2]), "times expected one for each of 1 users, but got 2"),
        (([1], [1], [float("nan")]), "values expected one or more finite numbers"),
        (([], [], []), "values expected one or more finite numbers"),
    ],
)
def test_what_does_not_belong_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ratings(*arguments)


@pytest.mark.parametrize("split_by", ["random", "time"])
def test_the_parts_are_all_ratings_once(split_by):
    data = Own(split_by=split_by, test_size=40, val_size=0.1)
    assert [len(part) for part in data.parts] == [144, 16, 40]
    assert torch.cat(data.parts).sort().values.tolist() == list(range(200))


def test_by_time_each_user_is_tested_on_the_latest_ratings():
    data = Own(split_by="time", test_size=0.2, val_size=0)
    users, times = data.ratings.pairs[:, 0], data.ratings.times
    train, _, test = data.parts
    for user in range(data.num_users):
        mine = [times[part[users[part] == user]] for part in (train, test)]
        assert not len(mine[1]) or not len(mine[0]) or mine[0].max() < mine[1].min()
        share = len(mine[1]) / (len(mine[0]) + len(mine[1]))
        assert abs(share - 0.2) < 0.2


def test_histories_hold_training_ratings_alone_less_what_was_expected():
    data = Own(val_size=20)
    data.setup()
    mean, users, items = data.effects
    train = {tuple(pair) for pair in data.ratings.pairs[data.parts[0]].tolist()}
    for user in range(data.num_users):
        for item in range(data.num_items):
            assert (data.histories[user, item] != 0).item() == ((user, item) in train)
    user, item = data.ratings.pairs[data.parts[0]][3].tolist()
    expected = data.ratings.values[data.parts[0]][3] - mean - users[user] - items[item]
    assert data.histories[user, item] == pytest.approx(expected)


def test_effects_are_those_of_the_closed_form():
    ratings = some()
    mean, users, items = damped_effects(ratings.pairs, ratings.values, 20, 15)
    values, pairs = ratings.values.double().numpy(), ratings.pairs.numpy()
    assert mean == pytest.approx(values.mean(), rel=1e-6)
    for item in range(15):
        own = values[pairs[:, 1] == item] - values.mean()
        assert items[item] == pytest.approx(own.sum() / (len(own) + 5), abs=1e-5)
    for user in range(20):
        mine = pairs[:, 0] == user
        left = values[mine] - values.mean() - items.numpy()[pairs[mine, 1]]
        assert users[user] == pytest.approx(left.sum() / (len(left) + 10), abs=1e-5)


def trainer():
    return Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize(("sizes", "name"), [((19, 15), "num_users"), ((20, 14), "num_items")])
def test_tables_that_are_too_small_are_refused_before_the_first_step(sizes, name):
    model = Regressor(MatrixFactorization(*sizes, factors=2))
    with pytest.raises(ValueError, match=rf"^{name} expected at least (20|15), the ids in the data, but got (19|14)"):
        trainer().fit(model, Own())
    assert model.network.user.weight.grad is None


def test_a_network_trains_on_its_batches():
    model = Regressor(MatrixFactorization(20, 15, factors=2))
    before = model.network.user.weight.detach().clone()
    trainer().fit(model, Own(batch_size=50))
    assert not torch.equal(before, model.network.user.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_by": "user"}, "split_by expected one of random, time, but got 'user'"),
        ({"test_size": 1.0}, "test_size expected to leave some of the 200 ratings"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Own(**options).setup()


def test_ratings_without_times_cannot_be_split_by_time(monkeypatch):
    monkeypatch.setattr(Own, "given", some(times=False))
    with pytest.raises(ValueError, match="split_by expected 'random' for ratings without times, but got 'time'"):
        Own(split_by="time").setup()


def test_a_rating_has_no_classes():
    """An export names the classes of its data module, and refuses a list that is shorter than the output."""
    assert getattr(Own(), "class_names", None) is None
