import pytest
import torch

from lit_xai.functional import attribute
from lit_xai.models import TwoTower

SIZES = (5, 7, 3)


def batch(n=4):
    torch.manual_seed(1)
    return {
        "user": torch.randint(5, (n,)),
        "item": torch.randint(7, (n,)),
        "history": torch.randn(n, 7),
        "seen": torch.rand(n, 7),
        "genres": torch.randint(2, (n, 3)).float(),
    }


def test_a_rating_is_the_mean_the_biases_and_the_product_of_the_towers():
    torch.manual_seed(0)
    network, given = TwoTower(*SIZES, factors=4, mean=3.5), batch()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    user = (
        network.user.table.weight[given["user"]]
        + torch.cat((given["history"], given["seen"]), 1) @ network.user.features.weight.T
    )
    item = network.item.table.weight[given["item"]] + given["genres"] @ network.item.features.weight.T
    expected = (user * item) @ network.head.weight[0] + network.head.bias
    expected += network.user_bias.weight[given["user"], 0] + network.item_bias.weight[given["item"], 0]
    torch.testing.assert_close(network(**given)[:, 0], expected)


@pytest.mark.parametrize("hidden", [0, 6])
def test_history_and_genres_are_explained_as_they_are(hidden):
    network, given = TwoTower(*SIZES, factors=4, hidden=hidden, mean=3.5).eval(), batch()
    found = attribute(network, given)
    assert {name for name, value in found.items() if value is not None} == {"history", "seen", "genres"}
    without = given | {name: torch.zeros_like(given[name]) for name in ("history", "seen", "genres")}
    change = (network(**given) - network(**without))[:, 0]
    total = sum(found[name].sum(1) for name in ("history", "seen", "genres"))
    torch.testing.assert_close(total, change, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": -1}, "hidden expected an integer of at least 0"), ({"dropout": 1.0}, "dropout expected a number in")],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TwoTower(*SIZES, **options)
