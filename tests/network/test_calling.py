"""The network, its inputs in a batch and the logits in its output: inferred, or set by name."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
import torch
from networks import cnn, mlp, plain_cnn
from refusals import refused
from torch import Tensor, nn

from lit_xai.functional import call_network, find_inputs, find_labels, find_network
from lit_xai.network.calling import find_call, module_names

X, Y, IDS = torch.zeros(4, 5), torch.arange(4), torch.ones(4, 2, dtype=torch.int64)


class One(nn.Module):
    def forward(self, x):
        return x


class Two(nn.Module):
    def forward(self, user, item, context=None):
        return user


class ByName(nn.Module):
    def forward(self, input_ids=None, mask=None, labels=None):
        return input_ids


class AnyName(nn.Module):
    def forward(self, **features):
        return features["x"]


class AnyKeyword(nn.Module):
    def forward(self, **kwargs):
        return kwargs["image"]


class WholeBatch(nn.Module):
    def forward(self, batch):
        return batch["image"]


class AnyNumber(nn.Module):
    def forward(self, *parts):
        return parts[0]


class TestFindNetwork:
    def test_by_dotted_name(self):
        network = cnn()
        assert find_network(network) is find_network(network, None) is find_network(network, "") is network
        assert find_network(nn.ModuleDict({"a": network}), "a.0") is network[0]

    @pytest.mark.parametrize("name", ["whole", "part"])
    def test_behind_torch_compile(self, name):
        network = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
        original = network[0]
        if name == "whole":
            assert find_network(torch.compile(network, backend="eager")) is network
        else:
            network[0] = torch.compile(original, backend="eager")
            assert find_network(network, "0") is original
            assert find_network(network, "0.0") is original[0]
            assert list(module_names(network)) == ["0", "0.0"]

    @pytest.mark.parametrize(
        ("name", "parts"),
        [("conv", ["module='conv'", "no part of Sequential"]), ("6.modul", ["Did you mean"]), (3, ["module=3"])],
    )
    def test_unknown(self, name, parts):
        with refused(*parts):
            find_network(plain_cnn(), name)


@dataclass
class Batch:
    image: Tensor
    label: Tensor


Pair = namedtuple("Pair", ["image", "label"])


class TestFindInputs:
    @pytest.mark.parametrize(
        ("batch", "network", "expected"),
        [
            (X, One(), X),
            ([X], One(), X),
            ((X, Y), One(), X),
            ([X, Y], One(), X),
            (Pair(X, Y), One(), X),
            ((X, IDS, Y), Two(), (X, IDS)),
            ([X, IDS], Two(), (X, IDS)),
            (([X, IDS], Y), Two(), (X, IDS)),
            (((X, IDS), Y), One(), (X, IDS)),
            ({"x": X, "label": Y}, One(), {"x": X}),
            ({"image": X, "label": Y}, One(), X),
            ({"image": X, "id": ["a"] * 4}, WholeBatch(), {"image": X, "id": ["a"] * 4}),
            ({"image": X, "mask": IDS, "label": Y}, One(), {"image": X, "mask": IDS, "label": Y}),
            ({"image": X, "label": Y}, AnyKeyword(), {"image": X}),
            ({"input_ids": IDS, "labels": Y, "mask": IDS, "id": ["a"] * 4}, ByName(), {"input_ids": IDS, "mask": IDS}),
            (UserDict({"input_ids": IDS, "labels": Y}), ByName(), {"input_ids": IDS}),
            ({"x": X, "y": Y, "id": ["a"] * 4}, AnyName(), {"x": X}),
            (({"user": X, "item": IDS, "id": ["a"]}, Y), Two(), {"user": X, "item": IDS}),
        ],
    )
    def test_guessed(self, batch, network, expected):
        found = find_inputs(batch, network)
        assert type(found) is type(expected)
        if isinstance(expected, dict):
            assert list(found) == list(expected)
            assert all(found[key] is expected[key] for key in expected if key != "id")
        elif isinstance(expected, tuple):
            assert all(a is b for a, b in zip(found, expected, strict=True))
        else:
            assert found is expected

    @pytest.mark.parametrize(
        ("batch", "spec", "expected"),
        [
            ({"image": X, "label": Y}, "image", X),
            ((Y, X), 1, X),
            ((Y, X), -1, X),
            (Batch(X, Y), "image", X),
            (Pair(X, Y), "image", X),
            ({"a.b": X}, "a.b", X),
            ({"deep": {"er": X}}, lambda batch: batch["deep"]["er"], X),
            ({"image": X}, "operator.itemgetter", None),
        ],
    )
    def test_named(self, batch, spec, expected):
        if expected is None:
            with refused("batch_to_inputs='operator.itemgetter' expected to give tensors"):
                find_inputs(batch, One(), spec)
        else:
            assert find_inputs(batch, One(), spec) is expected

    def test_several(self):
        batch = {"user": X, "item": IDS, "y": Y}
        assert find_inputs(batch, Two(), ["user", "item"]) == {"user": X, "item": IDS}
        assert find_inputs(batch, One(), ["user", "item"]) == (X, IDS)
        assert find_inputs((Y, X, IDS), Two(), [1, 2]) == (X, IDS)
        assert find_inputs((Y, X, IDS), Two(), lambda batch: [batch[1], batch[2]]) == (X, IDS)

    def test_example_is_the_last_resort(self):
        assert find_inputs(({"name": ["a"]}, Y), Two(), example_inputs=X) is X
        assert find_inputs((X, Y), One(), example_inputs=IDS) is X

    @pytest.mark.parametrize(
        ("batch", "network", "spec", "parts"),
        [
            (["a", "b"], One(), None, ["No inputs for One.forward(x)", "list(2 of str)", "batch_to_inputs="]),
            ({"a": X, "b": Y}, Two(), None, ["No inputs for Two.forward(user, item, context)", "a: Tensor[4, 5]"]),
            (None, One(), None, ["No inputs", "NoneType"]),
            ([], One(), None, ["No inputs", "list"]),
            ({"image": X}, One(), "imgae", ["batch_to_inputs='imgae'", "Did you mean 'image'"]),
            ((X, Y), One(), 2, ["batch_to_inputs=2"]),
            ((X, Y), One(), "image", ["batch_to_inputs='image'"]),
            ({"image": X}, One(), 0, ["batch_to_inputs=0"]),
            ((X, ["a"]), One(), 1, ["batch_to_inputs=1 expected to give tensors", "list(1 of str)"]),
            ((X, Y), One(), "no.such_function", ["batch_to_inputs", "import path", "'no.such_function'"]),
            ((X, Y), One(), "torch.relux", ["batch_to_inputs='torch.relux'", "'relu"]),
        ],
    )
    def test_refused(self, batch, network, spec, parts):
        with refused(*parts):
            find_inputs(batch, network, spec)


class TestFindLabels:
    @pytest.mark.parametrize(
        ("batch", "network"),
        [
            ((X, Y), None),
            ([X, Y], One()),
            ((X, IDS, Y), Two()),
            (((X, IDS), Y), Two()),
            (({"user": X, "item": IDS}, Y), Two()),
            ({"x": X, "y": Y}, One()),
            ({"x": X, "labels": Y}, None),
            ([{"x": X, "target": Y}], None),
            ((X, Y, IDS), AnyNumber()),
        ],
    )
    def test_found(self, batch, network):
        assert find_labels(batch, network) is Y

    @pytest.mark.parametrize("batch", [X, [X], (X, ["a"]), {"x": X}, {}, [], None])
    def test_none(self, batch):
        assert find_labels(batch) is None

    def test_all_elements_are_inputs(self):
        assert find_labels((X, IDS), Two()) is None


class TestCallNetwork:
    def test_positions_names_and_single_arguments(self):
        assert call_network(One(), X) is X
        assert call_network(Two(), (X, IDS)) is X
        assert call_network(Two(), {"item": IDS, "user": X}) is X
        assert call_network(AnyName(), {"x": X, "z": IDS}) is X
        assert call_network(AnyNumber(), (X, IDS, IDS)) is X
        assert call_network(One(), UserDict({"x": X})) is X
        assert call_network(One(), {"image": X, "logits": IDS}) is IDS  # the dict itself, and its logits
        assert call_network(One(), (X, IDS)) is X  # the pair itself, and its first element

    def test_hooks_run(self):
        network, calls = mlp(), []
        network.register_forward_hook(lambda *args: calls.append(1))
        call_network(network, X)
        assert calls == [1]

    @pytest.mark.parametrize("base", [lightning.LightningModule, pytorch_lightning.LightningModule, nn.Module])
    def test_no_forward(self, base):
        network = base()
        network.inner = mlp()
        with refused("defines no forward()", "module=", "['inner']"):
            find_call(network)
        with refused("defines no forward()"):
            find_inputs((X, Y), network)

    def test_unknown_call(self):
        with refused("call='encode' is no method of One"):
            find_call(One(), "encode")
