"""The metric of each layer's cut, against networks cut by hand, and that measuring moves nothing."""

import copy

import pytest
import torch
from pruning_networks import make
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import ConfusionMatrix, MulticlassAccuracy, MulticlassHingeLoss
from witness import digest, module_state, rng_state

from lit_xai.models import MLP, ResNet
from lit_xai.network.calling import call_network
from lit_xai.network.layers import channels
from lit_xai.pruning.pruning import prunable_layers, pruned_copy
from lit_xai.pruning.sensitivity import Sensitivity, layer_sensitivity

RATIOS = (0.25, 0.5, 0.75)


def data(n=24, batch_size=8, **options):
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(n, 1, 8, 8), torch.arange(n) % 10), batch_size, **options)


def made(name="resnet"):
    torch.manual_seed(0)
    network = {"resnet": lambda: ResNet(8, width=8, in_channels=1), "mlp": lambda: MLP(64, (24, 16), 10)}[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def accuracy(network, loader):
    hits = [(network(x).argmax(1) == y) for x, y in loader]
    return torch.cat(hits).double().mean().item()


def loss(network):
    with torch.no_grad():
        return torch.stack([nn.functional.cross_entropy(network(x), y) for x, y in data()]).mean()


def measure(network, loader=None, metric=None, ratios=RATIOS, **options):
    metric = metric or MulticlassAccuracy(10, average="micro")
    loader = data() if loader is None else loader
    return layer_sensitivity(network, loader, metric, ratios, **{"progress": False, **options})


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_each_cell_is_the_metric_of_a_network_pruned_there_alone(name):
    network, x = made(name), torch.randn(2, 1, 8, 8)
    found = measure(network, metric=loss, higher_is_better=False)
    assert found.dense == pytest.approx(loss(copy.deepcopy(network).eval()).item())
    for i, names in enumerate(found.layers):
        for j, ratio in enumerate(RATIOS):
            pruned = pruned_copy(network, x, pruning_ratio=0.0, pruning_ratio_dict={names[0]: ratio})
            now, before = channels(pruned), channels(network)
            assert {layer for layer in now if now[layer] < before[layer]} == set(names)
            assert now[names[0]] == round(before[names[0]] * (1 - ratio))
            assert found.values[i, j].item() == pytest.approx(loss(pruned).item())


COUPLED = ["depthwise", "grouped", "densenet", "fused vit", "torch transformer", "bert", "convnext", "squeeze-excite"]


@pytest.mark.parametrize("name", COUPLED)
def test_a_row_cuts_its_own_layers_alone_however_they_are_coupled(name):
    network, inputs = make(name)
    before, dense = channels(network), digest(module_state(network))
    seen = []

    def mean(pruned):
        widths = channels(pruned)
        seen.append({layer for layer, n in widths.items() if n < before[layer]})
        with torch.no_grad():
            return call_network(pruned, inputs).mean()

    found = measure(network, [inputs], mean, (0.0, 0.5), higher_is_better=True)
    assert digest(module_state(network)) == dense
    assert found.values[:, 0].tolist() == [found.dense] * len(found.layers)
    assert seen[0] == set()
    for changed, row in zip(seen[1:], found.layers, strict=True):
        # A layer's own parts may go along (of nn.MultiheadAttention), another row's layers may not.
        assert changed & set(row) == set(row) & set(before)
        assert not changed & {name for other in found.layers if other != row for name in other}
    assert set(found.to_ratios(1e9).values()) == {0.5}


def test_a_channel_cut_by_hand_gives_the_same_number():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    norms = network[1].weight.norm(dim=1) ** 2 + network[3].weight.norm(dim=0) ** 2
    by_hand = copy.deepcopy(network)
    with torch.no_grad():
        by_hand[3].weight[:, norms.argsort()[:4]] = 0
    found = measure(network, metric=loss, ratios=(0.5,), higher_is_better=False)
    assert found.values.item() == pytest.approx(loss(by_hand).item(), rel=1e-5)


def test_coupled_layers_share_a_row_and_the_output_has_none():
    found = measure(made(), ratios=(0.5,))
    assert ("conv1", "layer1.0.conv2") in found.layers
    assert ("layer2.0.conv2", "layer2.0.shortcut.0") in found.layers
    assert [names[0] for names in found.layers][:2] == ["conv1", "layer1.0.conv1"]
    assert not any("fc" in names for names in found.layers)
    names = {name for group in prunable_layers(made(), torch.zeros(2, 1, 8, 8)) for name in group}
    assert {name for row in found.layers for name in row} == names & set(channels(made()))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_the_metric_and_the_generators_are_left_as_they_were(training):
    network, metric = made().train(training), MulticlassAccuracy(10)
    network.conv1.weight.requires_grad_(False)
    metric.update(torch.eye(10), torch.arange(10))
    generator = torch.Generator().manual_seed(3)
    loader = data(shuffle=True, generator=generator)

    def state():
        return digest([module_state(network), rng_state(), generator.get_state(), metric.metric_state])

    before = state()
    measure(network, loader, metric)
    assert state() == before


def test_nothing_stays_changed_after_an_error_either():
    network, loader, calls = made(), data(), []

    def fails(pruned):
        calls.append(pruned)
        if len(calls) == 3:
            raise RuntimeError("no more memory")
        return 1.0

    before = digest([module_state(network), rng_state()])
    with pytest.raises(RuntimeError, match="no more memory"):
        measure(network, loader, fails, higher_is_better=True)
    assert digest([module_state(network), rng_state()]) == before


def test_a_metric_that_trains_the_network_does_not_spoil_the_next_cell():
    def spoils(network):
        network.train()
        with torch.no_grad():
            value = sum(float(network(x).double().sum()) for x, _ in data())
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.zero_()
        return value

    def sums(network):
        network.train()
        with torch.no_grad():
            return sum(float(network(x).double().sum()) for x, _ in data())

    values = [measure(made(), metric=metric, higher_is_better=True).values for metric in (spoils, sums)]
    assert torch.equal(*values)


def test_shuffled_batches_give_the_same_numbers_twice():
    runs = [measure(made(), data(shuffle=True, drop_last=True, n=30), MulticlassHingeLoss(10)) for _ in range(2)]
    assert torch.equal(runs[0].values, runs[1].values)
    own = data(shuffle=True, drop_last=True, n=30, generator=torch.Generator().manual_seed(0))
    runs = [measure(made(), own, MulticlassHingeLoss(10)) for _ in range(2)]
    assert torch.equal(runs[0].values, runs[1].values)


def test_torchmetrics_and_a_function_agree_and_say_which_way_is_up():
    network = made()
    by_metric = measure(network)
    by_function = measure(network, metric=lambda n: accuracy(n, data()), higher_is_better=True)
    assert torch.allclose(by_metric.values, by_function.values)
    assert by_metric.higher_is_better
    assert by_metric.metric == "MulticlassAccuracy"
    assert not measure(network, metric=MulticlassHingeLoss(10), ratios=(0.5,)).higher_is_better
    assert measure(network, metric=loss, higher_is_better=False, ratios=(0.5,)).metric == "loss"


def test_only_the_layers_asked_for_are_measured():
    found = measure(made(), layers=["layer1.0.conv2", "layer3.0.conv1"])
    assert found.layers == (("conv1", "layer1.0.conv2"), ("layer3.0.conv1",))
    assert found.values.shape == (2, 3)
    assert ("layer3.0.conv1",) not in measure(made(), ignored_layers=["layer3"], ratios=(0.5,)).layers


def test_equal_widths_are_measured_once():
    seen = []

    def metric(network):
        seen.append(channels(network))
        return 0.0

    found = measure(made("mlp"), ratios=(0.0, 0.3, 0.35, 0.5), round_to=8, metric=metric, higher_is_better=True)
    assert len(found.layers) == 2
    assert len(seen) == len({tuple(widths.items()) for widths in seen})
    assert all(width % 8 == 0 or width == 10 for widths in seen for width in widths.values())


def test_batches_may_be_dicts_and_the_output_a_tuple():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = made("mlp")

        def score(self, image):
            return {"loss": None, "scores": self.body(image)}

    network = Named()
    loader = [{"image": x, "label": y} for x, y in data()]
    found = measure(network, loader, call="score", output="scores")
    plain = measure(network.body)
    assert torch.equal(found.values, plain.values)
    assert [tuple(name.removeprefix("body.") for name in names) for names in found.layers] == list(plain.layers)


def test_ratios_per_layer_from_a_drop_one_can_afford():
    values = torch.tensor([[0.90, 0.88], [0.80, 0.89], [0.95, 0.10], [0.5, 0.4]], dtype=torch.float64)
    layers = (("a",), ("b", "c"), ("d",), ("e",))
    found = Sensitivity(layers, (0.3, 0.5), values, 0.90)
    assert found.drop[3].tolist() == pytest.approx([0.4, 0.5])
    assert found.to_ratios(0.02) == {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.3, "e": 0.0}
    assert found.to_ratios(0.0) == {"a": 0.3, "b": 0.0, "c": 0.0, "d": 0.3, "e": 0.0}
    assert set(found.to_ratios(9.0).values()) == {0.5}
    flipped = Sensitivity(layers, (0.3, 0.5), -values, -0.90, higher_is_better=False)
    assert flipped.to_ratios(0.02) == found.to_ratios(0.02)
    for wrong in (-0.1, float("nan")):
        with refused("max_drop expected a number of at least 0, but got"):
            found.to_ratios(wrong)


def test_ratios_per_layer_are_what_pruning_takes():
    network, x = made(), torch.zeros(2, 1, 8, 8)
    found = measure(network)
    ratios = found.to_ratios(1.0)
    pruned = channels(pruned_copy(network, x, pruning_ratio=0.0, pruning_ratio_dict=ratios))
    assert {name: pruned[name] / channels(network)[name] for name in ratios} == pytest.approx(
        dict.fromkeys(ratios, 0.25)
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"ratios": ()}, ["ratios expected one or more", "but got none"]),
        ({"ratios": (0.5, 1.0)}, ["ratios expected a share from 0 to below 1", "but got 1.0"]),
        ({"ratios": (-0.1,)}, ["ratios expected a share", "but got -0.1"]),
        ({"ratios": (float("nan"),)}, ["ratios expected a share", "but got nan"]),
        ({"loader": []}, ["loader expected one or more batches, but got none"]),
        ({"loader": iter(data())}, ["loader expected batches that can be read again", "an iterator"]),
        ({"loader": [torch.zeros(4, 1, 8, 8)]}, ["loader expected labels in each batch", "Tensor[4, 1, 8, 8]"]),
        ({"metric": lambda network: 1.0}, ["higher_is_better expected True or False"]),
        (
            {"metric": lambda network: float("nan"), "higher_is_better": True},
            ["metric expected a finite number for the dense network, but got nan"],
        ),
        (
            {"metric": lambda n: 1.0 if n.conv1.out_channels == 8 else float("inf"), "higher_is_better": True},
            ["metric expected a finite number for conv1 pruned by 0.25, but got inf"],
        ),
        (
            {"metric": ConfusionMatrix("multiclass", num_classes=10), "higher_is_better": True},
            ["metric expected one number", "Tensor[10, 10]"],
        ),
        ({"metric": lambda n: {"a": 1.0}, "higher_is_better": True}, ["metric expected one number", "dict"]),
        ({"layers": ["layer1.0.conv"]}, ["layers: 'layer1.0.conv' is no layer that can be pruned. Did you mean"]),
        ({"layers": []}, ["layers expected one or more names"]),
        ({"ignored_layers": [nn.Conv2d]}, ["ResNet has no layer that can be pruned"]),
    ],
)
def test_bad_input_is_one_sentence(options, parts):
    with refused(*parts):
        measure(made(), **options)


def test_a_progress_bar_counts_to_the_end(capsys):
    measure(made("mlp"), progress=True)
    assert "layer sensitivity" in capsys.readouterr().err
    measure(made("mlp"))
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_go_to_where_the_network_is():
    on_cpu, on_gpu = measure(made()), measure(made().cuda())
    assert torch.allclose(on_gpu.values, on_cpu.values, atol=0.05)
