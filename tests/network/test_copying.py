"""A network can be copied whenever it is found, and is left as it was."""

import threading
import warnings

import lightning.pytorch as lightning
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.distillation.averaging import RunningAverage
from lit_xai.functional import attribute, count_macs, layer_sensitivity, prune_step, quantize
from lit_xai.network.copying import copy_network
from lit_xai.pruning.pruning import prunable_layers, pruned_copy


def test_copy_network_leaves_the_trainer_behind():
    module = lightning.LightningModule()
    module.inner = nn.Sequential(nn.Linear(2, 2))
    module._trainer = lightning.Trainer(logger=False, accelerator="cpu", barebones=True)
    copied = copy_network(module)
    assert copied._trainer is None  # Lightning leaves it out of copies too
    assert copied.inner[0].weight is not module.inner[0].weight
    assert torch.equal(copied.inner[0].weight, module.inner[0].weight)


class Wrapping(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2))

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("part", ["", "inner"])
def test_a_copy_of_a_compiled_module_computes_with_its_own_weights(part):
    module, x = Wrapping(), torch.ones(1, 2)
    module.get_submodule(part).compile(backend="eager")
    expected = module(x)
    copied = copy_network(module)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert copied(x).tolist() == [[0.0, 0.0]]
    assert torch.equal(module(x), expected)


class Holder:
    def __init__(self, value):
        self.value = value


class Keeping(nn.Module):
    """Keeps what it has computed, wherever a module can keep something."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # users have it: Wav2Vec2, HiFi-GAN
            self.first = nn.utils.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.second, self.third, self.head = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.register_buffer("mean", torch.zeros(8))
        self.history, self.maps, self.seen = [], {}, []
        self.second.register_forward_hook(lambda module, args, output: self.seen.append(output))

    def forward(self, x):
        self.features = self.second(self.first(x).relu())
        self.mean = 0.9 * self.mean + 0.1 * self.features.mean((0, 2, 3))  # with its graph, as happens by mistake
        self.maps["features"] = self.history
        self.head.last = Holder(self.features)
        self.logits = self.head(self.third(self.features.relu()).relu().mean((2, 3)))
        self.history.append((self.logits, [self.features]))
        return self.logits


def images():
    return torch.randn(4, 3, 8, 8)


def untrained(network):
    return network


def trained(network):
    optimizer = torch.optim.Adam(network.parameters())
    network(images()).square().mean().backward(create_graph=True)
    optimizer.step()
    return network


def validated(network):
    trained(network).eval()
    with torch.inference_mode():
        network(images())
    return network.train()


def in_bfloat16(network):
    with torch.autocast("cpu", torch.bfloat16):
        return trained(network)


def compiled(network):
    network.compile(backend="eager")
    return trained(network)


STATES = (untrained, trained, validated, in_bfloat16, compiled)


def tensors_in(value):
    """Yield every tensor that a value holds."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors_in(entry)
    elif isinstance(value, Holder):
        yield value.value


def held(network):
    """Return all tensors of a network, the ones it merely holds among them."""
    return [
        t
        for module in network.modules()
        for t in tensors_in({k: v for k, v in vars(module).items() if k != "_modules"})
    ]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        # torch's, on create_graph=True; and the layer that stays whole for its computed weight.
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True")
        warnings.filterwarnings("ignore", ".* (keeps|leaves out|stay)")
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")  # the compiler looks at the kept weight
        warnings.filterwarnings("ignore", ".* treats these as plain gradients")  # functional rectifiers
        yield


@pytest.mark.parametrize("state", STATES)
def test_a_copy_has_the_values_and_nothing_else_of_the_original(state):
    torch.manual_seed(0)
    network = state(Keeping())
    before = [(t, t.detach().clone(), t.grad_fn) for t in held(network)]
    copied = copy_network(network)
    after = held(network)
    assert [id(t) for t in after] == [id(t) for t, *_ in before]  # the same objects
    assert all(torch.equal(t, value) and t.grad_fn is graph for t, value, graph in before)
    twins = held(copied)
    assert len(twins) == len(after)
    assert not {id(t) for t in twins} & {id(t) for t in after}
    for twin, tensor in zip(twins, after, strict=True):
        assert torch.equal(twin, tensor)
        assert twin.grad_fn is None
        assert twin.data_ptr() != tensor.data_ptr()
    # One tensor that is held at several places is one in the copy as well.
    places = lambda tensors: [[id(t) for t in tensors].index(id(t)) for t in tensors]  # noqa: E731
    assert places(twins) == places(after)
    copied.eval(), network.eval()
    x = images()
    torch.testing.assert_close(copied(x), network(x))


def batches():
    return [(images(), torch.arange(4))]


CALLERS = {
    "prune_step": lambda network: prune_step(network, images(), ignored_layers=["first"]),
    "pruned_copy": lambda network: pruned_copy(network, images()),
    "prunable_layers": lambda network: prunable_layers(network, images()),
    "layer_sensitivity": lambda network: layer_sensitivity(
        network, batches(), lambda n: n(images()).mean().item(), (0.5,), higher_is_better=True, progress=False
    ),
    "quantize": lambda network: quantize(network, [images()], progress=False),
    "LRP": lambda network: attribute(network, images(), method="LRP", target=0),
    "DeepLift": lambda network: attribute(network, images(), method="DeepLift", target=0),
    "count_macs": lambda network: count_macs(network, images()),
    "RunningAverage": lambda network: RunningAverage(network, 0.9).update(network, 1),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("state", [trained, validated, in_bfloat16, compiled])
def test_whoever_copies_a_network_can_do_so_in_the_middle_of_a_run(caller, state):
    torch.manual_seed(0)
    network = state(Keeping())
    before = {name: value.detach().clone() for name, value in network.state_dict().items()}
    CALLERS[caller](network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_gradient_with_a_graph_is_copied_as_a_value():
    network = nn.Linear(2, 2)
    network.scale = torch.ones(3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (network.scale**2).sum().backward(create_graph=True)
    copied = copy_network(network)
    assert copied.scale.requires_grad
    assert copied.scale.grad.tolist() == [2.0, 2.0, 2.0]
    assert network.scale.grad.grad_fn is not None


@pytest.mark.parametrize("what", [threading.Lock(), torch.ones(2, requires_grad=True).sum().grad_fn])
def test_what_cannot_be_copied_is_named(what):
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    network[1].handle = what
    with refused("Sequential cannot be copied, since its attribute '1.handle' cannot", "keep it outside of the module"):
        copy_network(network)
