"""A tree in the network's place: held against scikit-learn's own answers and against planted rules."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from lit_xai.attribution.surrogate import (
    Names,
    agreement,
    as_before_normalization,
    as_nodes,
    choose_leaves,
    column_names,
    constant_agreement,
    fit_tree,
    predict,
    rules,
    to_rows,
)

XOR = np.array([[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0)] * 5)


def answer(node, row, names):
    """Walk through the questions as a reader does."""
    while node.yes is not None:
        if " ≤ " in node.text:
            name, _, limit = node.text.partition(" ≤ ")
            says = row[names.index(name)] <= float(limit.replace("\u2212", "-"))
        else:
            says = row[names.index(node.text.replace(" = ", "="))] == 1
        node = node.yes if says else node.no
    return node


@pytest.mark.parametrize("categories", [(), (True, False)])
def test_the_questions_lead_to_what_the_tree_predicts(categories):
    names = ["job=nurse", "age"]
    labels = (XOR[:, 0] != XOR[:, 1]).astype(int)
    tree = fit_tree(XOR, labels, leaves=4)
    root = as_nodes(tree, Names(names, ["low", "high"], categories))
    assert agreement(tree, XOR, labels) == 1.0
    for row, label in zip(XOR, labels, strict=True):
        leaf = answer(root, row, names)
        assert (leaf.text, leaf.kind) == (f"{('low', 'high')[label]} (100%)", label)
        assert leaf.share == 0.25


def test_the_tree_is_scikit_learns_and_its_leaves_count_the_samples():
    x, y = load_breast_cancer(return_X_y=True)
    tree = fit_tree(x, y, leaves=6, seed=3)
    expected = DecisionTreeClassifier(max_leaf_nodes=6, random_state=3).fit(x, y)
    np.testing.assert_array_equal(tree.predict(x), expected.predict(x))
    leaves, stack = [], [as_nodes(tree, Names([f"x{k}" for k in range(30)]))]
    while stack:
        node = stack.pop()
        leaves += [node] if node.yes is None else []
        stack += [] if node.yes is None else [node.yes, node.no]
    assert sum(leaf.share for leaf in leaves) == pytest.approx(1)


def test_no_question_is_left_whose_answers_all_lead_to_one_class():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 40, (400, 4)).astype(float)  # limits such as 12.5 are written without rounding
    y = ((x[:, 0] > 20) ^ (draw.random(400) < 0.2)).astype(int)
    tree = fit_tree(x, y, leaves=8)
    names = list("abcd")
    root = as_nodes(tree, Names(names))

    def kinds(node):
        return {node.kind} if node.yes is None else kinds(node.yes) | kinds(node.no)

    def questions(node):
        return [] if node.yes is None else [node, *questions(node.yes), *questions(node.no)]

    assert len(questions(root)) < tree.get_n_leaves() - 1  # scikit-learn asks some
    assert all(len(kinds(question)) > 1 for question in questions(root))
    assert [answer(root, row, names).kind for row in x] == tree.predict(x).tolist()


def test_of_values_agreement_is_r_squared():
    from sklearn.metrics import r2_score

    x = np.random.default_rng(0).normal(size=(200, 2))
    y = x[:, 0] ** 2
    tree = fit_tree(x[:100], y[:100])
    assert agreement(tree, x[100:], y[100:]) == pytest.approx(r2_score(y[100:], tree.predict(x[100:])))
    assert answer(as_nodes(tree, Names(["a", "b"])), x[0], ["a", "b"]).yes is None


def test_one_class_is_one_leaf():
    node = as_nodes(fit_tree(XOR, np.ones(20, int)), Names(["a", "b"], ["no", "yes"]))
    assert (node.text, node.share, node.yes) == ("yes (100%)", 1.0, None)


@pytest.mark.parametrize(
    ("outputs", "are_values", "expected"),
    [
        ([[2.0, 1.0], [0.0, 3.0]], False, [0, 1]),
        ([[-1.0], [1.0]], False, [0, 1]),
        ([-1.0, 1.0], False, [0, 1]),
        ([[-1.5], [1.0]], True, [-1.5, 1.0]),
        ([[-1.5, 2.0], [1.0, 0.0]], True, [[-1.5, 2.0], [1.0, 0.0]]),
    ],
)
def test_predictions_by_the_shape_of_outputs(outputs, are_values, expected):
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.tensor(outputs)[: len(x)]

    np.testing.assert_array_equal(predict(Fixed(), torch.zeros(2, 3), are_values), expected)


def test_columns_have_the_values_before_normalization():
    x = torch.randn(5, 3, 2, 2)
    mean, std = (0.1, 0.2, 0.3), (2.0, 3.0, 4.0)
    rows = as_before_normalization(to_rows(x), (3, 2, 2), mean, std)
    expected = x * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    np.testing.assert_allclose(rows, expected.flatten(1), rtol=1e-5)
    np.testing.assert_allclose(as_before_normalization(x[:, :, 0, 0], (3,), None, None), x[:, :, 0, 0])


def test_names_of_columns():
    assert column_names((3, 1, 2), None)[-1] == "pixel (0, 1), channel 2"
    assert column_names((2, 2), None) == ["x(0,0)", "x(0,1)", "x(1,0)", "x(1,1)"]
    assert "class: high" in rules(fit_tree(XOR, XOR[:, 0].astype(int)), Names(["a", "b"], ["low", "high"]))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            torch.zeros(2, 5, dtype=torch.long),
            r"inputs expected a tensor \(N, ...\) of real numbers, .* but got .int64",
        ),
        ((torch.zeros(2, 5), torch.zeros(2, 5)), "inputs expected one tensor of numbers, .* but got '2 inputs'"),
    ],
)
def test_inputs_that_are_no_columns_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        to_rows(inputs)


def test_answers_for_pixels_are_refused():
    with pytest.raises(ValueError, match="outputs expected scores or values of each sample"):
        predict(nn.Conv2d(1, 2, 1), torch.zeros(2, 1, 4, 4), False)


def test_leaves_by_the_number_of_classes():
    assert [choose_leaves(np.arange(classes)) for classes in (1, 2, 4, 9, 16, 100)] == [8, 8, 8, 18, 32, 32]
    assert choose_leaves(np.linspace(0, 1, 50)) == 8


def test_one_answer_for_all_is_scikit_learns_dummy():
    from sklearn.dummy import DummyClassifier

    taught, expected = np.random.default_rng(0).integers(4, size=(2, 50))
    dummy = DummyClassifier().fit(np.zeros((50, 1)), taught)
    kind, share = constant_agreement(taught, expected)
    assert kind == dummy.predict([[0.0]])[0]
    assert share == dummy.score(np.zeros((50, 1)), expected)
