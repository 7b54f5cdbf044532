"""Matrix factorization: a rating as the product of what a user likes and what an item is like."""

from torch import Tensor, nn

from lit_xai.models.sizes import check_positive, check_probability


class MatrixFactorization(nn.Module):
    r"""Rating as a weighted product of factors, with a bias for each user and item.

    .. math:: \hat r_{ui} = \mu + b_u + b_i + \sum_k w_k p_{uk} q_{ik}

    After `Koren, Bell and Volinsky 2009, Matrix Factorization Techniques for Recommender Systems
    <https://doi.org/10.1109/MC.2009.263>`_, with weights :math:`w` that begin as ones (the generalized form of He et
    al. 2017, "Neural Collaborative Filtering"): they are a layer of their own, so that factors of both tables can be
    pruned with what reads them. Its layers are ``user``, ``item``, ``user_bias``, ``item_bias`` and ``head``, which
    holds the weights and the mean.

    Args:
        num_users: rows of the users' table.
        num_items: rows of the items' table.
        factors: columns of both.
        mean: of the ratings, from which training begins.
        dropout: probability of dropping a factor.

    Raises:
        ValueError: a size is not a positive integer, or ``dropout`` is not in [0, 1).

    Example:
        >>> import torch
        >>> network = MatrixFactorization(num_users=943, num_items=1682, factors=16, mean=3.5)
        >>> network(torch.tensor([0, 942]), torch.tensor([7, 1681])).shape
        torch.Size([2, 1])
    """

    def __init__(
        self, num_users: int, num_items: int, factors: int = 32, mean: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_positive(num_users=num_users, num_items=num_items, factors=factors)
        check_probability(dropout=dropout)
        self.num_users, self.num_items = num_users, num_items
        self.user, self.item = table(num_users, factors), table(num_items, factors)
        self.user_bias, self.item_bias = table(num_users, 1, 0.0), table(num_items, 1, 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = product_head(factors, mean)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return ratings ``(batch, 1)`` from numbers of users and items ``(batch,)``."""
        product = self.dropout(self.user(user) * self.item(item))
        return self.head(product) + self.user_bias(user) + self.item_bias(item)


def table(rows: int, columns: int, std: float = 0.1) -> nn.Embedding:
    """Return a table of embeddings that begin small, so that the product of two begins near zero.

    Args:
        rows: ids.
        columns: factors.
        std: of the normal distribution that they are drawn from.

    Example:
        >>> table(3, 2, std=0.0).weight.tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    embedding = nn.Embedding(rows, columns)
    nn.init.normal_(embedding.weight, 0.0, std)
    return embedding


def product_head(factors: int, mean: float) -> nn.Linear:
    """Return the layer that sums a product of factors and adds the mean.

    Args:
        factors: of the product.
        mean: of what is predicted.

    Example:
        >>> import torch
        >>> product_head(3, mean=3.5)(torch.tensor([[0.5, 0.5, 0.5]])).item()
        5.0
    """
    head = nn.Linear(factors, 1)
    nn.init.ones_(head.weight)
    nn.init.constant_(head.bias, mean)
    return head
