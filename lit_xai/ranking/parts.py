"""What a recommendation is made of: the user, the item, the two together, and each known thing about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_xai.attribution.attribution import attribute
from lit_xai.ranking.scoring import Describe, inputs_of, network_of, score_pairs

OTHERS = 64
"""Other users and items that a user and an item are compared with."""


@dataclass(frozen=True)
class Recommendation:
    """A recommended item, and what its score is made of.

    Args:
        item: its number.
        score: the network's.
        average: that of other users and items, with nothing known of them: the parts add up to the rest.
        parts: ``user``, ``item`` and ``match``, and one for each float input by its name.
        columns: what each column of each float input adds, by the input's name: the parts in detail.
    """

    item: int
    score: float
    average: float
    parts: Mapping[str, float]
    columns: Mapping[str, Tensor]


def explain_ranking(
    module: nn.Module,
    describe: Describe,
    user: int,
    items: Sequence[int],
    num_users: int,
    num_items: int,
    *,
    seed: int = 0,
    n_steps: int = 16,
) -> list[Recommendation]:
    r"""Return what the scores of some items for a user are made of.

    A float input, such as a history or genres, is given what Integrated Gradients of Captum attribute to it against
    zeros. What is left is the score with nothing known of user or item, :math:`f_0(u, i)`, which is compared with other
    users and items drawn at random: ``user`` is how much more the user gives than others do on average, ``item`` how
    much more the item is given, and ``match`` the rest: what this user's and this item's embeddings make of each other.

    Args:
        module: a network, or a LightningModule that has one as its ``network``.
        describe: what it is called with for users and items.
        user: number of the user.
        items: numbers of the items.
        num_users: how many users there are.
        num_items: how many items there are.
        seed: of the draw of others.
        n_steps: of the integral.

    Example:
        >>> from lit_xai.models import MatrixFactorization
        >>> describe = lambda user, item: {"user": user, "item": item}
        >>> (found,) = explain_ranking(MatrixFactorization(3, 4, mean=3.5), describe, 0, [2], 3, 4)
        >>> abs(found.average + sum(found.parts.values()) - found.score) < 1e-4
        True
    """
    network, shown = network_of(module), torch.as_tensor(list(items))
    users = torch.full_like(shown, user)
    inputs = inputs_of(module, describe(users, shown))
    floats = _floats(inputs)
    given = attribute(network, inputs, attribute_args={"n_steps": n_steps}) if floats else {}
    columns = {name: given[name].detach().cpu() for name in floats}
    scores = score_pairs(module, describe, users, shown)
    # The score with nothing known is what the others' are compared with.
    plain = _nothing_known(describe, floats)
    alone = score_pairs(module, plain, users, shown)
    effect_of_user, effect_of_items, average = _effects(module, plain, user, shown, num_users, num_items, seed)
    found = []
    for k, item in enumerate(items):
        own = {"user": effect_of_user, "item": effect_of_items[k].item()}
        own["match"] = alone[k].item() - average - sum(own.values())
        own |= {name: values[k].sum().item() for name, values in columns.items()}
        details = {name: values[k] for name, values in columns.items()}
        found.append(Recommendation(int(item), scores[k].item(), average, own, details))
    return found


def _floats(inputs: object) -> list[str]:
    values = inputs if isinstance(inputs, Mapping) else {}
    return [name for name, value in values.items() if value.is_floating_point()]


def _nothing_known(describe: Describe, floats: Sequence[str]) -> Describe:
    def plain(user: Tensor, item: Tensor) -> Mapping[str, Tensor]:
        known = describe(user, item)
        return {name: torch.zeros_like(value) if name in floats else value for name, value in known.items()}

    return plain


def _effects(
    module: nn.Module, plain: Describe, user: int, items: Tensor, num_users: int, num_items: int, seed: int
) -> tuple[float, Tensor, float]:
    """Return how much more the user gives than others do, how much more each item is given, and the mean of all."""
    draw = torch.Generator().manual_seed(seed)
    others = torch.randperm(num_users, generator=draw)[:OTHERS]
    rest = torch.randperm(num_items, generator=draw)[:OTHERS]

    def mean(users: Tensor, shown: Tensor, dim: int) -> Tensor:
        pairs = torch.cartesian_prod(users, shown)
        return score_pairs(module, plain, pairs[:, 0], pairs[:, 1]).view(len(users), len(shown)).mean(dim)

    average = mean(others, rest, 0).mean().item()
    of_user = mean(torch.tensor([user]), rest, 1).item() - average
    return of_user, mean(others, items, 0) - average, average
