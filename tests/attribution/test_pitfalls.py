"""Operations with a warning are wrong in Captum and the others right, shown with numbers."""

import copy
import warnings

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, GammaRule
from networks import STATES, FunctionalReLU, Observer, cnn, mlp, plain_cnn
from refusals import refused
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from lit_xai.attribution.methods import resolve_method
from lit_xai.attribution.pitfalls import Watch, check_pitfalls, copy_for_lrp
from lit_xai.functional import attribute

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3
IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


class OwnReLU(nn.ReLU):
    """Every class that is not exactly nn.ReLU is unknown to DeepLift."""


class Functional(nn.Module):
    """An MLP with this function between its layers."""

    def __init__(self, function):
        super().__init__()
        self.layers, self.function = mlp(), function

    def forward(self, x):
        return self.layers[2](self.function(self.layers[0](x)))


def with_activation(activation):
    network = mlp()
    network[1] = activation
    return network


def quietly(method, network, x, target=1):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(copy.deepcopy(network)).attribute(x.clone().requires_grad_(), target=target)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("GuidedBackprop", "Saliency"), ("Deconvolution", "Saliency")],
)
def test_functional_relu_is_the_plain_gradient_and_is_warned_of(name, plain):
    network = FunctionalReLU()
    with pytest.warns(UserWarning, match=rf"{name} treats .* plain gradients.*relu in the network itself \(Functional"):
        found = attribute(network, X, method=name, target=1)
    given = {"attribute_args": {"abs": False}} if plain == "Saliency" else {}
    gradient = attribute(network, X, method=plain, target=1, **given)
    torch.testing.assert_close(found, gradient, atol=1e-6, rtol=0)
    # As a module of another class it causes no warning.
    right = attribute(mlp(), X, method=name, target=1)
    assert torch.equal(mlp()(X), network(X))
    assert (right - gradient).abs().max() > 0.05


def test_functional_sum_under_lrp_loses_relevance_and_is_warned_of():
    class Block(nn.Module):
        def __init__(self, functional):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.head = (nn.Linear(5, k, bias=False) for k in (5, 5, 3))
            self.add, self.functional = Addition_Module(), functional

        def forward(self, x):
            y = self.first(x)
            z = self.second(y)
            return self.head(y + z if self.functional else self.add(y, z))

    kept = attribute(Block(False), X, method="LRP", target=1)
    torch.testing.assert_close(kept.sum(1), Block(False)(X)[:, 1], atol=1e-3, rtol=1e-3)
    with pytest.warns(UserWarning, match=r"LRP treats .*add in the network itself \(Block\).*Addition_Module"):
        lost = attribute(Block(True), X, method="LRP", target=1)
    assert ((lost.sum(1) - kept.sum(1)) / kept.sum(1)).abs().max() > 0.5
    assert torch.equal(Block(True)(X), Block(False)(X))


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (F.relu, "relu"),
        (torch.Tensor.relu, "relu"),
        (lambda x: F.relu(input=x), "relu"),
        (torch.tanh, "tanh"),
        (F.gelu, "gelu"),
        (F.silu, "silu"),
        (torch.sigmoid, "sigmoid"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: F.layer_norm(x, (6,)), "layer_norm"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: F.max_pool1d(x, 1), "max_pool1d"),
        (lambda x: torch.maximum(x, 0 * x), "maximum"),
    ],
)
def test_functions_that_are_seen(function, named):
    """DeepLift has a rule for each, see test_rescaling.py."""
    with pytest.warns(UserWarning, match=rf"LRP treats .*\b{named} in the network itself \(Functional\)"):
        attribute(Functional(function), X, method="LRP", target=1)
    attribute(Functional(function), X, method="DeepLift", target=1)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        *((activation, "DeepLift") for activation in (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus)),
        *((activation, "LRP") for activation in (nn.ReLU, nn.Tanh)),
        *((activation, "GuidedBackprop") for activation in (nn.ReLU, OwnReLU, nn.GELU, nn.Sigmoid)),
    ],
)
def test_modules_that_are_known_are_not_warned_of(activation, name):
    attribute(with_activation(activation()), X, method=name, target=1)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner = kind(5, 6, batch_first=True)

    def forward(self, x):
        return self.inner(x[:, None])[0][:, 0]


@pytest.mark.filterwarnings("ignore:.* does not add up")
@pytest.mark.parametrize(
    ("first", "named"),
    [
        (Recurrent(nn.LSTM), r"lstm in 0.inner \(LSTM\)"),
        (Recurrent(nn.GRU), r"gru in 0.inner"),
        (Functional(lambda x: x * x.prod(1, keepdim=True)), r"prod in 0 \(Functional\)"),
        (Functional(lambda x: x.sort(1)[0]), r"sort in 0"),
        (Functional(lambda x: x + x.std(1, keepdim=True)), r"std in 0"),
    ],
)
def test_functions_that_deeplift_has_no_rule_for(first, named):
    network = nn.Sequential(first, nn.LazyLinear(3))
    network(X)
    with pytest.warns(UserWarning, match=f"DeepLift treats these as plain gradients, since it has no rule.*{named}"):
        attribute(network, X, method="DeepLift", target=1)


def test_every_place_is_named_once():
    network = nn.Sequential(nn.Flatten(), Functional(F.relu), nn.Linear(3, 5), Functional(F.relu))
    with pytest.warns(UserWarning, match="relu") as caught:
        attribute(network, X, method="GuidedBackprop", target=1)
    assert len(caught) == 1
    assert str(caught[0].message).count("relu in") == 2
    assert "relu in 1 (Functional); relu in 3 (Functional)" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["IntegratedGradients", "Saliency", "Occlusion", "LayerGradCam", "KernelShap"])
def test_methods_that_do_not_mind_run_nothing(name):
    def run():
        raise AssertionError

    assert check_pitfalls(resolve_method(name), FunctionalReLU(), run) is None


@pytest.mark.parametrize("state", [state for state in STATES if state != "observed"])
@pytest.mark.parametrize("name", ["DeepLift", "LRP", "GuidedBackprop"])
def test_no_false_alarm(state, name):
    attribute(STATES[state](), IMAGES, method=name, target=1)


def test_no_false_alarm_for_weights_computed_in_a_hook_or_statistics():
    network = mlp()
    prune.l1_unstructured(network[0], "weight", 0.5)
    network(X)
    for name in ("DeepLift", "LRP"):
        attribute(network, X, method=name, target=1)
    attribute(nn.Sequential(Observer(), *mlp()), X, method="DeepLift", target=1)

    class Positive(nn.Module):
        def forward(self, weight):
            return torch.relu(weight)

    positive = mlp()
    register_parametrization(positive[0], "weight", Positive())
    for name in ("DeepLift", "LRP", "GuidedBackprop"):
        attribute(positive, X, method=name, target=1)


def test_watch_counts_and_removes_its_hooks():
    network = cnn()
    with Watch(network) as seen:
        network(IMAGES)
        network(IMAGES)
    assert seen.calls == dict.fromkeys("0123456", 2)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    broken = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(RuntimeError), Watch(broken):
        broken(X)
    assert not broken[0]._forward_hooks


class TestLRP:
    @pytest.mark.parametrize("biased", [False, True])
    def test_equals_captum_on_a_copy(self, biased):
        network = plain_cnn()
        if not biased:
            for module in network.modules():
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        found = attribute(network, IMAGES, method="LRP", target=1)
        assert torch.equal(found, quietly(captum.attr.LRP, network, IMAGES))
        assert torch.equal(found, attribute(network, IMAGES, method="LRP", target=1))
        if not biased:
            torch.testing.assert_close(found.flatten(1).sum(1), network(IMAGES)[:, 1], atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("rule", [GammaRule, Alpha1_Beta0_Rule])
    def test_custom_rules_are_kept(self, rule):
        """Captum forgets them after its first call, the second one takes epsilon."""
        network = mlp()
        plain = attribute(network, X, method="LRP", target=1)
        network[0].rule = rule()
        fresh = captum.attr.LRP(copy.deepcopy(network))
        first, second = (fresh.attribute(X.clone().requires_grad_(), target=1) for _ in range(2))
        assert torch.equal(second, plain)
        for _ in range(2):
            assert torch.equal(attribute(network, X, method="LRP", target=1), first)
        assert not torch.allclose(first, plain, atol=1e-3)
        pieces = attribute(network, X, method="LRP", target=1, internal_batch_size=4)
        assert torch.allclose(pieces, first, atol=1e-6)
        noisy = attribute(network, X, method="LRP", target=1, noise_tunnel={"nt_samples": 3, "stdevs": 1e-6})
        torch.testing.assert_close(noisy, first, atol=1e-3, rtol=0)
        assert isinstance(network[0].rule, rule)

    LINEAR = {
        "Flatten": nn.Sequential(nn.Flatten(), nn.Linear(5, 3, bias=False)),
        "Identity": nn.Sequential(nn.Linear(5, 6, bias=False), nn.Identity(), nn.ReLU(), nn.Linear(6, 3, bias=False)),
        "Identity after an activation": nn.Sequential(
            *(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Identity(), nn.ReLU(), nn.Linear(6, 3, bias=False))
        ),
        "Tanh after ReLU": nn.Sequential(
            *(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Tanh(), nn.Linear(6, 3, bias=False))
        ),
        "Conv1d": nn.Sequential(
            *(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten()),
            nn.Linear(12, 3, bias=False),
        ),
        "BatchNorm1d": nn.Sequential(
            nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.ReLU(), nn.Linear(6, 3, bias=False)
        ),
        "AvgPool1d": nn.Sequential(nn.Unflatten(1, (1, 5)), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(2, 3, bias=False)),
        "Conv3d": nn.Sequential(
            nn.Unflatten(1, (1, 1, 1, 5)), nn.Conv3d(1, 4, 1, bias=False), nn.Flatten(), nn.Linear(20, 3, bias=False)
        ),
    }

    @pytest.mark.parametrize("kind", LINEAR)
    def test_linear_modules_conserve_relevance(self, kind):
        network = copy.deepcopy(self.LINEAR[kind]).train()
        found = attribute(network, X, method="LRP", target=1)
        torch.testing.assert_close(found.sum(1), network.eval()(X)[:, 1], atol=1e-3, rtol=1e-3)
        assert not hasattr(network[0], "rule")

    def test_against_the_formula(self):
        """R_i = x_i * sum_j w_ij a_j^-1 R_j, written out for two layers without bias."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
        x = X.double()
        found = attribute(network, x, method="LRP", target=1)
        with torch.no_grad():
            z = x @ network[0].weight.T
            hidden = z.relu() * network[2].weight[1]
            expected = x * ((hidden / z) @ network[0].weight)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize(
        "module", [nn.LSTM(5, 6), nn.LayerNorm(5), nn.GELU(), nn.LeakyReLU(), nn.Sigmoid(), OwnReLU()]
    )
    @pytest.mark.filterwarnings("ignore:LRP treats these as plain gradients")
    def test_unsupported_modules_are_refused_by_name(self, module):
        class First(nn.Module):
            def __init__(self):
                super().__init__()
                self.odd, self.head = module, nn.Linear(6 if isinstance(module, nn.LSTM) else 5, 3)

            def forward(self, x):
                found = self.odd(x)
                return self.head(found[0] if isinstance(found, tuple) else found)

        with refused(f"LRP has no rule for 'odd' ({type(module).__name__})", "`rule`"):
            attribute(First(), X, method="LRP", target=1)

    def test_modules_that_do_not_run_need_no_rule(self):
        network = mlp()
        network[0].loss = nn.CrossEntropyLoss()

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.network, self.loss, self.unused = mlp(), nn.CrossEntropyLoss(), nn.LSTM(2, 2)

            def forward(self, x):
                return self.network(x)

        assert torch.equal(attribute(Around(), X, method="LRP", target=1), attribute(mlp(), X, method="LRP", target=1))

    def test_parametrized_weights(self):
        """Their modules have children, at which Captum would not look for a rule."""
        network = mlp()
        for place in (0, 2):
            weight_norm(network[place])
        found = attribute(network, X, method="LRP", target=1)
        torch.testing.assert_close(found, attribute(mlp(), X, method="LRP", target=1), atol=1e-5, rtol=1e-4)
        assert type(network[0]).__name__ == "ParametrizedLinear"
        network(X)
        assert torch.equal(copy_for_lrp(network)(X), network(X))

    def test_layer(self):
        """At each layer the relevance is that of the output (biases take a part of it)."""
        network = copy.deepcopy(self.LINEAR["Identity"])
        found = attribute(network, X, method="LayerLRP", layer="0", target=1)
        assert found.shape == (6, 6)
        torch.testing.assert_close(found.sum(1), network(X)[:, 1], atol=1e-3, rtol=1e-3)
        for layer in ("2", "3"):
            if layer == "2":
                with refused("layer='2'", "ReLU"):
                    attribute(network, X, method="LayerLRP", layer=layer, target=1)
            else:
                assert attribute(network, X, method="LayerLRP", layer=layer, target=1).shape == (6, 3)
