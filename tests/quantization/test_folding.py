"""BatchNorm is folded into the layer before it only where that leaves every output unchanged."""

import copy
import warnings

import pruning_networks
import pytest
import torch
from networks import STATES, cnn
from refusals import refused
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils import weight_norm as older_weight_norm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_eval
from torch.nn.utils.parametrizations import weight_norm
from witness import digest, module_state, rng_state

from lit_xai.models import ResNet
from lit_xai.network.calling import call_network
from lit_xai.quantization.folding import find_foldable, fold_batch_norms_, folded_copy

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def told_apart(network):
    """The network in eval mode, with BatchNorms that do something else to each channel."""
    torch.manual_seed(7)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, NORMS) and module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 3)
            if isinstance(module, NORMS) and module.affine:
                module.weight.normal_()
                module.bias.normal_()
    return network.eval()


def norms(network):
    return [name for name, module in network.named_modules() if isinstance(module, NORMS)]


class Body(nn.Module):
    """A convolution, a BatchNorm, and a forward of the test's choice."""

    def __init__(self, run=None, conv=None, norm=None):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.norm = conv or nn.Conv2d(2, 4, 3), norm or nn.BatchNorm2d(4)
        self.run = run or (lambda self, x: self.norm(self.conv(x)).relu())

    def forward(self, x):
        return self.run(self, x)


class Functional(nn.Module):
    """No tracer follows: a dict comes in, a value decides, functions do the rest."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc, self.norm = *Body().children(), nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, batch):
        x = batch["image"]
        x = F.relu(self.bn(self.conv(x)), inplace=True) if x.sum() > -1e9 else x
        return {"logits": self.head(F.gelu(self.norm(input=self.fc(x.mean((2, 3))))))}


class Mixed(nn.Module):
    """Its outputs and what leads to them are reached in every order."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleDict({k: nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)) for k in "ab"})

    def forward(self, x):
        return torch.cat([self.branches["b"](x), self.branches["a"](x)], 1)


class Unchecked(nn.Module):
    """A ResNet that ``torch.fx`` can trace: independently of the images' shape."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        net = self.network
        x = net.layer3(net.layer2(net.layer1(net.relu1(net.bn1(net.conv1(x))))))
        return net.fc(net.flatten(net.pool(x)))


def pair(layer, norm):
    return nn.Sequential(layer, norm, nn.ReLU(inplace=True))


IMAGES = torch.randn(3, 4, 7, 6, generator=torch.Generator().manual_seed(0))
VOLUMES = torch.randn(2, 4, 5, 4, 6, generator=torch.Generator().manual_seed(0))

FOLDED = {
    "plain": (lambda: pair(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), IMAGES),
    "no bias": (lambda: pair(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)), IMAGES),
    "not affine": (lambda: pair(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)), IMAGES),
    "neither": (lambda: pair(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)), IMAGES),
    "large eps": (lambda: pair(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=0.5, momentum=None)), IMAGES),
    "grouped": (lambda: pair(nn.Conv2d(4, 6, 3, groups=2, stride=2), nn.BatchNorm2d(6)), IMAGES),
    "depthwise": (lambda: pair(nn.Conv2d(4, 8, 3, groups=4, dilation=2), nn.BatchNorm2d(8)), IMAGES),
    "circular": (lambda: pair(nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(6)), IMAGES),
    "same": (lambda: pair(nn.Conv2d(4, 6, (5, 3), padding="same"), nn.BatchNorm2d(6)), IMAGES),
    "transposed": (lambda: pair(nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d(6)), IMAGES),
    "transposed, grouped": (lambda: pair(nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6)), IMAGES),
    "transposed, depthwise": (
        lambda: pair(nn.ConvTranspose2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8)),
        IMAGES,
    ),
    "1d": (lambda: pair(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), IMAGES[..., 0]),
    "1d, transposed": (lambda: pair(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)), IMAGES[..., 0]),
    "3d": (lambda: pair(nn.Conv3d(4, 6, 3, groups=2), nn.BatchNorm3d(6)), VOLUMES),
    "3d, transposed": (lambda: pair(nn.ConvTranspose3d(4, 6, 3, groups=2), nn.BatchNorm3d(6)), VOLUMES),
    "linear": (lambda: pair(nn.Linear(4, 6), nn.BatchNorm1d(6)), IMAGES[..., 0, 0]),
    "linear, no bias": (lambda: pair(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)), IMAGES[..., 0, 0]),
    "synchronized": (lambda: pair(nn.Conv2d(4, 6, 3), nn.SyncBatchNorm(6)), IMAGES),
    "a subclass": (lambda: pair(nn.Conv2d(4, 6, 3), Renamed(6)), IMAGES),
    "a subclass with a forward of its own": (lambda: pair(nn.Conv2d(4, 6, 3), Restated(6)), IMAGES),
    "on the root": (Body, IMAGES[:, :2]),
    "functional": (Functional, {"batch": {"image": IMAGES[:, :2]}}),
    "mixed": (Mixed, IMAGES[:, :2]),
    "cnn": (cnn, IMAGES[:, :2, :6]),
    "resnet": (lambda: ResNet(14, width=4, in_channels=4), IMAGES),
}
WHOLE = ("on the root", "functional", "mixed", "cnn", "resnet")


class TestFolds:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    @pytest.mark.parametrize("name", FOLDED)
    def test_every_norm_and_no_output_moves(self, name, dtype, tolerance):
        make, inputs = FOLDED[name]
        network = told_apart(make()).to(dtype)
        inputs = torch.utils._pytree.tree_map(lambda t: t.to(dtype), inputs)
        expected = call_network(network, inputs)
        folded = copy.deepcopy(network)
        pairs = find_foldable(folded, inputs)
        assert sorted(norm for _, norm in pairs) == sorted(norms(network))
        fold_batch_norms_(folded, pairs)
        assert not norms(folded)
        assert {p.dtype for p in folded.parameters()} == {dtype}
        found = call_network(folded, inputs)
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()

    @pytest.mark.parametrize("name", pruning_networks.NETWORKS)
    def test_every_kind_of_network(self, name):
        network, inputs = pruning_networks.make(name)
        expected = call_network(network.eval(), inputs)
        folded = folded_copy(network.train(), inputs)
        assert (call_network(folded, inputs) - expected).abs().max() <= 1e-5 * expected.abs().max()
        # In a DenseNet BatchNorm comes before the convolution, and after a layer whose output others see; one BatchNorm
        # behind two layers, or behind one that runs twice, is no factor of either.
        assert norms(folded) == (norms(network) if name in ("densenet", "aliased") else [])

    @pytest.mark.parametrize("name", [name for name in FOLDED if name not in WHOLE])
    def test_weights_are_those_of_torch(self, name):
        make, inputs = FOLDED[name]
        network = told_apart(make()).double()
        layer, norm = copy.deepcopy(network[:2])
        fold_batch_norms_(network, find_foldable(network, inputs.double()))
        weight, bias = fused_by_torch(layer, norm)
        assert torch.allclose(network[0].weight, weight, rtol=0, atol=1e-12)
        assert torch.allclose(network[0].bias, bias, rtol=0, atol=1e-12)

    def test_as_a_tracer_does(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import scripts something
            from torch.fx.experimental.optimization import fuse
        network = told_apart(ResNet(20, width=4))
        inputs = torch.randn(2, 3, 16, 16)
        witness = fuse(Unchecked(network).eval())(inputs)
        assert (folded_copy(network, inputs)(inputs) - witness).abs().max() < 1e-6 * witness.abs().max()

    def test_counts_those_of_a_resnet(self):
        network = ResNet(20)
        assert len(find_foldable(network, torch.zeros(1, 3, 8, 8))) == len(norms(network)) == 21

    def test_keeps_memory_format_flags_and_modes(self):
        network = told_apart(ResNet(8, width=4)).to(memory_format=torch.channels_last).train()
        for key, parameter in network.named_parameters():
            parameter.requires_grad_(not key.startswith(("conv1", "layer1.0.bn1")))
        fold_batch_norms_(network, find_foldable(network, torch.zeros(1, 3, 8, 8)))
        assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions(network))
        assert all(module.training for module in network.modules())
        assert not network.conv1.weight.requires_grad
        assert network.conv1.bias.requires_grad  # it was the BatchNorm's
        assert network.layer1[0].conv1.weight.requires_grad
        assert not network.layer1[0].conv1.bias.requires_grad
        assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in network.parameters())

    def test_replaced_under_all_its_names(self):
        network = told_apart(pair(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))
        network.again = nn.ModuleList([network[1]])
        fold_batch_norms_(network, [("0", "again.0")])
        assert network[1] is network.again[0]
        assert isinstance(network[1], nn.Identity)

    def test_behind_compile(self):
        network = told_apart(nn.Sequential(torch.compile(pair(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), backend="eager")))
        for made in (network, torch.compile(network, backend="eager")):
            expected = made(IMAGES)
            folded = folded_copy(made, IMAGES)
            assert not norms(folded)
            assert torch.allclose(folded(IMAGES), expected, atol=1e-5)

    def test_in_inference_mode(self):
        network = told_apart(FOLDED["grouped"][0]())
        expected = network(IMAGES)
        with torch.inference_mode():
            folded = folded_copy(network, IMAGES.clone())
        assert not any(p.is_inference() for p in folded.parameters())
        assert torch.allclose(folded(IMAGES), expected, atol=1e-5)
        folded(IMAGES).sum().backward()

    @pytest.mark.parametrize(
        "run",
        [
            lambda self, x: self.norm(self.conv(x.to(self.conv.weight.dtype))),
            lambda self, x: self.norm(self.conv(x)).flatten(1).mul_(2),
            lambda self, x: self.norm(nn.Identity()(self.conv(x))),
            lambda self, x: (lambda y: self.norm(y).view(*y.shape[:2], -1))(self.conv(x)),
            lambda self, x: (lambda y: self.norm(y) if y.dim() == 4 and len(y) else y)(self.conv(x)),
            lambda self, x: self.norm(self.conv(x)) + x.sub_(1).mean(),
        ],
    )
    def test_whatever_else_the_forward_does(self, run):
        network = told_apart(Body(run))
        inputs = IMAGES[:, :2].clone()
        assert find_foldable(network, inputs) == [("conv", "norm")]
        assert torch.equal(inputs, IMAGES[:, :2])
        expected = network(inputs.clone())
        assert torch.allclose(folded_copy(network, inputs)(inputs.clone()), expected, atol=1e-5)


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def fused_by_torch(layer, norm):
    if isinstance(layer, nn.Linear):
        fused = fuse_linear_bn_eval(layer, norm)
        return fused.weight, fused.bias
    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    if "Transpose" not in type(layer).__name__:
        return fuse_conv_bn_weights(layer.weight, layer.bias, *statistics[:2], norm.eps, *statistics[2:])
    # It takes one group of a transposed convolution at a time.
    parts = [None if t is None else t.chunk(layer.groups) for t in (layer.weight, layer.bias, *statistics)]
    each = ([None if part is None else part[g] for part in parts] for g in range(layer.groups))
    fused = [fuse_conv_bn_weights(*group[:4], norm.eps, *group[4:], transpose=True) for group in each]
    return torch.cat([weight for weight, _ in fused]), torch.cat([bias for _, bias in fused])


class Keeps(nn.Module):
    def forward(self, x):
        self.kept = [x]
        return x


class Subclass(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).abs()


class WithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Restated(nn.BatchNorm2d):
    """Computes what torch's does, in words of its own."""

    def forward(self, x):
        if self.training:
            return super().forward(x)
        scale = self.weight / (self.running_var + self.eps).sqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


class Renamed(nn.BatchNorm2d):
    pass


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in use
        return torch.jit.trace(nn.Sigmoid(), IMAGES)


TRACED = scripted()


def then(use):
    """A forward in which the convolution's output has a second use."""

    def run(self, x):
        y = self.conv(x)
        z = use(y)
        return self.norm(y) + (z if isinstance(z, torch.Tensor) and z.numel() == 1 else 0)

    return run


def before(change):
    """A forward in which something happens between convolution and BatchNorm."""
    return lambda self, x: self.norm(change(self.conv(x)))


def in_place_on_a_view(y):
    y.view(-1)[0] = 1
    return y


def out_of(y):
    torch.add(y, 1, out=y)
    return y


SECOND_USES = {
    "residual": lambda self, x: (lambda y: self.norm(y) + y)(self.conv(x)),
    "residual, used first": lambda self, x: (lambda y: torch.cat([y, self.norm(y)]))(self.conv(x)),
    "in place after": lambda self, x: (lambda y: (self.norm(y), y.add_(1))[0])(self.conv(x)),
    "statistic": then(lambda y: y.mean()),
    "norm of its own": then(lambda y: F.batch_norm(y, torch.zeros(4), torch.ones(4)).sum()),
    "numpy": then(lambda y: float(y.numpy().sum())),
    "data": then(lambda y: y.data.max()),
    "detach": then(lambda y: y.detach().max()),
    "traced function": then(lambda y: TRACED(y).max()),
    "autograd function": then(lambda y: Doubled.apply(y).max()),
    "vmap": then(lambda y: torch.func.vmap(lambda v: v.sum())(y).max()),
    "in place": before(lambda y: y.add_(1)),
    "in place, operator": before(lambda y: y.__imul__(2)),
    "in place, function": before(lambda y: F.relu(y, inplace=True)),
    "in place, module": before(nn.ReLU(inplace=True)),
    "in place on a view": before(in_place_on_a_view),
    "out=": before(out_of),
    "another tensor": before(lambda y: y * 1),
    "a view": before(lambda y: y.view(y.shape)),
    "kept": before(Keeps()),
    "norm twice": lambda self, x: self.norm(self.norm(self.conv(x))),
    "norm on two": lambda self, x: self.norm(self.conv(x)) + self.norm(x.repeat(1, 2, 1, 1)).mean(),
    "norm on it twice": lambda self, x: (lambda y: self.norm(y) + self.norm(y))(self.conv(x)),
    "layer twice": lambda self, x: self.norm(self.conv(x)) + self.conv(x + 1),
    "layer's forward": lambda self, x: self.norm(self.conv(x)) + self.conv.forward(x + 1),
    "layer's weight": lambda self, x: self.norm(self.conv(x)) * self.conv.weight.mean(),
    "norm's weight": lambda self, x: self.norm(self.conv(x)) * self.norm.weight[0],
    "norm's statistics": lambda self, x: self.norm(self.conv(x)) * self.norm.running_mean.mean(),
    "norm's dtype": lambda self, x: self.norm(self.conv(x)).to(self.norm.weight.dtype),
    "norm's forward": lambda self, x: self.norm.forward(self.conv(x)),
    "norm in training": lambda self, x: self.norm.train()(self.conv(x)),
    "norm on a weight": lambda self, x: self.norm(self.conv.weight.transpose(0, 1)) + self.conv(x).mean(),
    "function": lambda self, x: F.batch_norm(self.conv(x), self.norm.running_mean, self.norm.running_var),
}


def hooked(kind):
    def make():
        network = Body()
        part, register = kind.split(".")
        getattr(getattr(network, part), register)(lambda *args: None)
        return network

    return make


def tied():
    network = Body(lambda self, x: self.norm(self.conv(x)) + self.other(x))
    network.other = nn.Conv2d(2, 4, 3)
    network.other.weight = network.conv.weight
    return network


def two_names(part):
    network = Body()
    network.again = getattr(network, part)
    return network


def two_norms():
    network = Body(lambda self, x: (lambda y: self.norm(y) + self.other(y))(self.conv(x)))
    network.other = nn.BatchNorm2d(4)
    return network


def own_forward(part):
    network = Body()
    module = getattr(network, part)
    module.forward = lambda x: type(module).forward(module, x) + 1
    return network


def pruned():
    network = Body()
    prune.l1_unstructured(network.conv, "weight", 0.5)
    return network


def older():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Body(conv=older_weight_norm(nn.Conv2d(2, 4, 3)))


class AfterLinear(nn.Module):
    """Channels come second, and those of the layer last."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.fc(x[:, 0, :5]))


STAYS = {
    **{f"use: {name}": (lambda run=run: Body(run)) for name, run in SECOND_USES.items()},
    "forward hook": hooked("conv.register_forward_hook"),
    "forward pre-hook": hooked("conv.register_forward_pre_hook"),
    "norm's forward hook": hooked("norm.register_forward_hook"),
    "norm's forward pre-hook": hooked("norm.register_forward_pre_hook"),
    "backward hook": hooked("norm.register_full_backward_hook"),
    "parametrized": lambda: Body(conv=weight_norm(nn.Conv2d(2, 4, 3))),
    "weight_norm": older,
    "pruned": pruned,
    "subclass": lambda: Body(conv=Subclass(2, 4, 3)),
    "own forward": lambda: own_forward("conv"),
    "norm's own forward": lambda: own_forward("norm"),
    "batch statistics": lambda: Body(norm=nn.BatchNorm2d(4, track_running_stats=False)),
    "group norm": lambda: Body(norm=nn.GroupNorm(2, 4)),
    "instance norm": lambda: Body(norm=nn.InstanceNorm2d(4, track_running_stats=True)),
    "a norm with an activation in it": lambda: Body(norm=WithActivation(4)),
    "tied": tied,
    "layer's two names": lambda: two_names("conv"),
    "norm's two names": lambda: two_names("norm"),
    "two norms": two_norms,
    "norm on the layer's weight": lambda: Body(
        lambda self, x: self.norm((self.conv(x), self.conv.weight)[1]), norm=nn.BatchNorm2d(2)
    ),
    "norm first": lambda: Body(lambda self, x: self.conv(self.norm(x)), norm=nn.BatchNorm2d(2)),
}


class TestStays:
    @pytest.mark.parametrize("name", STAYS)
    def test_where_somebody_could_tell(self, name):
        network = STAYS[name]()
        assert find_foldable(network, IMAGES[:, :2].clone()) == []

    def test_linear_on_sequences(self):
        assert find_foldable(AfterLinear(), IMAGES) == []

    def test_unbatched(self):
        assert find_foldable(pair(nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(7)), IMAGES[0, ..., 0]) == []

    @pytest.mark.parametrize(
        "result",
        [lambda y, z: (z, y), lambda y, z: {"logits": z, "hidden": [y]}, lambda y, z: {"logits": z, "set": Held(y)}],
    )
    def test_returned(self, result):
        network = Body(lambda self, x: (lambda y: result(y, self.norm(y)))(self.conv(x)))
        assert find_foldable(network, IMAGES[:, :2]) == []

    def test_kept_by_a_hook_elsewhere(self):
        seen = []
        network = nn.Sequential(nn.Sequential(nn.Conv2d(2, 4, 3)), nn.BatchNorm2d(4))
        assert find_foldable(network, IMAGES[:, :2]) == [("0.0", "1")]
        network[0].register_forward_hook(lambda module, args, result: seen.append(result))
        assert find_foldable(network, IMAGES[:, :2]) == []

    def test_a_cycle_of_references_keeps_nothing(self):
        def run(self, x):
            cycle = [self.conv(x)]
            cycle.append(cycle)
            return self.norm(cycle[0])

        assert find_foldable(Body(run), IMAGES[:, :2]) == [("conv", "norm")]

    def test_only_the_one_that_is_used_twice(self):
        network = nn.Sequential(Body(SECOND_USES["residual"]), Body(conv=nn.Conv2d(4, 4, 3)))
        assert find_foldable(network, IMAGES[:, :2]) == [("1.conv", "1.norm")]


class Held:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("name", STATES)
def test_the_search_changes_nothing(name):
    network = STATES[name]()
    before = digest(module_state(network)), digest(rng_state()), [m.training for m in network.modules()]
    hooks = [(h, dict(getattr(m, h))) for m in network.modules() for h in vars(m) if h.endswith("_hooks")]
    find_foldable(network, torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1)))
    assert before == (digest(module_state(network)), digest(rng_state()), [m.training for m in network.modules()])
    assert hooks == [(h, dict(getattr(m, h))) for m in network.modules() for h in vars(m) if h.endswith("_hooks")]


def test_a_failure_leaves_nothing_behind():
    network = Body(lambda self, x: self.norm(self.conv(x)) @ x).train()
    before = digest(module_state(network))
    with pytest.raises(RuntimeError):
        find_foldable(network, IMAGES[:, :2])
    assert digest(module_state(network)) == before
    assert not network.conv._forward_hooks
    assert not network.norm._forward_pre_hooks
    assert torch.overrides._get_current_function_mode_stack() == []


@pytest.mark.parametrize(
    ("pairs", "parts"),
    [
        ([("con", "norm")], ("pairs expected names of modules, but got 'con'.", "Did you mean 'conv'")),
        ([("norm", "conv")], ("pairs expected a convolution", "BatchNorm2d and Conv2d", "find_foldable()")),
        ([("conv", "norm"), ("conv", "norm")], ("pairs expected each module once", "find_foldable()")),
        ([("conv", "norm"), ("conv", "wide")], ("pairs expected a convolution", "('conv', 'wide')")),
    ],
)
def test_refused(pairs, parts):
    network = Body()
    network.wide = nn.BatchNorm2d(5)
    with refused(*parts):
        fold_batch_norms_(network, pairs)
    assert norms(network) == ["norm", "wide"]


class TestFoldedCopy:
    @pytest.mark.parametrize(
        ("keep", "stays"),
        [
            ((), []),
            (("layer1.0.conv1",), ["layer1.0.bn1"]),
            (("layer1.0.bn2", "bn1"), ["bn1", "layer1.0.bn2"]),
            (("layer1",), ["layer1.0.bn1", "layer1.0.bn2"]),
            (("layer2.0.shortcut.1",), ["layer2.0.shortcut.1"]),
        ],
    )
    def test_keeps(self, keep, stays):
        network = told_apart(ResNet(8, width=4)).train()
        before = digest(module_state(network))
        folded = folded_copy(network, torch.randn(2, 3, 8, 8), keep=keep)
        assert norms(folded) == stays
        assert not any(module.training for module in folded.modules())
        assert digest(module_state(network)) == before

    def test_keep_matches_nothing(self):
        with refused("keep: 'layer9' matches no layer"):
            folded_copy(ResNet(8, width=4), torch.randn(2, 3, 8, 8), keep=["layer9"])

    @pytest.mark.parametrize(
        ("network", "reason"),
        [
            (Body(lambda self, x: self.norm(self.conv(x)) @ x), "RuntimeError"),
            (Body(lambda self, x: self.norm(self.conv(x)) * self.norm.num_features), "has no attribute 'num_features'"),
            (
                Body(lambda self, x: self.norm(self.conv(x)) * (1 + isinstance(self.norm, nn.Identity))),
                "its outputs would move by 1.0e+00 of the largest",
            ),
            (Body(lambda self, x: self.norm(self.conv(x)) / 0 * 0), "its outputs would move by nan of the largest"),
        ],
    )
    def test_unfolded_with_a_warning(self, network, reason):
        with pytest.warns(UserWarning, match=r"^BatchNorm was not folded in Body: .*[^.]\.$") as caught:
            unfolded = folded_copy(told_apart(network).train(), IMAGES[:, :2])
        assert reason in str(caught[0].message)
        assert unfolded is not network
        assert norms(unfolded) == ["norm"]
        assert not unfolded.norm.training
        assert digest(unfolded.state_dict()) == digest(network.state_dict())

    def test_tolerance(self):
        network = told_apart(ResNet(20, width=4)).bfloat16()
        inputs = torch.randn(2, 3, 8, 8).bfloat16()
        with pytest.warns(UserWarning, match="its outputs would move by"):
            assert norms(folded_copy(network, inputs))
        assert not norms(folded_copy(network, inputs, tolerance=0.1))

    def test_every_output_has_to_agree(self):
        def run(self, x):
            y = self.norm(self.conv(x))
            return y, y.mean() * isinstance(self.norm, nn.BatchNorm2d)

        with pytest.warns(UserWarning, match="its outputs would move"):
            assert norms(folded_copy(told_apart(Body(run)), IMAGES[:, :2]))

    def test_infinite_outputs_agree(self):
        masked = lambda self, x: self.norm(self.conv(x)).masked_fill(x[:, :1, 1:-1, 1:-1] > 0, -torch.inf)  # noqa: E731
        network = told_apart(Body(masked))
        assert not norms(folded_copy(network, IMAGES[:, :2]))

    def test_call_and_output(self):
        network = told_apart(Body())
        network.predict = lambda image: {"found": network.norm(network.conv(image))}
        assert find_foldable(network, {"image": IMAGES[:, :2]}, "predict", "found") == [("conv", "norm")]
