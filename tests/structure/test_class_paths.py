"""Class paths of a file are looked up, and never imported."""

import sys
from collections.abc import Callable

import pytest
from torch import nn

from lit_xai.models import Classifier
from lit_xai.structure.class_paths import class_paths_in, foreign_path, imported, is_harmless


class Own(nn.Module):
    def __init__(self, net: nn.Module, call: str | Callable = "x", name: str = "", many: list[str] = (), **others):
        super().__init__()


def test_what_is_not_imported_yet_is_not_found(tmp_path, monkeypatch):
    (tmp_path / "not_yet.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert imported("not_yet.Net") is None
    assert not is_harmless("not_yet.Net")
    assert "not_yet" not in sys.modules


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("torch.nn.Linear", True),
        ("torch.optim.SGD", True),
        ("lit_xai.models.MLP", True),
        ("torch.nn.functional.relu", False),
        # Found in a module of torch, but not of it.
        ("torch.nn.modules.module.partial", False),
        ("torch.hub.load", False),
        ("builtins.eval", False),
        ("os.system", False),
        ("Linear", False),
        ("", False),
        (None, False),
    ],
)
def test_only_layers_optimizers_and_our_networks_are_harmless(path, expected):
    assert is_harmless(path) is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": "a.b", "many": ["a.b"], "call": "x"}, None),
        ({"call": "a.b"}, ("call", "a.b")),
        ({"net": "Linear"}, ("net", "Linear")),
        ({"net": {"class_path": "torch.nn.ReLU"}}, None),
        ({"net": {"class_path": "a.B"}}, ("net", "a.B")),
        ({"net": {"class_path": ["a.B"]}}, ("net", ["a.B"])),
        ({"other": {"deep": [1, {"class_path": "a.B"}]}}, ("other.deep.1", "a.B")),
        ({"other": "a.B"}, ("other", "a.B")),
        ({"net": {"class_path": "torch.nn.Sequential", "dict_kwargs": {"x": {"class_path": "a.B"}}}}, ("net.x", "a.B")),
    ],
)
def test_the_first_foreign_path_is_named(arguments, expected):
    assert foreign_path(arguments, Own, lambda place, value: is_harmless(value)) == expected


def test_what_is_handed_over_unparsed_may_hold_any_dictionary():
    arguments = {"other": {"class_path": "a.B"}, "name": "a.B"}
    assert foreign_path(arguments, Own, lambda place, value: False, is_parsed=False) is None
    assert foreign_path({"batch_to_inputs": "a.b"}, Classifier, lambda place, value: False, False)


def test_a_list_that_contains_itself_ends():
    endless = []
    endless.append(endless)
    assert foreign_path({"many": endless}, Own, lambda place, value: True)


def test_the_paths_of_a_trusted_config():
    config = {"network": {"class_path": "a.B", "init_args": {"parts": [{"class_path": "a.C"}]}}, "width": 3}
    assert class_paths_in(config) == {"a.B", "a.C"}
