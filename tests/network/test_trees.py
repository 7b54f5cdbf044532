import copy
import weakref
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lit_xai.network.rows import take
from lit_xai.network.trees import changed, leaves, replaced, to_device

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Plain:
    image: Any
    more: Any


@dataclass(frozen=True)
class Frozen:
    image: Any
    more: Any


@dataclass(slots=True)
class Slots:
    image: Any
    more: Any


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    image: Any
    more: Any


class Storage:
    """A graph's storage as in torch_geometric: a mapping behind a private name, and a way back to the graph."""

    def __init__(self, parent: Any, **values: Any) -> None:
        self.__dict__["_mapping"] = dict(values)
        self.__dict__["_parent"] = weakref.ref(parent)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Storage":
        new = self.__class__.__new__(self.__class__)
        new.__dict__.update({key: value for key, value in self.__dict__.items() if key != "_mapping"})
        new.__dict__["_mapping"] = copy.deepcopy(self.__dict__["_mapping"], memo)
        return new


class Graph:
    def __init__(self, **values: Any) -> None:
        self.__dict__["_store"] = Storage(self, **values)

    def __getattr__(self, key: str) -> Any:
        if "_store" not in self.__dict__ or key not in self._store._mapping:
            raise AttributeError(key)
        return self._store._mapping[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Graph":
        new = self.__class__.__new__(self.__class__)
        new.__dict__["_store"] = copy.deepcopy(self._store, memo)
        new._store.__dict__["_parent"] = weakref.ref(new)
        return new

    def __repr__(self) -> str:
        return f"Graph({self._store._mapping})"


class Attributes(dict):
    """A dict whose keys are its attributes too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__ = self


def tensor(number: int) -> Tensor:
    return torch.arange(3) + number


def nested(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    two = [st.builds(form, parts, parts) for form in (Pair, Plain, Frozen, Slots, FrozenSlots)]
    held = st.dictionaries(st.sampled_from(["x", "edge_index", "batch", "a.b", "0"]), parts, max_size=3)
    forms = [UserDict, OrderedDict, Attributes, lambda d: Graph(**d), lambda d: SimpleNamespace(**d)]
    return st.one_of(
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["image", "a", 0, "0", ("a", "b")]), parts, max_size=3),
        *two,
        *(held.map(form) for form in forms),
    )


PARTS = st.one_of(st.integers(0, 99).map(tensor), st.sampled_from([None, "word", 3, 2.5, True, float]))
VALUES = st.recursive(PARTS, nested, max_leaves=8)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_a_value_with_its_own_tensors_is_an_equal_copy_and_with_others_leaves_it_alone(value: Any) -> None:
    before = repr(value)
    # Objects are searched for four levels, and a graph takes two of them.
    assume(2 * before.count("Graph(") + before.count("namespace(") < 4)
    found = dict(leaves(value))
    # Every type here is written out with all that it holds: an independent count.
    assert len(found) == before.count("tensor(") == len(list(leaves(value)))
    same = replaced(value, found)
    assert repr(same) == before
    assert type(same) is type(value)
    assert [id(part) for _, part in leaves(same)] == [id(part) for part in found.values()]

    other = replaced(value, {path: part + 1000 for path, part in found.items()})
    assert repr(value) == before
    assert list(dict(leaves(other))) == list(found)
    for path, part in leaves(other):
        assert torch.equal(part, found[path] + 1000)


@given(VALUES, st.data())
@settings(max_examples=50, deadline=None)
def test_one_path_replaces_one_tensor(value: Any, data: st.DataObject) -> None:
    found = dict(leaves(value))
    if not found:
        return
    path = data.draw(st.sampled_from(list(found)))
    other = dict(leaves(replaced(value, {path: torch.zeros(1)})))
    assert {p for p, part in other.items() if part is not found[p]} == {path}


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (torch.zeros(1), [""]),
        (("a", (1, torch.zeros(1))), ["1.1"]),
        ({"batch": Graph(edge_index=torch.zeros(1), y=torch.zeros(1))}, ["batch.edge_index", "batch.y"]),
        (Pair(torch.zeros(1), None), ["left"]),
        (SimpleNamespace(_x=torch.zeros(1)), ["_x"]),
        ({"0": torch.zeros(1), 0: torch.zeros(1)}, ["0", "0~2"]),
        ([[1.0, 2.0]] * 3, []),
        (nn.Linear(2, 2), []),
        ({"data": TensorDataset(torch.zeros(2))}, []),
    ],
)
def test_paths(value: Any, paths: list[str]) -> None:
    assert [path for path, _ in leaves(value)] == paths


def test_a_tensor_in_two_places_of_a_container_can_be_replaced_in_one() -> None:
    one = torch.zeros(1)
    left, right = replaced((one, one), {"1": torch.ones(1)})
    assert left is one
    assert right.item() == 1


def test_an_object_keeps_what_it_holds_twice() -> None:
    one = torch.zeros(1)
    value = SimpleNamespace(a=one, b=one)
    assert [path for path, _ in leaves(value)] == ["a"]
    other = replaced(value, {"a": torch.ones(1)})
    assert other.a is other.b
    assert other.a.item() == 1
    assert value.a is one


def test_circles_end() -> None:
    ring: list[Any] = [torch.zeros(1)]
    ring.append(ring)
    assert [path for path, _ in leaves(ring)] == ["0"]
    assert replaced(ring, {"0": torch.ones(1)})[0].item() == 1
    node = SimpleNamespace(x=torch.zeros(1))
    node.self = node
    other = replaced(node, {"x": torch.ones(1)})
    assert other.self is other
    assert other.x.item() == 1
    assert node.x.item() == 0


def test_a_module_in_a_batch_is_neither_searched_nor_copied() -> None:
    network = nn.Linear(2, 2)
    value = SimpleNamespace(x=torch.zeros(1), network=network)
    assert [path for path, _ in leaves(value)] == ["x"]
    assert replaced(value, {"x": torch.ones(1)}).network is network


def test_tensors_with_a_graph_are_shared() -> None:
    computed = torch.zeros(2, requires_grad=True) * 2  # torch refuses to copy it
    value = Plain(computed, {"x": torch.zeros(1)})
    assert replaced(value, {"more.x": torch.ones(1)}).image is computed


def test_a_graph_knows_its_copy() -> None:
    graph = Graph(x=torch.zeros(2))
    other = replaced(graph, {"x": torch.ones(2)})
    assert other._store._parent() is other
    assert graph._store._parent() is graph
    assert other.x.sum() == 2


class Computed(Mapping):  # type: ignore[type-arg]  # of anything
    def __getitem__(self, key: str) -> Tensor:
        return torch.zeros(2)

    def __iter__(self) -> Any:
        return iter(["x"])

    def __len__(self) -> int:
        return 1


class Tensors(MutableMapping):  # type: ignore[type-arg]  # of tensors and others of its kind
    """A mapping as in tensordict: it copies its tensors by itself, and all of them begin with one size."""

    def __init__(self, values: dict[str, Any], batch_size: Any) -> None:
        self._values: dict[str, Any] = {}
        self._size = torch.Size(batch_size)
        self.update(values)

    @property
    def batch_size(self) -> torch.Size:
        return self._size

    @batch_size.setter
    def batch_size(self, size: Any) -> None:
        assert all(value.shape[: len(size)] == tuple(size) for value in self._values.values())
        self._size = torch.Size(size)

    @property
    def shape(self) -> torch.Size:
        return self._size

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if value.shape[: len(self._size)] != self._size:
            raise RuntimeError("batch dimension mismatch")
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __copy__(self) -> "Tensors":
        return Tensors(self._values, self._size)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensors":
        return Tensors({key: value.clone() for key, value in self._values.items()}, self._size)

    def clone(self) -> "Tensors":
        return copy.deepcopy(self)


def test_a_mapping_that_copies_its_tensors_by_itself() -> None:
    places, inner = torch.zeros(4, 2), torch.zeros(4, 3)
    value = Tensors({"places": places, "more": Tensors({"kinds": inner}, [4])}, [4])
    assert [path for path, _ in leaves(value)] == ["places", "more.kinds"]
    other = replaced({"state": value, "flag": True}, {"state.more.kinds": torch.ones(4, 3)})["state"]
    assert type(other) is type(other["more"]) is Tensors
    assert other["places"] is places
    assert other["more"]["kinds"].sum() == 12
    assert value["more"]["kinds"] is inner
    rows = take(value, [1, 3], 4)
    assert (rows.batch_size, rows["more"].batch_size) == ((2,), (2,))
    assert (rows["places"].shape, value["places"].shape, value.batch_size) == ((2, 2), (4, 2), (4,))


def test_a_mapping_whose_copies_share_its_items_is_refused() -> None:
    class Sharing(Tensors):
        def __copy__(self) -> "Tensors":
            return self

    value = Sharing({"places": torch.zeros(4, 2)}, [4])
    with pytest.raises(ValueError, match=r"Sharing holds tensors but cannot be copied .*it computes its tensors"):
        replaced(value, {"places": torch.ones(4, 2)})


def test_what_cannot_be_replaced_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"'imag' is the path of no tensor.* Did you mean 'image'"):
        replaced({"image": torch.zeros(1)}, {"imag": torch.ones(1)})
    with pytest.raises(ValueError, match=r"Computed holds tensors but cannot be copied .*it computes its tensors"):
        replaced(Computed(), {"x": torch.ones(2)})
    lazy = SimpleNamespace(x=torch.zeros(1), rows=(i for i in range(3)))
    with pytest.raises(
        ValueError, match=r"SimpleNamespace holds tensors but cannot be copied .*TypeError: .*generator"
    ):
        replaced(lazy, {"x": torch.ones(2)})


def test_token_batches_are_copied_whole() -> None:
    transformers = pytest.importorskip("transformers")
    batch = transformers.BatchEncoding({"input_ids": torch.zeros(2, 3), "words": ["a", "b"]})
    other = replaced(batch, {"input_ids": torch.ones(2, 3)})
    assert type(other) is type(batch)
    assert other["input_ids"].sum() == 6
    assert batch["input_ids"].sum() == 0
    result = transformers.modeling_outputs.SequenceClassifierOutput(logits=torch.zeros(2, 3))
    other = replaced(result, {"logits": torch.ones(2, 3)})
    assert type(other) is type(result)
    assert other.logits is other["logits"]
    assert other.logits.sum() == 6


def test_long_lists_of_numbers_and_wide_objects_are_quick() -> None:
    value = {"x": torch.zeros(1), "ids": list(range(100_000)), "text": "word " * 10_000}
    other = replaced(value, {"x": torch.ones(1)})
    assert other["ids"] == value["ids"]
    assert other["x"].item() == 1


def test_to_device_asks_objects_that_can_move() -> None:
    class Batch:
        def __init__(self, x: Tensor) -> None:
            self.x, self.moved = x, ""

        def to(self, device: torch.device) -> "Batch":
            new = Batch(self.x.to(device))
            new.moved = str(device)
            return new

    meta = torch.device("meta")
    value = {"batch": Batch(torch.zeros(1)), "more": [Plain(torch.zeros(1), "a")], "ids": list(range(100))}
    moved = to_device(value, meta)
    assert moved["batch"].moved == "meta"
    assert moved["more"][0].image.is_meta
    assert moved["ids"] == value["ids"]
    assert not value["more"][0].image.is_meta
    packed = nn.utils.rnn.pack_sequence([torch.zeros(3, 2), torch.zeros(1, 2)])
    assert to_device(packed, meta).data.is_meta


def test_changed_keeps_every_type() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    doubled = changed(packed, lambda part: part * 2)
    assert type(doubled) is type(packed)
    assert doubled.data.sum() == 16
    assert changed(torch.Size([1]), lambda part: part) == torch.Size([1])
    assert changed(torch.ones(4, 3).max(1), lambda part: part * 2).values.sum() == 8


def test_what_moves_itself_is_moved():
    """A batch of molecules whose ``to`` works in place and returns nothing."""

    class Graph:
        def __init__(self):
            self.V = torch.zeros(3, 2)

        def to(self, device):
            self.V = self.V.to(device)

    moved = to_device([Graph(), 1], torch.device("meta"))
    assert moved[0].V.device.type == "meta"
    assert moved[1] == 1
