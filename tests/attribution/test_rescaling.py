"""DeepLift's rules: against formulas written out, against Captum where it is right, and in every form of a function."""

import copy
import warnings

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from chains import Function
from networks import FunctionalReLU, mlp
from torch import nn

from lit_xai.attribution.functions import LINEAR, RULED
from lit_xai.functional import attribute

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def images_network(*layers):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(3)).double()
    network(IMAGES)
    return network.eval()


def deeplift(network, x, **options):
    return attribute(network, x, method="DeepLift", target=0, **options)


def captum_with_gaps(network, x):
    """Captum's own, with a product after every module: no two that it rewrites share a tensor."""
    spaced = nn.Sequential(*(nn.Sequential(part, Function(lambda x: x * 1)) for part in copy.deepcopy(network)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return captum.attr.DeepLift(spaced).attribute(x.clone().requires_grad_(), target=0)


ADJACENT = {
    "ReLU alone": [nn.ReLU()],
    "MaxPool-ReLU": [nn.MaxPool2d(2), nn.ReLU()],
    "VGG": [nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
    "ReLU-ReLU": [nn.ReLU(), nn.ReLU()],
    "Tanh-ReLU": [nn.Tanh(), nn.ReLU()],
}


@pytest.mark.parametrize("case", ADJACENT)
def test_equals_captum_where_a_product_keeps_modules_apart(case):
    network = images_network(*ADJACENT[case])
    torch.testing.assert_close(deeplift(network, IMAGES), captum_with_gaps(network, IMAGES), atol=1e-12, rtol=1e-9)


def test_overlapping_windows_against_the_formula():
    """A rise goes to where the maximum is now, a fall to where it was; a position of several windows gets several."""
    network = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2, 1), nn.Flatten())
    x, baseline = torch.tensor([[1.0, 5.0, 2.0, 0.0]]), torch.tensor([[3.0, 0.0, 1.0, 4.0]])
    network = nn.Sequential(*network, nn.Linear(3, 1, bias=False))
    weight = network[3].weight[0]
    found = deeplift(network, x, baselines=baseline)
    # Windows (0, 1), (1, 2), (2, 3): 3 -> 5 at 1; 1 -> 5 at 1; 4 -> 2 from 3.
    expected = torch.stack([0 * weight[0], 2 * weight[0] + 4 * weight[1], 0 * weight[0], -2 * weight[2]])[None]
    torch.testing.assert_close(found, expected.detach())


def test_product_of_two_values_is_split_evenly():
    """Shapley's value of x * y for two players."""
    network = Function(lambda x: x[:, :1] * x[:, 1:])
    x, baseline = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 2.0]])
    expected = torch.tensor([[(3 - 1) * (5 + 2) / 2, (5 - 2) * (3 + 1) / 2]])
    assert torch.equal(deeplift(network, x, baselines=baseline), expected)


def test_multipliers_behind_a_pool_are_the_samples_own():
    """Captum takes the first sample's gradient where input and baseline agree."""
    network, x = images_network(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()), IMAGES * (IMAGES > 0.7)
    options = {"init_args": {"multiply_by_inputs": False}}
    alone = torch.cat([deeplift(network, x[i : i + 1], **options) for i in range(4)])
    torch.testing.assert_close(deeplift(network, x, **options), alone, atol=1e-12, rtol=0)


def test_softmax_is_normalized_by_sample():
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))
    found = deeplift(network, X)
    torch.testing.assert_close(found[:1], deeplift(network, X[:1]))
    torch.testing.assert_close(found, deeplift(network, X, internal_batch_size=2))
    torch.testing.assert_close(found.sum(1), (network(X) - network(0 * X))[:, 0], atol=1e-5, rtol=1e-4)


class OwnReLU(nn.ReLU):
    """A subclass."""


RECTIFIERS = {
    "a subclass": OwnReLU(),
    "torch.relu": Function(torch.relu),
    "F.relu": Function(F.relu),
    "Tensor.relu": Function(torch.Tensor.relu),
    "by keyword": Function(lambda x: F.relu(input=x)),
    "in place": Function(lambda x: F.relu(x, inplace=True)),
    "relu_": Function(lambda x: x.relu_()),
    "clamp": Function(lambda x: x.clamp(min=0)),
    "clamp_": Function(lambda x: x.clamp_(min=0)),
    "maximum": Function(lambda x: torch.maximum(x, torch.zeros(()))),
    "max_pool": Function(lambda x: F.max_pool1d(torch.stack([x, 0 * x], -1), 2)[..., 0]),
}


@pytest.mark.parametrize("form", RECTIFIERS)
def test_every_form_of_a_rectifier_is_the_same(form):
    network = mlp()
    expected = deeplift(network, X)
    network[1] = RECTIFIERS[form]
    torch.testing.assert_close(deeplift(network, X), expected, atol=1e-5, rtol=1e-4)


def test_functions_of_the_network_itself_and_modules_used_twice():
    torch.testing.assert_close(deeplift(FunctionalReLU(), X), deeplift(mlp(), X), atol=1e-6, rtol=0)
    twice, apart = mlp(), mlp()
    relu = nn.ReLU()
    twice = nn.Sequential(twice[0], relu, nn.Linear(6, 6), relu, twice[2])
    apart = nn.Sequential(apart[0], nn.ReLU(), twice[2], nn.ReLU(), apart[2])
    torch.testing.assert_close(deeplift(twice, X), deeplift(apart, X))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("length", [1, 2, 4, 6, 12])
def test_samples_are_found_wherever_the_network_puts_them(batch_first, length):
    """Also where there are as many positions as samples and baselines together."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.MultiheadAttention(6, 2, batch_first=batch_first), nn.Linear(6, 3)

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            return self.head(self.inner(x, x, x)[0].mean(1 if batch_first else 0))

    torch.manual_seed(0)
    network, x = Attention().double(), torch.randn(3, length, 6, dtype=torch.float64)
    found = deeplift(network, x)
    torch.testing.assert_close(found.sum((1, 2)), (network(x) - network(0 * x))[:, 0])


@pytest.mark.parametrize("name", ["LayerDeepLift", "NeuronDeepLift"])
def test_layers_and_neurons_follow_the_same_rules(name):
    """Before a layer's output nothing is missing, whatever follows it."""
    network = images_network(nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Softmax(1))
    if name == "LayerDeepLift":
        found = attribute(network, IMAGES, method=name, layer="0", target=0)
        expected = (network(IMAGES) - network(0 * IMAGES))[:, 0]
    else:
        own = {"neuron_selector": (1, 2, 2)}
        found = attribute(network, IMAGES, method=name, layer="3", attribute_args=own)
        inner = network[:4]
        expected = (inner(IMAGES) - inner(0 * IMAGES))[:, 1, 2, 2]
    torch.testing.assert_close(found.flatten(1).sum(1), expected)


def test_float16_has_no_division_by_zero():
    """The smallest change that counts, 1e-10 by default, is 0 in float16."""
    network, x = images_network(nn.ReLU()).half(), (IMAGES * (IMAGES > 0.5)).half()
    found = deeplift(network, x)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum((1, 2, 3)), (network(x) - network(0 * x))[:, 0], atol=5e-3, rtol=0)


def test_captum_attaches_no_rules_of_its_own():
    """It does so by `apply`; if that changes, the rules of both would be applied."""
    seen, network = [], mlp()

    class Looks(nn.Module):
        def forward(self, x):
            if torch.is_grad_enabled():  # not in the run that looks for pitfalls
                seen.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()))
            return x

    network.append(Looks())
    deeplift(network, X)
    assert seen == [0, 0]


def test_tables_do_not_overlap():
    assert not RULED & LINEAR
