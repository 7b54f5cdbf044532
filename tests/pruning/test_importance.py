import copy
import subprocess
import sys

import pytest
import torch
import torch_pruning
from networks import Reshape, mlp, plain_cnn
from torch import nn
from torch.nn import functional as F
from torch_pruning.pruner import importance as library

from lit_xai.models import ResNet
from lit_xai.pruning.importance import needs_data, prepare_importance, resolve_importance
from lit_xai.pruning.importance_adapters import ADAPTERS, UNSUPPORTED
from lit_xai.pruning.importance_attribution import AttributionImportance

NAMES = [
    *("GroupMagnitudeImportance", "MagnitudeImportance", "BNScaleImportance", "LAMPImportance", "FPGMImportance"),
    *("RandomImportance", "GroupTaylorImportance", "TaylorImportance", "GroupHessianImportance", "HessianImportance"),
    *("ActivationImportance", "AttributionImportance"),
]


def batches(n=6, shape=(2, 6, 6), classes=3, parts=2):
    torch.manual_seed(0)
    return [(torch.randn(n, *shape), torch.randint(classes, (n,))) for _ in range(parts)]


def groups(network, shape=(2, 6, 6)):
    graph = torch_pruning.DependencyGraph().build_dependency(network, torch.zeros(1, *shape))
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    return list(graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]))


class Flattened(nn.Module):
    """A layer behind reads four positions of each channel as features of their own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.fc = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.AdaptiveAvgPool2d(2),
            Reshape(nn.Linear(16, 3)),
        )

    def forward(self, x):
        return self.fc(self.pool(self.conv(x).relu()))


@pytest.mark.parametrize("name", NAMES)
def test_every_importance_ranks_every_group(name):
    network = ResNet(8, width=4, in_channels=2, num_classes=3)
    importance = prepare_importance(resolve_importance(name), network, batches())
    for group in groups(network):
        scores = importance(group)
        assert scores.shape == (len(group[0].idxs),)
        assert scores.isfinite().all()
    assert needs_data(importance) == (name.removeprefix("Group") in {
        "TaylorImportance", "HessianImportance", "ActivationImportance", "AttributionImportance"
    })  # fmt: skip


def test_the_table_names_classes_that_exist():
    assert all(hasattr(library, name) for name in {**ADAPTERS, **UNSUPPORTED})


@pytest.mark.parametrize(
    "given",
    [
        "GroupTaylorImportance",
        "torch_pruning.importance.GroupTaylorImportance",
        "torch_pruning.pruner.importance.GroupTaylorImportance",
        library.GroupTaylorImportance,
        library.GroupTaylorImportance(),
    ],
)
def test_names_paths_classes_and_instances_are_the_same(given):
    assert type(resolve_importance(given)) is library.GroupTaylorImportance
    assert resolve_importance(given) is given or not isinstance(given, library.Importance)


def test_init_args_arrive():
    assert resolve_importance("MagnitudeImportance", {"p": 1}).p == 1


@pytest.mark.parametrize(
    ("given", "init_args", "message"),
    [
        ("GroupTailorImportance", None, "Did you mean 'GroupTaylorImportance'"),
        ("Importance", None, "is not in torch_pruning.importance"),
        ("torch.nn.Linear", None, "expected a subclass"),
        ("nowhere.Importance", None, "expected an import path"),
        (nn.Linear, None, "expected a subclass"),
        (library.Importance, None, "expected a subclass"),
        (3, None, "but got 3"),
        ("MagnitudeImportance", {"q": 1}, "has no argument 'q'"),
        ("LAMPImportance", {"normalizer": "mean"}, "LAMPImportance cannot be built"),
        (library.MagnitudeImportance(), {"p": 1}, "is built already"),
        ("OBDCImportance", None, "use GroupHessianImportance"),
    ],
)
def test_refusals_are_one_sentence(given, init_args, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve_importance(given, init_args)
    assert "\n" not in str(caught.value)


def test_no_data_is_refused_by_name():
    with pytest.raises(ValueError, match="GroupTaylorImportance expected samples"):
        prepare_importance(resolve_importance("GroupTaylorImportance"), mlp())


def test_labels_that_are_no_tensor_ask_for_a_loss():
    with pytest.raises(ValueError, match="give a loss_fn"):
        prepare_importance(resolve_importance("TaylorImportance"), mlp(), [(torch.randn(2, 5), ["a", "b"])])


def test_taylor_gets_the_gradient_of_the_mean_loss_over_batches_of_any_size():
    network, data = plain_cnn(), [*batches(5), *batches(3)]
    prepare_importance(resolve_importance("TaylorImportance"), network, data)
    expected = copy.deepcopy(network)
    expected.zero_grad()
    F.cross_entropy(expected(torch.cat([x for x, _ in data])), torch.cat([y for _, y in data])).backward()
    for found, wanted in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6)


def test_hessian_gets_the_mean_square_of_per_sample_gradients():
    network, [(inputs, labels)] = mlp(), batches(7, (5,), parts=1)
    prepare_importance(resolve_importance("HessianImportance"), network, [(inputs, labels)])
    parameters = dict(network.named_parameters())

    def loss(parameters, x, y):
        return F.cross_entropy(torch.func.functional_call(network, parameters, x[None]), y[None])

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, inputs, labels)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, per_sample[name].square().mean(0))


def test_hessian_looks_at_64_samples_at_most():
    seen = []

    def loss(network, inputs, labels):
        seen.append(len(inputs))
        return network(inputs).square().mean()

    prepare_importance(resolve_importance("HessianImportance"), mlp(), [(torch.randn(50, 5), None)] * 2, loss)
    assert seen == [1] * 64


def test_activations_are_averaged_over_batches():
    network, data = mlp(), [(torch.randn(4, 5), None) for _ in range(3)]
    prepare_importance(resolve_importance("ActivationImportance"), network, data)
    expected = sum(network[1](network[0](x)).abs().sum(0) for x, _ in data) / 3
    torch.testing.assert_close(network[2]._importance, expected)


def test_frozen_networks_in_train_mode_and_without_gradients_are_prepared_too():
    network = ResNet(8, width=4, in_channels=2, num_classes=3).train().requires_grad_(False)
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    generator = torch.get_rng_state()
    data = batches()
    generator = torch.get_rng_state()
    with torch.inference_mode():
        for name in ("TaylorImportance", "HessianImportance", "AttributionImportance"):
            prepare_importance(resolve_importance(name), network, data)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_contributions_behind_the_last_rectifier_are_what_zeroing_a_channel_takes_from_the_logit():
    # The logit is linear in what the last layer reads, so the first order is exact.
    network, [(inputs, _)] = Flattened().eval(), batches(8, parts=1)
    importance = AttributionImportance().collect(network, [inputs[:3], inputs[3:]])
    scores = importance(groups(network)[0])
    hidden = network.pool(network.conv(inputs).relu())
    logits, predicted = network.fc(hidden), network(inputs).argmax(1, keepdim=True)
    for channel in range(4):
        without = hidden.clone()
        without[:, channel] = 0
        fall = (logits - network.fc(without)).gather(1, predicted)
        torch.testing.assert_close(scores[channel], fall.square().mean(), rtol=1e-4, atol=1e-6)


def test_contributions_agree_with_captum():
    from captum.attr import LayerGradientXActivation

    network, [(inputs, _)] = plain_cnn(), batches(8, parts=1)
    importance = AttributionImportance().collect(network, [inputs])
    predicted = network(inputs).argmax(1)
    # What the second convolution reads is what the pooling returns.
    expected = LayerGradientXActivation(network, network[2]).attribute(inputs, target=predicted).sum((2, 3))
    torch.testing.assert_close(importance.contributions[network[3]], expected, rtol=1e-4, atol=1e-6)


def test_a_channel_that_nothing_listens_to_comes_first():
    network = ResNet(8, width=4, in_channels=2, num_classes=3).eval()
    with torch.no_grad():
        for block in (network.layer1[0], network.layer2[0], network.layer3[0]):
            block.conv2.weight[:, 2] = 0
    importance = prepare_importance(resolve_importance("AttributionImportance"), network, batches())
    inside = [
        g
        for g in groups(network)
        if g[0].dep.target.module in {m.conv1 for m in network.modules() if hasattr(m, "conv2")}
    ]
    assert len(inside) == 3
    assert all(importance(group).argmin() == 2 and importance(group)[2] == 0 for group in inside)


def test_shared_layers_and_layers_that_read_the_inputs_are_looked_at():
    torch.manual_seed(0)
    shared = nn.Linear(5, 5)
    network = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(5, 3))
    importance = AttributionImportance().collect(network, [torch.randn(4, 5), torch.randn(2, 5)])
    assert importance.contributions[shared].shape == (6, 5)


def test_functional_does_not_import_torch_pruning():
    code = "import sys, lit_xai.functional, lit_xai.pruning.importance; assert 'torch_pruning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
