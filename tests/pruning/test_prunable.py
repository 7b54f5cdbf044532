"""The order in which channels go, the nearest width, and targets that are reached."""

import copy
import warnings

import pytest
import torch
import torch_pruning
from refusals import refused
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch_pruning.utils import count_ops_and_params
from witness import digest

from lit_xai.models import MLP, MatrixFactorization, ResNet
from lit_xai.network.layers import channels
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import prunable_layers, prune_step, pruned_copy, reach
from lit_xai.structure.kinds import apply_step_


def resnet(width=16, depth=8):
    torch.manual_seed(0)
    return ResNet(depth, width=width, in_channels=1), torch.randn(1, 1, 12, 12)


def macs(network):
    with torch.no_grad():
        return count_ops_and_params(copy.deepcopy(network), torch.zeros(1, 1, 12, 12))[0]


def nearest_multiple(size, ratio, round_to):
    """The independent witness: of all allowed widths the one nearest to the wanted, the larger of two."""
    allowed = [size, *range(round_to, size, round_to)]
    return min(allowed, key=lambda width: (abs(width - size * (1 - ratio)), -width))


@pytest.mark.parametrize("round_to", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 0.5, 0.62, 0.9])
def test_every_width_is_the_nearest_multiple(ratio, round_to):
    network, x = resnet()
    pruned = pruned_copy(network, x, pruning_ratio=ratio, round_to=round_to)
    dense, left = channels(network), channels(pruned)
    for name, width in left.items():
        if name != "fc":
            assert abs(width - nearest_multiple(dense[name], ratio, round_to)) <= (round_to == 1), name
            assert width >= min(round_to, dense[name])


@pytest.mark.parametrize("scope", ["global_pruning", "isomorphic"])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_ranking_over_several_layers_is_torch_prunings(ratio, scope):
    network, x = resnet()
    options = {"global_pruning": True, "isomorphic": scope == "isomorphic"}
    bare = copy.deepcopy(network).eval()
    fresh = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(
        bare, x, importance, pruning_ratio=ratio, ignored_layers=[bare.fc], **options, **fresh
    ).step()
    assert channels(pruned_copy(network, x, pruning_ratio=ratio, **options)) == channels(bare)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_macs_within_two_percent(share, round_to):
    network, x = resnet()
    dense = macs(network)
    moves, found = reach(Prunable(copy.deepcopy(network), x, round_to=round_to), macs, share * dense)
    assert found == pytest.approx(share * dense, rel=0.02) or round_to > 1
    assert found == pytest.approx(share * dense, rel=0.06)
    step = Prunable(copy.deepcopy(network), x, round_to=round_to).step(moves)
    apply_step_(network, step)
    assert macs(network) == found


def test_a_target_out_of_reach():
    network, x = resnet()
    with refused("is out of reach", "the lowest possible value"):
        reach(Prunable(copy.deepcopy(network), x, round_to=8), macs, 10.0)


def test_ratios_count_from_the_dense_network():
    network, x = resnet()
    at_once = pruned_copy(network, x, pruning_ratio=0.5, round_to=8)
    dense = channels(network)
    for ratio in (0.2, 0.3, 0.5):
        step = prune_step(network, x, pruning_ratio=ratio, round_to=8, dense_channels=dense)
        apply_step_(network, step)
    assert channels(network) == channels(at_once)
    assert prune_step(network, x, pruning_ratio=0.5, round_to=8, dense_channels=dense)["kept"] == []


class Mean(nn.Module):
    """The mean of tokens, with a table that no other layer's width is tied to, or that of the sum with positions."""

    def __init__(self, is_sum=False):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 32), nn.Linear(32, 4)
        self.positions = nn.Embedding(3, 32) if is_sum else None

    def forward(self, x):
        found = self.table(x) if self.positions is None else self.table(x) + self.positions(torch.arange(3))
        return self.head(found.mean(1))


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("is_sum", [False, True])
def test_ratios_of_tables_count_from_the_dense_network(is_sum, round_to):
    network, tokens = Mean(is_sum), torch.zeros(2, 3, dtype=torch.int64)
    dense = channels(network)
    for ratio in (0.17, 0.33, 0.5):
        apply_step_(network, prune_step(network, tokens, pruning_ratio=ratio, round_to=round_to, dense_channels=dense))
    assert network.table.weight.shape == (20, 16)
    assert network.head.in_features == 16


def test_ratios_of_single_layers():
    network, x = resnet()
    pruned = pruned_copy(network, x, pruning_ratio=0.0, pruning_ratio_dict={"layer3.0.conv1": 0.5})
    changed = {name for name, width in channels(pruned).items() if width != channels(network)[name]}
    assert changed == {"layer3.0.conv1"}
    pruned = pruned_copy(network, x, pruning_ratio=0.5, pruning_ratio_dict={"layer1*": 0.0, "layer2.0.conv1": 0.25})
    left, dense = channels(pruned), channels(network)
    assert left["layer1.0.conv1"] == dense["layer1.0.conv1"] == left["conv1"]
    assert left["layer2.0.conv1"] == 24
    assert left["layer3.0.conv1"] == 32
    with refused("pruning_ratio_dict: 'layer9'", "matches no layer"):
        prune_step(network, x, pruning_ratio_dict={"layer9": 0.5})


def test_no_layer_loses_more_than_allowed():
    network, x = resnet()
    left = channels(pruned_copy(network, x, pruning_ratio=0.9, max_pruning_ratio=0.5))
    assert all(left[name] * 2 == width for name, width in channels(network).items() if name != "fc")


def test_looking_at_one_candidate_leaves_the_next_as_it_was():
    network, x = resnet()
    prunable = Prunable(copy.deepcopy(network), x)
    expected = digest(prunable.network.state_dict())
    for count in (len(prunable.moves), 3, 40):
        with prunable.pruned(prunable.moves[:count]) as pruned:
            assert pruned(x).shape == (1, 10)
        prunable.step(prunable.moves[:count])
        assert digest(prunable.network.state_dict()) == expected
    assert channels(prunable.network) == channels(network)


def test_the_network_runs_once_to_be_traced_once_for_each_step_and_twice_to_be_checked():
    network, x = resnet()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    prunable = Prunable(network, x, pruning_ratio=0.5)
    assert len(calls) == 1
    for taken in (1, 2):
        prunable.step(prunable.due())
        assert len(calls) == 1 + taken
    prunable.check(prunable.due())
    assert len(calls) == 5  # without the channels, and with them at zero


def test_layers_that_go_together():
    network, x = resnet()
    groups = prunable_layers(network, x)
    residual = next(group for group in groups if "conv1" in group)
    assert set(residual) == {"conv1", "layer1.0.conv2"}
    assert ["fc"] not in groups
    named = [name for group in groups for name in group]
    assert len(named) == len(set(named))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.from_numpy(self.a(x).detach().numpy()))


class FixedView(nn.Module):
    """Runs with its own width alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(self.a(x).view(len(x), 8))


def raises(x):
    raise KeyError("no such thing")


class Raising(MLP):
    def forward(self, x):
        return raises(x)


class Tied(nn.Module):
    """A weight that one layer would lose rows of, and another columns too."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu())


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated; users have such modules
        return torch.jit.script(module)


class ByPlace(nn.Module):
    """One layer, what is done to its channels, and a layer that sees them."""

    def __init__(self, between, width=8):
        super().__init__()
        self.stem, self.body, self.between = nn.Conv2d(3, 8, 1), nn.Conv2d(width, 6, 1), between
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        y = self.stem(x).relu()
        y = self.between(y) if isinstance(self.between, nn.Module) else self.between(y, x)
        return self.head(self.body(y).relu().mean((2, 3)))


BY_PLACE = {
    "shuffled": (lambda y, x: nn.functional.channel_shuffle(y, 2), 8),
    "flipped": (lambda y, x: y.flip(1), 8),
    "rolled": (lambda y, x: y + y.roll(1, 1), 8),
    "the last ones": (lambda y, x: y[:, -3:], 3),
    "stacked": (lambda y, x: torch.stack([y, -y], 1).flatten(1, 2), 16),
    "behind an input": (lambda y, x: torch.cat([x, y], 1), 11),
    "weighed one by one": (lambda y, x: torch.stack([c * (i + 1) for i, c in enumerate(y.unbind(1))], 1), 8),
    "in halves": (lambda y, x: torch.maximum(*y.view(len(y), 2, -1, *y.shape[2:]).unbind(1)), 4),
}


@pytest.mark.parametrize("name", BY_PLACE)
def test_channels_that_are_taken_by_their_places_are_kept_rather_than_mixed_up(name):
    torch.manual_seed(0)
    network, x = ByPlace(*BY_PLACE[name]), torch.randn(1, 3, 2, 2)
    with pytest.warns(UserWarning, match="ByPlace keeps channels that it cannot lose: stem .*by their places"):
        step = prune_step(network, x)
    assert {key for key, *_ in step["kept"]} == {"body.weight", "body.bias", "head.weight"}
    assert prune_step(network, x, ignored_layers=["stem"]) == step


class ConvolutionalAttention(nn.Module):
    """One convolution gives query, key and value, of four heads."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 48, 1), nn.Linear(16, 4)

    def forward(self, x):
        query, key, value = self.qkv(self.stem(x).relu()).view(len(x), 3, 4, 4, -1).unbind(1)
        weights = (query.transpose(-2, -1) @ key).softmax(-1)
        return self.head((value @ weights.transpose(-2, -1)).reshape(len(x), 16, *x.shape[2:]).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "cut"),
    [(ByPlace(lambda y, _: y[:, 1:] - y[:, :-1], 7), {"body"}), (ConvolutionalAttention(), {"stem"})],
)
def test_a_search_that_would_not_end_is_ended(network, cut):
    before = channels(network)
    with pytest.warns(UserWarning, match="the search for the channels that depend on its own does not end"):
        apply_step_(network, prune_step(network, torch.zeros(1, 3, 4, 4)))
    assert {name for name, width in channels(network).items() if width < before[name]} == cut


@pytest.mark.parametrize(
    "between",
    [
        nn.LocalResponseNorm(3),
        nn.Softmax(1),
        nn.GroupNorm(2, 8),
        lambda y, _: (y - y.mean(1, True)) / (y.var(1, keepdim=True) + 1e-3).sqrt(),
        lambda y, _: y * torch.sigmoid(torch.cat([y.mean(1, True), y.amax(1, True)], 1).sum(1, True)),
        lambda y, _: y * y.shape[1] ** 0.5,
    ],
)
def test_statistics_over_channels_may_change(between):
    network = ByPlace(between)
    apply_step_(network, prune_step(network, torch.zeros(1, 3, 4, 4)))
    assert channels(network)["stem"] == 4


class TwoNames(nn.Module):
    """A bare scale under two names."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(4, 8), nn.Module(), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.rand(8))
        self.inner.scale = self.scale

    def forward(self, x):
        return self.head(self.stem(x) * self.scale + self.inner.scale)


def test_a_bare_parameter_under_two_names_is_cut_once():
    network = TwoNames()
    apply_step_(network, prune_step(network, torch.zeros(1, 4)))
    assert network.scale is network.inner.scale
    assert network.scale.shape == (4,)


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (nn.Sequential(weight_norm(nn.Linear(4, 8)), nn.Linear(8, 2)), ("'0' computes its weight", "weight_norm")),
        (nn.Sequential(nn.Linear(4, 8), scripted(nn.Linear(8, 2))), ("TorchScript in '1'",)),
        (nn.Sequential(nn.Linear(4, 8), nn.GLU(), nn.Linear(4, 2)), ("no channels that can be removed: 0 (pruning",)),
        (Tied(), ("'a.weight' and 'b.weight' are one parameter", "b, a")),
        (FixedView(), ("FixedView has no channels that can be removed: a (", "does not run without", "module=")),
        (Raising(4, (3,), 2), ("Raising cannot be traced for pruning", "KeyError", "module=")),
    ],
)
def test_networks_that_cannot_be_pruned(network, parts):
    with refused(*parts):
        prune_step(network, torch.zeros(1, 4))


def old_weight_norm(layer):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


COMPUTED = {
    "weight_norm": weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
    "old weight_norm": old_weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "masks": lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.parametrize("wrap", COMPUTED)
def test_layers_whose_weights_are_computed_stay_whole_on_both_sides(wrap):
    network = MLP(4, (8, 8, 8, 8), 2)
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    COMPUTED[wrap](network.get_submodule(linears[1]))
    with pytest.warns(UserWarning, match="computes its weight from others"):
        step = prune_step(network, torch.zeros(1, 4))
    assert {name.rpartition(".")[0] for name, dim, *_ in step["kept"] if dim == 0} == {linears[2], linears[3]}
    apply_step_(network, step)
    assert network(torch.zeros(1, 4)).shape == (1, 2)


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.middle, self.out = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x):
        x = self.embedding(x)
        return self.out(self.middle(x).relu() + x)


def test_a_tied_weight_that_both_layers_lose_alike_is_cut_once():
    network, tokens = TiedEmbedding(), torch.zeros(2, 3, dtype=torch.int64)
    apply_step_(network, prune_step(network, tokens))
    assert network.out.weight is network.embedding.weight
    assert network.out.weight.shape == (20, 4)
    network(tokens)


def test_a_layer_cut_off_from_the_output_is_left_alone():
    assert prune_step(Untraceable(), torch.zeros(1, 4))["kept"] == []


def test_several_cuts_end_where_one_does_and_hollow_out_no_layer():
    network, x = resnet()
    dense, widths = macs(network), channels(network)
    at_once = copy.deepcopy(network)
    for one, plan in ((network, (0.85, 0.7, 0.55, 0.4, 0.25)), (at_once, (0.25,))):
        for share in plan:
            prunable = Prunable(copy.deepcopy(one), x, round_to=8, dense_channels=widths)
            apply_step_(one, prunable.step(reach(prunable, macs, share * dense)[0]))
    assert channels(network) == channels(at_once)
    assert all(width * 4 >= widths[name] for name, width in channels(network).items())


def test_what_only_training_computes_is_cut_as_well():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
            self.head, self.aux = nn.Linear(16, 4), nn.Sequential(nn.Linear(16, 16), nn.Dropout(), nn.Linear(16, 3))

        def forward(self, x):
            x = self.body(x)
            return (self.head(x), self.aux(x)) if self.training else self.head(x)

    network = Auxiliary()
    prunable = Prunable.copy_of(network, torch.randn(4, 8), pruning_ratio=0.5, round_to=1)
    _moves, step = prunable.take(lambda: prunable.due(1.0), exact=True)
    apply_step_(network, step)
    assert [one.out_features for one in (network.body[0], network.aux[0], network.aux[2])] == [8, 8, 3]
    x = torch.randn(4, 8)
    assert [tuple(out.shape) for out in network.train()(x)] == [(4, 4), (4, 3)]
    assert network.eval()(x).shape == (4, 4)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.into, self.lstm, self.head = (
            nn.Embedding(5, 8),
            nn.Linear(8, 8),
            nn.LSTM(8, 8),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        return self.head(self.lstm(self.into(self.words(x)))[0])


class Mixed(nn.Module):
    """Multiplies by a parameter of its own, which it adds as well."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, x):
        return x @ self.weight + self.weight.mean(0)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.attention, self.mixed = nn.Embedding(5, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.words(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x + self.mixed(x))


OUTPUT = "the output comes from it"
STAYING = {
    "recurrent": (
        Recurrent(),
        {
            "into": "its channels are tied to those of a layer that stays whole",
            "lstm": "recurrent layers keep their width",
            "head": OUTPUT,
        },
    ),
    "mixed": (
        nn.Sequential(Mixed(), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
        {"0": "pruning does not know how Mixed uses its weight", "4": OUTPUT},
    ),
    "residual": (Residual(), {"head": OUTPUT}),
}


@pytest.mark.parametrize("name", STAYING)
def test_every_layer_that_stays_whole_is_named_with_the_reason(name):
    network, expected = STAYING[name]
    inputs = torch.zeros(1, 4) if name == "mixed" else torch.zeros(2, 3, dtype=torch.long)
    prunable = Prunable.copy_of(network, inputs)
    assert {layer: kept.reason for kept in prunable.staying() for layer in kept.layers} == expected


def test_tables_that_no_other_layer_has_the_width_of_lose_columns_together():
    network = MatrixFactorization(7, 9, factors=4)
    prunable = Prunable.copy_of(network, (torch.tensor([0, 1]), torch.tensor([2, 3])))
    (group,) = prunable.groups
    assert (set(group.layers), group.size) == ({"user", "item"}, 4)
    (members,) = prunable.coupled()
    assert {(name, dim) for name, dim, _ in members} >= {("head.weight", 1)}
    with prunable.pruned(prunable.due(0.5)) as pruned:
        widths = {pruned.user.weight.shape[1], pruned.item.weight.shape[1], pruned.head.weight.shape[1]}
        assert len(widths) == 1
        assert widths.pop() < 4
        assert pruned.user_bias.weight.shape == (7, 1)


def test_a_layer_in_ignored_layers_is_named_as_such():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    staying = Prunable.copy_of(network, torch.zeros(1, 4), ignored_layers="0").staying()
    assert [kept.reason for kept in staying] == ["listed in ignored_layers", OUTPUT]
