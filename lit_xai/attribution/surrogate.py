"""A decision tree in the network's place: fitted to its predictions, and held against them on other samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.check import check_integer, refusal
from lit_xai.network.rows import take
from lit_xai.network.untouched import untouched
from lit_xai.render.tree import TreeNode

Array: TypeAlias = NDArray[Any]
BATCH = 512
"""Samples in one pass of the network."""


@dataclass(frozen=True)
class Names:
    """The words of a tree.

    Args:
        features: one per column.
        classes: one per class; empty for values.
        categories: which columns are a category's zero or one: ``"job=nurse"`` is asked for instead of compared.
    """

    features: Sequence[str]
    classes: Sequence[str] = ()
    categories: Sequence[bool] = ()


def to_rows(inputs: Inputs) -> Tensor:
    """Return a network's input as rows ``(N, columns)`` of numbers.

    Args:
        inputs: what the network is called with.

    Raises:
        ValueError: there are several inputs, or they are no numbers, such as tokens.

    Example:
        >>> to_rows(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 64])
    """
    split = SplitInputs(inputs, any_dtype=True)
    if len(split.explained) != 1:
        raise refusal(
            "inputs", "one tensor of numbers, whose values are the tree's columns", f"{len(split.explained)} inputs"
        )
    rows = split.values[split.explained[0]]
    if not rows.is_floating_point() or rows.dim() < 2:
        what = f"{str(rows.dtype).removeprefix('torch.')} of shape {tuple(rows.shape)}"
        raise refusal("inputs", "a tensor (N, ...) of real numbers, whose values are the tree's columns", what)
    return rows.flatten(1)


def predict(network: nn.Module, inputs: Inputs, are_values: bool, output: OutputSpec = None) -> Array:
    """Return the classes ``(N,)`` that a network predicts, or its values ``(N,)`` or ``(N, outputs)``.

    Args:
        network: left exactly as it was.
        inputs: of all samples.
        are_values: whether it predicts values, as a regression.
        output: the logits in its output.

    Raises:
        ValueError: it answers for more than the whole of each sample.
    """
    n = SplitInputs(inputs, any_dtype=True).n
    with untouched(network), torch.no_grad():
        parts = [
            call_network(network, take(inputs, list(range(at, min(at + BATCH, n))), n), "forward", output).float().cpu()
            for at in range(0, n, BATCH)
        ]
    logits = torch.cat(parts)
    if logits.dim() > 2 or len(logits) != n:
        raise refusal("outputs", "scores or values of each sample, (N, outputs)", f"shape {tuple(logits.shape)}")
    single = logits.dim() == 1 or logits.shape[1] == 1
    if are_values:
        return (logits.reshape(n) if single else logits).numpy()
    return (logits.reshape(n) > 0).long().numpy() if single else logits.argmax(1).numpy()


def fit_tree(rows: Array, answers: Array, leaves: int = 8, seed: int = 0) -> Any:
    """Return scikit-learn's decision tree of some leaves, for classes or for values.

    Args:
        rows: ``(N, columns)``.
        answers: the network's, or labels: whole numbers are classes.
        leaves: at most.
        seed: of the order in which equally good questions are tried.

    Example:
        >>> tree = fit_tree(np.array([[0.0], [1.0], [2.0]]), np.array([0, 0, 1]), leaves=2)
        >>> tree.predict([[0.5], [5.0]])
        array([0, 1])
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    check_integer("leaves", leaves, 2)
    kind = DecisionTreeRegressor if answers.dtype.kind == "f" else DecisionTreeClassifier
    return kind(max_leaf_nodes=leaves, random_state=seed).fit(rows, answers)


def agreement(tree: Any, rows: Array, answers: Array) -> float:
    r"""Return the share of samples for which a tree gives the same class; of values, :math:`R^2`.

    Args:
        tree: of :func:`fit_tree`.
        rows: samples that it was not fitted to.
        answers: the network's, or labels.

    Example:
        >>> tree = fit_tree(np.array([[0.0], [1.0]]), np.array([0, 1]))
        >>> agreement(tree, np.array([[0.2], [0.9]]), np.array([0, 0]))
        0.5
    """
    return float(tree.score(rows, answers))


def choose_leaves(answers: Array) -> int:
    """Return how many leaves a tree gets: two for each class, at least 8, and at most the 32 that a page can show.

    Args:
        answers: the network's: whole numbers are classes.

    Example:
        >>> choose_leaves(np.array([0, 1])), choose_leaves(np.arange(10)), choose_leaves(np.array([0.5, 1.5]))
        (8, 20, 8)
    """
    kinds = 1 if answers.dtype.kind == "f" else len(np.unique(answers))
    return int(np.clip(2 * kinds, 8, 32))


def constant_agreement(answers: Array, expected: Array) -> tuple[int, float]:
    """Return the most frequent class, and for what share of other samples it is the answer.

    Args:
        answers: the network's on the samples that a tree is fitted to.
        expected: likewise on those that it is tested on.

    Example:
        >>> constant_agreement(np.array([1, 1, 0]), np.array([1, 0, 0, 1]))
        (1, 0.5)
    """
    kinds, counts = np.unique(answers, return_counts=True)
    return int(kinds[counts.argmax()]), float((expected == kinds[counts.argmax()]).mean())


def as_nodes(tree: Any, names: Names) -> TreeNode:
    """Return a tree of scikit-learn as questions in words.

    A question about a category's column is asked as one: ``job = nurse`` in place of ``job=nurse ≤ 0.5``. Of several
    leaves that say the same below one question, one remains.

    Args:
        tree: of :func:`fit_tree`.
        names: of columns and classes.
    """
    return _node(tree, names, 0)


def _node(tree: Any, names: Names, place: int) -> TreeNode:
    inner = tree.tree_
    share = float(inner.n_node_samples[place] / inner.n_node_samples[0])
    left, right = int(inner.children_left[place]), int(inner.children_right[place])
    # A question to which both answers lead to the same class asks nothing.
    if left < 0 or (hasattr(tree, "classes_") and len(set(_classes_below(tree, place))) == 1):
        return _leaf(tree, names, place, share)
    yes, no = _node(tree, names, left), _node(tree, names, right)
    feature, threshold = int(inner.feature[place]), float(inner.threshold[place])
    if names.categories and names.categories[feature]:
        name, _, category = names.features[feature].partition("=")
        return TreeNode(f"{name} = {category}", share, yes=no, no=yes)
    return TreeNode(f"{names.features[feature]} ≤ {_number(threshold)}", share, yes=yes, no=no)


def _classes_below(tree: Any, place: int) -> Iterator[int]:
    """Yield the class of each leaf that a question leads to."""
    inner = tree.tree_
    if inner.children_left[place] < 0:
        yield int(np.atleast_1d(inner.value[place].squeeze()).argmax())
        return
    for child in (inner.children_left[place], inner.children_right[place]):
        yield from _classes_below(tree, int(child))


def _number(value: float) -> str:
    """Return a number with three digits or more, and never as a power of ten unless it is tiny.

    Example:
        >>> _number(12880.5), _number(0.15625), _number(-3.0)
        ('12,880', '0.156', '\u22123')
    """
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return digits.replace("-", "\N{MINUS SIGN}")


def _leaf(tree: Any, names: Names, place: int, share: float) -> TreeNode:
    values = np.atleast_1d(tree.tree_.value[place].squeeze())
    if not hasattr(tree, "classes_"):
        return TreeNode(", ".join(map(_number, values)), share)
    if len(tree.classes_) == 1:
        kind, purity = int(tree.classes_[0]), 1.0
    else:
        best = int(values.argmax())
        kind, purity = int(tree.classes_[best]), float(values[best] / values.sum())
    name = names.classes[kind] if kind < len(names.classes) else str(kind)
    return TreeNode(f"{name} ({100 * purity:.0f}%)", share, kind)


def column_names(shape: Sequence[int], feature_names: Sequence[str] | None) -> list[str]:
    """Return a name for each value of a sample: the feature's, or the place of a pixel.

    Args:
        shape: of a sample.
        feature_names: one per value, where known.

    Example:
        >>> column_names((1, 2, 2), None)
        ['pixel (0, 0)', 'pixel (0, 1)', 'pixel (1, 0)', 'pixel (1, 1)']
        >>> column_names((2,), ["age", "job"])
        ['age', 'job']
    """
    count = int(np.prod(shape))
    if feature_names is not None and len(feature_names) == count:
        return [str(name) for name in feature_names]
    if len(shape) == 1:
        return [f"x{k}" for k in range(count)]
    places = np.stack(np.unravel_index(np.arange(count), tuple(shape)), 1)
    if len(shape) == 3:
        several = shape[0] > 1
        return [f"pixel ({row}, {column})" + f", channel {channel}" * several for channel, row, column in places]
    return [f"x{tuple(int(k) for k in place)}".replace(" ", "") for place in places]


def as_before_normalization(rows: Tensor, shape: Sequence[int], mean: Any, std: Any) -> Array:
    """Return rows with the values that they had before they were normalized, where that is known.

    Args:
        rows: ``(N, columns)``.
        shape: of a sample.
        mean: what was subtracted: one number, or one per channel or feature.
        std: what it was divided by.
    """
    values = rows.detach().double().cpu()
    if mean is None or std is None:
        return values.numpy()
    scaled = values.reshape(len(values), *shape)
    extra = (1,) * (len(shape) - 1)
    center, scale = (torch.as_tensor(one, dtype=torch.float64).reshape(-1, *extra) for one in (mean, std))
    if len(center) not in (1, shape[0]):
        return values.numpy()
    return (scaled * scale + center).flatten(1).numpy()


def rules(tree: Any, names: Names) -> str:
    """Return a tree as scikit-learn writes it, line by line."""
    from sklearn.tree import export_text

    options: Mapping[str, Any] = {"feature_names": list(names.features), "decimals": 4}
    if hasattr(tree, "classes_") and names.classes:
        options = {**options, "class_names": [names.classes[int(k)] for k in tree.classes_]}
    return str(export_text(tree, **options))
