"""Everything is restored bit for bit: for every method, in every state, also after an exception."""

import contextlib
import random

import captum.attr
import numpy as np
import pytest
import torch
from captum_methods import METHODS, options
from networks import STATES, FunctionalReLU, Interrupted, Observer, Shared, cnn, mlp, plain_cnn
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.attribution.methods import attribute_parameters
from lit_xai.functional import attribute, fork_rng, untouched
from lit_xai.network.calling import find_network, module_names

X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 2, 1])
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def snapshot(network):
    """Values to the bit, and which objects they are."""
    state = module_state(network) | {"rng": rng_state(), "state_dict": list(network.state_dict())}
    state["versions"] = [p._version for p in network.parameters() if not p.is_inference()]
    values = {key: digest(value) for key, value in state.items()}
    values["hooks"] = [[list(getattr(m, name).items()) for name in HOOKS] for m in network.modules()]
    values["objects"] = [{k: id(v) for k, v in vars(m).items() if k != "training"} for m in network.modules()]
    values["tensors"] = [id(t) for t in (*network.parameters(), *network.buffers())]
    values["grads"] = [(id(p.grad), digest(p.grad)) for p in network.parameters()]
    torch_state = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    return values | {"torch": (*torch_state, torch.get_deterministic_debug_mode())}


def explain(network, name, x=X, **more):
    target = TARGET if "target" in attribute_parameters(getattr(captum.attr, name)) else None
    convolution = next(key for key, m in module_names(find_network(network)).items() if isinstance(m, nn.Conv2d))
    return attribute(network, x, target=target, **options(name, convolution), **more)


def refused(name, network):
    """LRP has no rule for an observer."""
    return "LRP" in name and any(isinstance(m, Observer) for m in network.modules())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("state", STATES)
def test_every_method_in_every_state(state, name):
    network = STATES[state]()
    before = snapshot(network)
    with pytest.raises(ValueError, match="no rule") if refused(name, network) else contextlib.nullcontext():
        assert torch.isfinite(explain(network, name)).all()
    assert snapshot(network) == before


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("at_call", [1, 2, 3])
def test_every_method_interrupted(name, error, at_call):
    network = Interrupted(nn.Sequential(Observer(), *cnn().train()), at_call, error)
    network.network[2].register_full_backward_hook(lambda module, given, out: None)
    before = snapshot(network)
    with contextlib.suppress(error, ValueError):
        explain(network, name)
    assert snapshot(network) == before
    if at_call == 1:
        with pytest.raises(error, match="interrupted"):
            explain(network, name)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "context",
    [
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.random.fork_rng(devices=[]),
    ],
    ids=["inference mode", "no grad", "autocast", "plain"],
)
def test_every_method_inside_other_modes(context, name):
    """And its values are the same as outside."""
    network = cnn().train()
    expected = explain(network, name)
    with context():
        x = X.clone()
        before = snapshot(network)
        found = explain(network, name, x)
        assert snapshot(network) == before
    assert torch.equal(found, expected)
    assert not found.is_inference()


@pytest.mark.filterwarnings("ignore:max_unpooling2d_forward_out does not have a deterministic implementation")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_deterministic_algorithms(name):
    network = cnn().train()
    expected = explain(network, name)
    torch.use_deterministic_algorithms(True)
    try:
        before = snapshot(network)
        assert torch.equal(explain(network, name), expected)
        assert snapshot(network) == before
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda module: torch.compile(module, backend="aot_eager")
    torch._dynamo.reset()


def _whole(compiler):
    network = cnn().train()
    return compiler(network), network


class Own(nn.Module):
    """compile() leaves torch's own containers alone."""

    def __init__(self):
        super().__init__()
        self.network = cnn()

    def forward(self, x):
        return self.network(x)


def _in_place(compiler):
    network = Own().train()
    network.compile(backend="aot_eager")
    return network, network.network


def _part(compiler):
    network = cnn().train()
    network[0] = compiler(network[0])
    return network, network


# Dynamo reads the gradient of every tensor, which warns for one that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("kind", [_whole, _in_place, _part])
def test_compiled(kind, compiled):
    """Warmed up, in training, and not compiled again because of us."""
    network, original = kind(compiled)
    torch._dynamo.utils.counters.clear()
    for _ in range(2):
        network(X).sum().backward()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    expected = {name: explain(cnn(), name) for name in ("IntegratedGradients", "LayerGradCam", "DeepLift")}
    original[1].load_state_dict(cnn()[1].state_dict())  # the warm-up moved the statistics
    assert graphs > 0
    for name in METHODS:
        before = snapshot(network)
        found = explain(network, name)
        assert snapshot(network) == before
        if name in expected:
            assert torch.equal(found, expected[name])
    network(X).sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_scripted():
    """A scripted module's mode is no attribute of it."""
    network = torch.jit.script(cnn().train())
    found, expected = (attribute(n, X, target=1, attribute_args={"n_steps": 6}) for n in (network, cnn()))
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(m.training for m in network.modules())


def test_shared_modules():
    network = Shared().train()
    before = snapshot(network)
    attribute(network, torch.randn(3, 5), target=1)
    attribute(network, torch.randn(3, 5), target=1, method="DeepLift")
    assert snapshot(network) == before | {"rng": digest(rng_state())}


def test_what_inference_mode_left_behind():
    """Buffers, caches and weights made in a test loop can neither be written to nor differentiated outside of it."""
    expected = attribute(nn.Sequential(Observer(), *cnn()), X, target=1)
    with torch.inference_mode():
        network = nn.Sequential(Observer(), *cnn())
        network(X)
        network[0].replaced = torch.ones(())
        before = snapshot(network)
    assert network[0].range.is_inference()
    assert network[1].weight.is_inference()
    assert torch.equal(attribute(network, X, target=1), expected)
    with torch.inference_mode():
        assert snapshot(network) == before


class Careless(nn.Module):
    """Writes to everything but its weights, wherever it can."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.losses, self.seen, self.count, self.by_name = [1.0], {1}, 0, {"a": 1}
        self.plain = torch.zeros(2)
        self.register_buffer("sum", torch.zeros(5))
        self.register_buffer("nan", torch.full((2,), torch.nan))
        self.register_buffer("edges", torch.eye(2).to_sparse())

    def forward(self, x):
        self.losses.append(2.0)
        self.seen.add(len(self.losses))
        self.by_name["b"] = self.by_name.pop("a", 0)
        self.count += 1
        self.plain += 1
        self.sum += x.detach().sum(0)
        self.temporary = x
        self.head.register_forward_hook(lambda *args: None)
        self.head.weight.requires_grad_(False)
        self.head.train()
        random.random(), np.random.rand(), torch.rand(1)
        return self.head(x)


def test_careless_network():
    network = Careless()
    rng = digest(rng_state())
    kept = {key: (id(value), repr(value)) for key, value in vars(network).items() if key != "training"}
    attribute(network, torch.ones(2, 5), target=1)
    assert {key: (id(value), repr(value)) for key, value in vars(network).items() if key != "training"} == kept
    assert network.training
    assert network.head.weight.requires_grad
    assert not network.head._forward_hooks
    assert digest(rng_state()) == rng


class MergesOnEval(nn.Linear):
    """Like adapters (LoRA) that merge their weights into the layer's in `eval()`."""

    def train(self, mode=True):
        if not mode:
            with torch.no_grad():
                self.weight.add_(1.0)
        return super().train(mode)


def test_no_train_method_is_called():
    network = nn.Sequential(MergesOnEval(5, 3)).train()
    before = snapshot(network)
    with untouched(network):
        assert not network[0].training
    assert snapshot(network) == before


def test_users_backward_hooks_are_silent_and_do_not_blind_deeplift():
    """Captum leaves out activations that have a backward hook: it would be the plain gradient."""
    network, calls, x = mlp(), [], torch.randn(4, 5, generator=torch.Generator().manual_seed(0)) * 3
    expected = attribute(network, x, method="DeepLift", target=1)
    handle = network[1].register_full_backward_hook(lambda *args: calls.append(1))
    assert torch.equal(attribute(network, x, method="DeepLift", target=1), expected)
    assert not calls
    with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
        raw = captum.attr.DeepLift(network).attribute(x.requires_grad_(), target=1)
    plain = captum.attr.InputXGradient(network).attribute(x, target=1)
    handle.remove()
    assert torch.allclose(raw, plain)
    assert not torch.allclose(expected, plain)


@pytest.mark.parametrize("name", METHODS)
def test_in_place_activations_explain_as_ordinary_ones(name):
    """Captum's layer methods crash on one after the layer, or are handed its output instead of the layer's."""
    network, target = plain_cnn(), TARGET if "target" in attribute_parameters(getattr(captum.attr, name)) else None
    expected = attribute(network, X, target=target, **options(name, "3"))
    for place in (1, 4):
        network[place].inplace = True
    assert torch.equal(attribute(network, X, target=target, **options(name, "3")), expected)
    assert network[1].inplace
    assert network[4].inplace


@pytest.mark.parametrize(
    "name", ["IntegratedGradients", "DeepLift", "LayerGradCam", "Occlusion", "GradientShap", "LRP"]
)
@pytest.mark.parametrize("state", STATES)
def test_in_a_noise_tunnel(state, name):
    network = STATES[state]()
    before = snapshot(network)
    with pytest.raises(ValueError, match="no rule") if refused(name, network) else contextlib.nullcontext():
        explain(network, name, noise_tunnel={"nt_samples": 3})
    assert snapshot(network) == before


def test_body_sees_eval_mode_with_gradients():
    network = cnn().train()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), untouched(network, seed=3):
        assert not any(m.training for m in network.modules())
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert network(X).dtype == torch.float32
        inside = random.random(), np.random.rand(), torch.rand(1)
    with fork_rng(3):
        assert inside == (random.random(), np.random.rand(), torch.rand(1))


def test_seed_none_goes_on_from_where_the_generators_are():
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with fork_rng(None):
        assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_snapshot_sees_a_touch():
    """The witness itself: each of these would go unnoticed otherwise."""
    touches = [
        lambda m: m.train(),
        lambda m: m[1].running_mean.add_(1),
        lambda m: m[0].weight.requires_grad_(False),
        lambda m: m[0].register_forward_hook(lambda *args: None),
        lambda m: setattr(m, "left", 1),
        lambda m: torch.rand(1),
        lambda m: np.random.rand(),
        lambda m: random.random(),
        lambda m: m(X).sum().backward(),
        lambda m: m[0].weight.data.add_(1),
    ]
    for touch in touches:
        network = cnn()
        before = snapshot(network)
        touch(network)
        assert snapshot(network) != before


def test_functional_rectifier_leaves_no_trace_either():
    network = FunctionalReLU().train()
    before = snapshot(network)
    with pytest.warns(UserWarning, match="relu in the network itself"):
        attribute(network, torch.ones(2, 5), method="GuidedBackprop", target=0)
    assert snapshot(network) == before
