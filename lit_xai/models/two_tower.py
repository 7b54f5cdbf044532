"""Two towers: one for what is known of the user, one for what is known of the item."""

import torch
from torch import Tensor, nn

from lit_xai.models.factorization import product_head, table
from lit_xai.models.sizes import check_positive, check_probability
from lit_xai.network.check import check_integer


class Tower(nn.Module):
    """A table of ids, a linear map of features beside it, and a small network over their sum.

    Args:
        rows: ids.
        features: values that are known of each.
        factors: width of the result.
        hidden: width of the network, whose output is added to the sum; 0 for none.

    Example:
        >>> Tower(rows=5, features=3, factors=8)(torch.tensor([4, 0]), torch.zeros(2, 3)).shape
        torch.Size([2, 8])
    """

    def __init__(self, rows: int, features: int, factors: int, hidden: int = 0) -> None:
        super().__init__()
        self.table = table(rows, factors)
        self.features = nn.Linear(features, factors, bias=False)
        # As small as the table: at torch's default, an early step is made of noise from the features.
        nn.init.normal_(self.features.weight, 0.0, 0.02)
        self.mlp: nn.Module | None = None
        if hidden:
            self.mlp = nn.Sequential(nn.Linear(factors, hidden), nn.ReLU(), nn.Linear(hidden, factors))

    def forward(self, ids: Tensor, features: Tensor) -> Tensor:
        """Return ``(batch, factors)`` from ids ``(batch,)`` and features ``(batch, features)``."""
        known = self.table(ids) + self.features(features)
        return known if self.mlp is None else known + self.mlp(known)


class TwoTower(nn.Module):
    r"""Rating as a weighted product of a user's tower and an item's, with a bias for each user and item.

    The user's tower reads the user's number, what the user thought of items and which ones they rated at all, the
    item's tower the item's number and genres. With the history it has the form of SVD++ (`Koren 2008
    <https://doi.org/10.1145/1401890.1401944>`_); the towers are those of `Covington et al. 2016, Deep Neural Networks
    for YouTube Recommendations <https://doi.org/10.1145/2959100.2959190>`_. Inputs that are numbers, history and
    genres, can be explained as they are; of ids, the embeddings. Its layers are
    ``user.table``, ``user.features``, ``user.mlp``, likewise for ``item``, ``user_bias``, ``item_bias`` and ``head``.

    Args:
        num_users: rows of the users' table.
        num_items: rows of the items' table, and values of a history.
        num_genres: values that are known of an item.
        factors: width of both towers.
        hidden: width of the network in each tower; 0 for none.
        mean: of the ratings, from which training begins.
        dropout: probability of dropping a factor.

    Raises:
        ValueError: a size is not a positive integer, or ``dropout`` is not in [0, 1).

    Example:
        >>> network = TwoTower(num_users=943, num_items=1682, num_genres=19)
        >>> user, item = torch.tensor([0, 942]), torch.tensor([7, 1681])
        >>> network(user, item, torch.zeros(2, 1682), torch.zeros(2, 1682), torch.zeros(2, 19)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        num_genres: int,
        factors: int = 32,
        hidden: int = 0,
        mean: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(num_users=num_users, num_items=num_items, num_genres=num_genres, factors=factors)
        check_integer("hidden", hidden, 0)
        check_probability(dropout=dropout)
        self.num_users, self.num_items, self.num_genres = num_users, num_items, num_genres
        self.user = Tower(num_users, 2 * num_items, factors, hidden)
        self.item = Tower(num_items, num_genres, factors, hidden)
        self.user_bias, self.item_bias = table(num_users, 1, 0.0), table(num_items, 1, 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = product_head(factors, mean)

    def forward(self, user: Tensor, item: Tensor, history: Tensor, seen: Tensor, genres: Tensor) -> Tensor:
        """Return ratings ``(batch, 1)``.

        Args:
            user: numbers ``(batch,)``.
            item: numbers ``(batch,)``.
            history: what the users thought of each item ``(batch, num_items)``, zero where unknown.
            seen: which items they rated, ``(batch, num_items)``.
            genres: of the items ``(batch, num_genres)``.
        """
        known = torch.cat((history, seen), 1)
        product = self.dropout(self.user(user, known) * self.item(item, genres))
        return self.head(product) + self.user_bias(user) + self.item_bias(item)
