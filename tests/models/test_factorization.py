import pytest
import torch

from lit_xai.models import MatrixFactorization


def test_a_rating_is_the_mean_the_biases_and_the_product_of_factors():
    torch.manual_seed(0)
    network = MatrixFactorization(5, 7, factors=3, mean=3.5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    user, item = torch.tensor([4, 0]), torch.tensor([6, 2])
    for k, (u, i) in enumerate(zip(user, item, strict=True)):
        product = sum(
            network.head.weight[0, j] * network.user.weight[u, j] * network.item.weight[i, j] for j in range(3)
        )
        expected = network.head.bias[0] + network.user_bias.weight[u, 0] + network.item_bias.weight[i, 0] + product
        torch.testing.assert_close(network(user, item)[k, 0], expected)


def test_training_begins_near_the_mean():
    predicted = MatrixFactorization(50, 70, mean=3.5)(torch.arange(50), torch.arange(50))
    assert (predicted - 3.5).abs().max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 5), "num_users expected a positive integer"), ((5, 5, 0), "factors expected a positive integer")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatrixFactorization(*arguments)
