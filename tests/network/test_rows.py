from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_xai.network.rows import column, columns, count, is_list, take, with_columns
from lit_xai.network.trees import leaves

# Of each way in which data loaders put samples together, what becomes of one sample's image and of its target.
IMAGES = {"stacked": torch.stack, "listed": list, "tuple": tuple}
TARGETS = {
    "dicts": lambda targets: list(targets),
    "tuple of dicts": lambda targets: tuple(targets),
    "objects": lambda targets: [SimpleNamespace(**one) for one in targets],
    "dict of lists": lambda targets: {key: [one[key] for one in targets] for key in targets[0]},
    "nested": lambda targets: {"more": [{"inner": one} for one in targets]},
}


def sample(number: int, boxes: int) -> tuple[Any, Any, str]:
    generator = torch.Generator().manual_seed(number)
    return (
        torch.rand(3, 4, 4, generator=generator),
        {"boxes": torch.rand(boxes, 4, generator=generator), "labels": torch.full((boxes,), number)},
        f"{number}.png",
    )


def collate(samples: list[Any], images: str, targets: str, form: str) -> Any:
    pictures, found, names = zip(*samples, strict=True)
    batch = (IMAGES[images](pictures), TARGETS[targets](found), list(names))
    keys = ("image", "target", "name")
    return {"dict": dict(zip(keys, batch, strict=True)), "tuple": batch, "list": list(batch[:2])}[form]


FORMS = st.tuples(
    st.sampled_from(sorted(IMAGES)), st.sampled_from(sorted(TARGETS)), st.sampled_from(["dict", "tuple", "list"])
)


def samples(n: int) -> Any:
    # Where each of n samples has n boxes, or as many as an image has channels, these could be the samples.
    many = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    many = many.filter(lambda sizes: any(one not in (n, 3) for one in sizes))
    return many.map(lambda sizes: [sample(i, size) for i, size in enumerate(sizes)])


@given(st.integers(1, 5).flatmap(samples), FORMS, st.data())
@settings(max_examples=100, deadline=None)
def test_samples_are_those_that_a_loader_had_put_together(own: list[Any], form: Any, data: st.DataObject) -> None:
    n = len(own)
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6))
    batch = collate(own, *form)
    before = repr(batch)
    assert count(batch) == n
    assert repr(take(batch, rows, n)) == repr(collate([own[row] for row in rows], *form))
    assert repr(batch) == before


@given(st.integers(2, 5).flatmap(samples), st.integers(1, 6).flatmap(samples), FORMS)
@settings(max_examples=100, deadline=None)
def test_columns_of_one_batch_are_found_in_another_and_put_there(own: list[Any], other: list[Any], form: Any) -> None:
    batch, second = collate(own, *form), collate(other, *form)
    paths = columns(batch)
    assert sum(len(one) if is_list(path) else 1 for path, one in paths.items()) == len(list(leaves(batch)))
    found = {path: column(second, path) for path in paths}
    assert None not in found.values()
    wanted = collate([(*new[:2], own[i % len(own)][2]) for i, new in enumerate(other)], *form)
    assert repr(with_columns(batch, found)) == repr(wanted)  # type: ignore[arg-type]  # checked above


@pytest.mark.parametrize(
    "value",
    [
        (torch.zeros(2, 3), torch.zeros(5, 3)),  # arguments of a call
        [{"x": torch.zeros(2, 3)}, {"x": torch.zeros(2, 3)}],  # batches of two loaders
        {"views": [torch.zeros(2, 3), torch.zeros(2, 3)]},
        {"cache": ((torch.zeros(2, 4), torch.zeros(2, 4)), (torch.zeros(2, 4), torch.zeros(2, 4)))},
        {"x": torch.zeros(2, 3), "size": [32, 32], "reduce": ["mean", "sum"]},
    ],
    ids=["arguments", "loaders", "views", "cache", "options"],
)
def test_other_lists_are_no_samples(value):
    taken = take(value, [1], 2)
    assert [path for path, _ in leaves(taken)] == [path for path, _ in leaves(value)]
    assert all(len(one) in (1, 5) for _, one in leaves(taken))
    assert not any(map(is_list, columns(value)))
    assert count(value) == 2


def test_a_column_that_is_not_there_is_none():
    assert column({"x": torch.zeros(2)}, "y") is None
    assert column({"x": [torch.zeros(2)]}, "y.*") is None


def test_what_has_no_tensor_has_no_samples():
    assert count(["a", "b"]) == 0
    assert take(["a", "b"], [0], 2) == ["a", "b"]
