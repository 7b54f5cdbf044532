import pytest
import torch

from lit_xai.data.rating_rows import RatingRows
from lit_xai.models import MatrixFactorization, TwoTower
from lit_xai.ranking.parts import explain_ranking

USERS, ITEMS, GENRES = 30, 40, 4


@pytest.fixture
def data():
    torch.manual_seed(0)
    histories = torch.randn(USERS, ITEMS) * (torch.rand(USERS, ITEMS) < 0.3)
    genres = (torch.rand(ITEMS, GENRES) < 0.4).float()
    return RatingRows(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0), histories, genres)


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_parts_add_up_to_the_score(data, hidden):
    torch.manual_seed(0)
    network = TwoTower(USERS, ITEMS, GENRES, factors=5, hidden=hidden, mean=3.5)
    for one in explain_ranking(network, data.describe, 7, [3, 0, 39], USERS, ITEMS, n_steps=64):
        assert set(one.parts) == {"user", "item", "match", "history", "seen", "genres"}
        assert one.average + sum(one.parts.values()) == pytest.approx(one.score, abs=0.02)
        for name, columns in one.columns.items():
            assert columns.sum().item() == pytest.approx(one.parts[name], abs=1e-5)


def test_biases_are_the_parts_of_user_and_item():
    """Without factors, a user's part is its bias over the mean of all, and nothing is left for the match."""
    network = MatrixFactorization(20, 25, factors=1, mean=3.0)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.normal_(network.user_bias.weight)
    torch.nn.init.normal_(network.item_bias.weight)

    def describe(user, item):
        return {"user": user, "item": item}

    found = explain_ranking(network, describe, 4, [2, 9], 20, 25)
    for one in found:
        of_user, of_item = network.user_bias.weight[4, 0], network.item_bias.weight[one.item, 0]
        assert one.parts["user"] == pytest.approx((of_user - network.user_bias.weight.mean()).item(), abs=1e-5)
        assert one.parts["item"] == pytest.approx((of_item - network.item_bias.weight.mean()).item(), abs=1e-5)
        assert one.parts["match"] == pytest.approx(0, abs=1e-5)


def test_a_planted_genre_and_a_planted_item_of_the_history_are_found_in_95_of_100(data):
    """A rating rises with one genre, and with what the user thought of one item: these columns have to be largest."""
    torch.manual_seed(1)
    network = TwoTower(USERS, ITEMS, GENRES, factors=6, mean=3.5)
    draw, genre_hits, history_hits = torch.Generator().manual_seed(0), 0, 0
    for _ in range(100):
        genre, known = (int(torch.randint(n, (1,), generator=draw)) for n in (GENRES, ITEMS - 1))
        user, item = int(torch.randint(USERS, (1,), generator=draw)), ITEMS - 1
        data.genres[item], data.histories[user, known] = 1.0, 2.0
        with torch.no_grad():
            for tower in (network.user, network.item):
                torch.nn.init.normal_(tower.features.weight, 0, 0.02, generator=draw)
                torch.nn.init.normal_(tower.table.weight, 0, 0.02, generator=draw)
                tower.table.weight[:, 0] += 1.0
            network.item.features.weight[0, genre] += 1.0
            network.user.features.weight[0, known] += 1.0
        (found,) = explain_ranking(network, data.describe, user, [item], USERS, ITEMS)
        genre_hits += int(found.columns["genres"].abs().argmax()) == genre
        history_hits += int(found.columns["history"].abs().argmax()) == known
    assert genre_hits >= 95
    assert history_hits >= 95
