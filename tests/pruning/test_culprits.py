"""What cannot be cut stays whole and is named; all else is cut, and computes what zeros would."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from partial_networks import PARTIAL, RMSNorm, make
from refusals import refused
from torch import nn
from torch.nn import functional as F

from lit_xai.network.calling import call_network
from lit_xai.network.layers import channels
from lit_xai.network.profiling import count_macs
from lit_xai.pruning.culprits import find_culprits
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import prunable_layers, prune_step, pruned_copy, reach
from lit_xai.pruning.sensitivity import layer_sensitivity
from lit_xai.structure.kinds import apply_step_

KEEPS = "keeps channels that it cannot lose"


@given(n=st.integers(1, 40), culprits=st.sets(st.integers(0, 39)))
@settings(deadline=None, max_examples=100)
def test_all_culprits_and_no_others_are_found(n, culprits):
    tested = []

    def why_not(some):
        tested.append(some)
        return "bad" if culprits.intersection(some) else None

    found = find_culprits(range(n), why_not)
    assert found == dict.fromkeys(sorted(culprits & set(range(n))), "bad")
    assert len(tested) <= 1 + 2 * len(found) * math.ceil(math.log2(n) + 1)


@given(pairs=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] != pair[1])))
@settings(deadline=None, max_examples=100)
def test_what_is_left_passes_as_a_whole_where_groups_fail_together_alone(pairs):
    def why_not(some):
        return "together" if any({a, b} <= set(some) for a, b in pairs) else None

    culprits = find_culprits(range(12), why_not)
    left = [i for i in range(12) if i not in culprits]
    assert why_not(left) is None
    assert all(why_not([*left, one]) for one in culprits)  # and none was kept without need


@pytest.fixture
def channelwise(monkeypatch):
    """Normalize by nothing that depends on the number of channels."""

    def affine(self, x, dim=-1):
        shape = [-1] + [1] * (x.dim() - 2) if isinstance(self, nn.GroupNorm) else [-1]
        return x * self.weight.view(shape) + (0 if getattr(self, "bias", None) is None else self.bias.view(shape))

    for norm in (nn.LayerNorm, nn.GroupNorm, RMSNorm):
        monkeypatch.setattr(norm, "forward", affine)
    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **kw: attention(*a, **{**kw, "scale": 0.5}))


def zeroed(network, step):
    """Return a copy with zeros for what a step removes: the independent witness."""
    other = copy.deepcopy(network)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    for name, dim, size, kept in step["kept"]:
        gone = sorted(set(range(size)) - set(kept))
        tensors[name].data.index_fill_(dim, torch.tensor(gone), 0.0)
    return other


def assert_exact(network, inputs, step):
    pruned, masked = copy.deepcopy(network), zeroed(network, step)
    apply_step_(pruned, step)
    torch.testing.assert_close(call_network(pruned, inputs), call_network(masked, inputs))


@pytest.mark.parametrize("name", PARTIAL)
def test_what_is_cut_is_cut_exactly_and_what_is_not_is_named(name, channelwise):
    network, inputs = make(name)
    network = network.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    with pytest.warns(UserWarning, match=KEEPS) as warned:
        step = prune_step(network, inputs, pruning_ratio=0.5)
    assert step["kept"]
    assert_exact(network, inputs, step)
    prunable = Prunable.copy_of(network, inputs, pruning_ratio=0.5)
    assert prunable.take(prunable.due, exact=True)[1] == step
    kept = {layer for one in prunable.kept_whole for layer in one.layers}
    assert kept >= set(PARTIAL[name][2])
    assert all(one.reason for one in prunable.kept_whole)
    assert any(layer in str(warned[0].message) for layer in kept)
    cut = {name.rpartition(".")[0] for name, dim, *_ in step["kept"] if dim == 0}
    assert not cut & kept
    # As if they were in ignored_layers.
    assert prune_step(network, inputs, pruning_ratio=0.5, ignored_layers=sorted(kept)) == step


@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
@pytest.mark.parametrize("name", PARTIAL)
def test_a_target_is_met_by_the_rest_or_refused_with_what_can_be_reached(name):
    network, inputs = make(name)
    dense = count_macs(network, inputs)
    prunable = Prunable.copy_of(network, inputs)
    measure = lambda pruned: count_macs(pruned, inputs)  # noqa: E731
    prunable.take(prunable.halved, exact=True)
    with prunable.pruned(prunable.take(lambda: prunable.moves)[0]) as smallest:
        lowest = count_macs(smallest, inputs)
    target = (dense + lowest) / 2
    _, step = prunable.take(lambda: reach(prunable, measure, target)[0])
    apply_step_(network, step)
    assert count_macs(network, inputs) == pytest.approx(target, rel=0.1)
    with refused("is out of reach", "the lowest possible value is"):
        prunable.take(lambda: reach(prunable, measure, 0.5 * lowest)[0])


class Squeezing(nn.Module):
    """Runs at any width but 1."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x)).relu().mean((2, 3), keepdim=True).squeeze().flatten(1))


def test_a_group_that_fails_at_one_channel_alone_is_still_halved():
    network, x = Squeezing(), torch.randn(2, 3, 2, 2)
    prunable = Prunable.copy_of(network, x)
    moves, _ = prunable.take(lambda: prunable.moves)
    assert prunable.kept_whole == []
    with prunable.pruned(moves) as pruned:
        assert {name: n for name, n in channels(pruned).items() if name != "head"} == {"first": 1, "second": 4}


@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
def test_layers_that_can_be_pruned_are_those_that_are_cut():
    network, inputs = make("pixel shuffle")
    assert sorted(map(sorted, prunable_layers(network, inputs))) == [["body", "stem"], ["tail"]]
    assert channels(pruned_copy(network, inputs, pruning_ratio=0.5)) == {
        "stem": 8,
        "body": 8,
        "up": 32,
        "tail": 6,
        "head": 10,
    }


@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
def test_a_ratio_for_a_layer_that_stays_whole_is_no_mistake_in_spelling():
    network, inputs = make("pixel shuffle")
    step = prune_step(network, inputs, pruning_ratio_dict={"up": 0.25, "tail": 0.25})
    apply_step_(network, step)
    assert channels(network) == {"stem": 8, "body": 8, "up": 32, "tail": 9, "head": 10}


def test_sensitivity_leaves_out_what_stays_whole():
    network, inputs = make("pixel shuffle")
    batches, width = [(inputs, torch.zeros(2, dtype=torch.int64))], lambda n: float(sum(channels(n).values()))
    with pytest.warns(UserWarning, match="leaves out layers that cannot lose channels: up "):
        found = layer_sensitivity(network, batches, width, (0.5,), higher_is_better=True, progress=False)
    assert found.layers == (("stem", "body"), ("tail",))
    assert found.drop.flatten().tolist() == [16.0, 6.0]


def test_the_test_of_groups_leaves_the_network_as_it_was():
    network, inputs = make("swin")
    prunable = Prunable.copy_of(network, inputs)
    before = {name: value.clone() for name, value in prunable.network.state_dict().items()}
    prunable.take(prunable.halved, exact=True)
    after = prunable.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def hugging_face(name):
    """Return a tiny network of the transformers library and its inputs."""
    import transformers

    size = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 30, "use_cache": False, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "num_labels": 10}
    swin = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    two = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "patch_sizes": [3, 3], "strides": [2, 2]}
    segformer = {**two, "hidden_sizes": [16, 32], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]}
    mamba = {"state_size": 8, "time_step_rank": 4, "tie_word_embeddings": False}
    config, model, options = {
        "swin": ("SwinConfig", "SwinForImageClassification", {**swin, "num_labels": 10}),
        "segformer": ("SegformerConfig", "SegformerForSemanticSegmentation", {**segformer, "decoder_hidden_size": 24}),
        "llama": ("LlamaConfig", "LlamaForSequenceClassification", {**size, **heads}),
        "mixtral": ("MixtralConfig", "MixtralForSequenceClassification", {**size, **heads, "num_local_experts": 4}),
        "mamba": ("MambaConfig", "MambaForCausalLM", {**size, **mamba}),
    }[name]
    network = getattr(transformers, model)(getattr(transformers, config)(**options)).eval().double()
    if name in ("swin", "segformer"):
        return network, {"pixel_values": torch.randn(2, 3, 32, 32).double()}
    return network, {"input_ids": torch.randint(1, 30, (2, 6))}


@pytest.mark.slow
@pytest.mark.filterwarnings(f"ignore:.*{KEEPS}")
@pytest.mark.parametrize("name", ["swin", "segformer", "llama", "mixtral", "mamba"])
def test_networks_of_hugging_face(name, channelwise, monkeypatch):
    torch.manual_seed(0)
    network, inputs = hugging_face(name)
    step = prune_step(network, inputs, pruning_ratio=0.5)
    for module in network.modules():
        if type(module).__name__.endswith("RMSNorm"):
            monkeypatch.setattr(type(module), "forward", lambda self, x: self.weight * x)
    monkeypatch.setattr(math, "sqrt", lambda value: 2.0)  # the scale of scores, which one of them computes in each call
    assert_exact(network, inputs, step)
    dense = count_macs(network, inputs)
    apply_step_(network, step)
    assert count_macs(network, inputs) < 0.75 * dense


@pytest.mark.parametrize(("groups", "whole"), [(8, ["0"]), (4, [])])
def test_layer_with_one_channel_in_each_group_of_a_norm_is_named(groups, whole):
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.GroupNorm(groups, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)
    )
    prunable = Prunable.copy_of(network, torch.randn(2, 2, 8, 8))
    assert [name for kept in prunable.kept_whole for name in kept.layers] == whole
    assert all("8 groups" in kept.reason for kept in prunable.kept_whole)
    assert {"3"} <= {name for group in prunable.groups for name in group.layers}
