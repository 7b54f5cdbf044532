"""Every kind of network loses channels, keeps the values of those that stay, and trains on."""

import copy

import pytest
import torch
from pruning_networks import NETWORKS, make

from lit_xai.network.calling import call_network
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import channels
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.attachment import take_step_
from lit_xai.structure.kinds import undo_step_
from lit_xai.structure.recipe import Recipe

KEPT = {"gru", "lstm"}


def selected(value, cuts):
    for dim, _, indices in cuts:
        value = value.index_select(dim, torch.tensor(indices))
    return value


@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.3])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_stays_is_what_was(name, ratio):
    network, inputs = make(name)
    optimizer = torch.optim.Adam(network.parameters())
    call_network(network, inputs).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    moments = {key: copy.deepcopy(optimizer.state.get(p, {})) for key, p in network.named_parameters()}
    outputs = call_network(network.eval(), inputs).shape
    step = prune_step(network, inputs, pruning_ratio=ratio)
    assert step["kept"], "nothing was removed"
    take_step_(network, step, [optimizer])
    cuts = {}
    for key, *cut in step["kept"]:
        cuts.setdefault(key, []).append(cut)
    for key, value in network.state_dict().items():
        assert torch.equal(value, selected(before[key], cuts.get(key, []))), key
    for key, parameter in network.named_parameters():
        for kind in ("exp_avg", "exp_avg_sq"):
            if kind in moments[key]:
                assert torch.equal(optimizer.state[parameter][kind], selected(moments[key][kind], cuts.get(key, [])))
    live = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, live)) == sorted(map(id, network.parameters()))
    network.train()
    assert call_network(network, inputs).shape == outputs
    call_network(network, inputs).square().sum().backward()
    optimizer.step()
    undo_step_(network, step)
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: value.shape for key, value in before.items()
    }
    Recipe([step]).replay_(network)
    assert call_network(network, inputs).shape == outputs


@pytest.mark.parametrize("name", sorted(KEPT))
def test_recurrent_layers_stay_whole(name):
    network, inputs = make(name)
    step = prune_step(network, inputs, pruning_ratio=0.5)
    recurrent = next(key for key, module in network.named_modules() if isinstance(module, torch.nn.RNNBase))
    assert not [key for key, *_ in step["kept"] if key.startswith(f"{recurrent}.")]


@pytest.mark.parametrize("name", NETWORKS)
def test_widths_in_eights_are_reached_or_left(name):
    network, inputs = make(name)
    dense = channels(network)
    take_step_(network, prune_step(network, inputs, pruning_ratio=0.5, round_to=4))
    for layer, width in channels(network).items():
        assert width == dense[layer] or width % 4 == 0, layer


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_does_not_depend_on_those_that_were_looked_at_before(name):
    network, inputs = make(name)
    fresh, used = (Prunable(copy_network(network), inputs, pruning_ratio=0.8) for _ in range(2))
    expected = [fresh.step(fresh.due(0.5))]
    for progress in (1.0, 0.25, 0.75):
        with used.pruned(used.due(progress)):
            pass
    assert [used.step(used.due(0.5))] == expected
    used.check(used.due())
    assert [used.step(used.due(0.5))] == expected
    assert all(indices == sorted(indices) for *_, indices in used.step(used.due())["kept"])
