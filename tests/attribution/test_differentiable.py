"""Attributions are Captum's, and their gradient is the finite difference's."""

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from networks import STATES, FunctionalReLU, Reshape, Shared, Tokens, TwoInputs, cnn, mlp, plain_cnn
from refusals import refused
from torch import nn
from torch.func import functional_call

from lit_xai.attribution.differentiable import (
    double_backward,
    explanation_loss,
    grad_cam,
    input_x_gradient,
    top_class,
)

TARGET = torch.tensor([0, 2, 1, 2])


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(found, expected, by=1e-6):
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= by * expected.abs().max()


NETWORKS = {"mlp": mlp, "functional": FunctionalReLU, "shared": Shared, "cnn": cnn, "plain cnn": plain_cnn, **STATES}


@pytest.mark.parametrize("name", NETWORKS)
def test_input_x_gradient_is_captums(name):
    network = NETWORKS[name]().eval()
    x = drawn(4, 5) if name in ("mlp", "functional", "shared") else drawn(4, 2, 6, 6)
    x.requires_grad_()
    expected = captum.attr.InputXGradient(network).attribute(x, target=TARGET)
    close(input_x_gradient(network(x), x, TARGET), expected.detach())
    alone = input_x_gradient(network(x), x, TARGET, create_graph=False)
    close(alone, expected.detach())
    assert not alone.requires_grad


def test_input_x_gradient_of_several_inputs_is_captums():
    network, inputs = TwoInputs(), (drawn(4, 5).requires_grad_(), drawn(4, 4, seed=1).requires_grad_())
    expected = captum.attr.InputXGradient(network).attribute(inputs, target=TARGET)
    found = input_x_gradient(network(*inputs), inputs, TARGET)
    assert isinstance(found, tuple)
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def activations_of(network, layer, x):
    kept = []
    with layer.register_forward_hook(lambda module, args, out: kept.append(out)):
        logits = network(x)
    return logits, kept[0]


def conv1d():
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.Softplus(), nn.Conv1d(4, 5, 2), nn.Flatten(), nn.Linear(15, 3))


def conv3d():
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv3d(2, 4, 2), nn.GELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("network", "layer", "shape"),
    [
        *((plain_cnn(), layer, (4, 2, 6, 6)) for layer in range(6)),
        *((cnn(), layer, (4, 2, 6, 6)) for layer in range(5)),
        (conv1d(), 0, (4, 2, 6)),
        (conv1d(), 2, (4, 2, 6)),
        (conv3d(), 1, (4, 2, 3, 4, 5)),
    ],
)
def test_grad_cam_is_captums(network, layer, shape):
    x = drawn(*shape) * 3
    expected = captum.attr.LayerGradCam(network, network[layer]).attribute(x, TARGET, relu_attributions=True)[:, 0]
    logits, activations = activations_of(network, network[layer], x)
    found = grad_cam(logits, activations, TARGET)
    close(found, expected.detach())
    assert found.shape == (4, *activations.shape[2:])


def test_grad_cam_of_an_embedding_layer():
    network, tokens = Tokens(), torch.arange(8).reshape(4, 2)
    logits, vectors = activations_of(network, network.embedding, tokens)
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGET[:, None]).sum(), vectors, retain_graph=True)
    close(input_x_gradient(logits, vectors, TARGET), gradient * vectors.detach())


def test_positions_are_averaged_and_single_outputs_need_no_target():
    torch.manual_seed(0)
    dense, x = nn.Conv2d(2, 3, 3), drawn(4, 2, 6, 6).requires_grad_()
    expected = captum.attr.InputXGradient(lambda x: dense(x).mean((2, 3))).attribute(x, target=TARGET)
    close(input_x_gradient(dense(x), x, TARGET), expected)
    assert torch.equal(top_class(dense(x)), dense(x).mean((2, 3)).argmax(1))

    one, rows = nn.Linear(5, 1), drawn(4, 5).requires_grad_()
    for logits in (one(rows), one(rows)[:, 0]):
        close(input_x_gradient(logits, rows, torch.tensor(99)), rows.detach() * one.weight.detach())
        assert top_class(logits).tolist() == [0, 0, 0, 0]


def smooth(activation, norm, dtype=torch.float64):
    torch.manual_seed(11)
    layers = (nn.Conv2d(2, 3, 3, padding=1), norm, activation, nn.Conv2d(3, 3, 3), activation, nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(27, 3)).to(dtype).train()


def loss_of(network, x, teacher, kind, target):
    x = x.clone().requires_grad_()
    if kind == "input_x_gradient":
        return explanation_loss(input_x_gradient(network(x), x, target), teacher)
    logits, activations = activations_of(network, network[3], x)
    return explanation_loss(grad_cam(logits, activations, target), teacher)


@pytest.mark.parametrize("kind", ["input_x_gradient", "grad_cam"])
@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.BatchNorm2d(3, track_running_stats=False)])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.Softplus])
def test_gradient_is_the_finite_difference(activation, norm, kind):
    network, x, target = smooth(activation(), norm()), drawn(3, 2, 5, 5, dtype=torch.float64), TARGET[:3]
    # A teacher whose maps are larger is averaged down.
    teacher = drawn(3, *((2, 5, 5) if kind == "input_x_gradient" else (7, 5)), seed=1, dtype=torch.float64)
    names, values = zip(*network.named_parameters(), strict=True)

    def loss(*parameters):
        holder = dict(zip(names, parameters, strict=True))

        class Bound(nn.Module):
            __getitem__ = staticmethod(network.__getitem__)

            def forward(self, x):
                return functional_call(network, holder, (x,))

        return loss_of(Bound(), x, teacher, kind, target)

    assert loss(*values) > 0.01
    assert torch.autograd.gradcheck(loss, values)


def moving_batch_norm():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).train()


class Attention(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x):
        tokens = self.embed(x.flatten(1, 2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=not self.fused)
        return self.head(self.norm(tokens + mixed).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cell(x.flatten(1, 2))[0][:, -1])


def between(*layers):
    return lambda: nn.Sequential(nn.Conv2d(2, 4, 3), *(layer() for layer in layers), Reshape(nn.LazyLinear(3)))


KINDS = {
    "BatchNorm in train mode": moving_batch_norm,
    "ReLU and MaxPool": between(nn.ReLU, lambda: nn.MaxPool2d(2)),
    "ReLU in place": between(lambda: nn.ReLU(inplace=True), lambda: nn.AvgPool2d(2)),
    "GroupNorm and SiLU": between(lambda: nn.GroupNorm(2, 4), nn.SiLU),
    "Hardswish and adaptive pooling": between(nn.Hardswish, lambda: nn.AdaptiveAvgPool2d(2)),
    "bilinear": between(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), nn.Mish),
    "dropout and PReLU": between(nn.PReLU, nn.Dropout),
    "attention with weights": lambda: Attention(fused=False),
    "fused attention": lambda: Attention(fused=True),
    "recurrent": Recurrent,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_layer_learns(name):
    torch.manual_seed(0)
    network, x = KINDS[name](), drawn(4, 2, 6, 6).requires_grad_()
    teacher = drawn(4, 2, 6, 6, seed=1)
    network(x)  # lazy layers take their size
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(20):
        torch.manual_seed(1)
        with double_backward():
            logits = network(x)
        loss = explanation_loss(input_x_gradient(logits, x, TARGET), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02


def test_fused_attention_needs_the_context():
    # If this fails, the kernels have learnt it and the context can go.
    network, x = Attention(fused=True), drawn(4, 2, 6, 6).requires_grad_()
    loss = explanation_loss(input_x_gradient(network(x), x, TARGET), drawn(4, 2, 6, 6, seed=1))
    with pytest.raises(RuntimeError, match="not implemented"):
        loss.backward()
    assert torch.backends.cuda.flash_sdp_enabled()
    with double_backward():
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def parameter_gradient(network, loss):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()), allow_unused=True) if g is not None]
    )


@pytest.mark.parametrize("kind", ["input_x_gradient", "grad_cam"])
@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.BatchNorm2d(3)])
def test_close_under_autocast(kind, norm):
    network, x = smooth(nn.ReLU(), norm(), torch.float32), drawn(4, 2, 5, 5)
    teacher = drawn(4, *((2, 5, 5) if kind == "input_x_gradient" else (3, 3)), seed=1)
    exact = parameter_gradient(network, loss_of(network, x, teacher, kind, TARGET))
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(network, x, teacher, kind, TARGET)
    assert loss.dtype is torch.float32
    assert F.cosine_similarity(parameter_gradient(network, loss), exact, 0) > 0.95


def test_low_precision_comes_back_in_float32():
    network, x = mlp().bfloat16(), drawn(4, 5).bfloat16().requires_grad_()
    found = input_x_gradient(network(x), x, TARGET)
    assert found.dtype is torch.float32
    assert found.requires_grad


def test_two_half_batches_accumulate_to_the_whole():
    network, x, teacher = smooth(nn.Tanh(), nn.Identity()), drawn(4, 2, 5, 5).double(), drawn(4, 2, 5, 5, seed=1)
    whole = parameter_gradient(network, loss_of(network, x, teacher, "input_x_gradient", TARGET))
    halves = [
        parameter_gradient(network, loss_of(network, x[rows], teacher[rows], "input_x_gradient", TARGET[rows])) / 2
        for rows in (slice(0, 2), slice(2, 4))
    ]
    close(sum(halves), whole, 1e-9)


@pytest.mark.parametrize("scale", [1e-36, 1e-12, 1.0, 1e20])
def test_loss_is_one_minus_cosine_at_every_scale(scale):
    student, teacher = drawn(6, 3, 4), drawn(6, 3, 4, seed=1)
    expected = (1 - F.cosine_similarity(student.double().flatten(1), teacher.double().flatten(1))).mean()
    scaled = (student * scale).requires_grad_()
    loss = explanation_loss(scaled, teacher / scale if scale > 1e-30 else teacher)
    assert abs(loss.item() - expected.item()) < 1e-6
    (gradient,) = torch.autograd.grad(loss, scaled)
    plain = student.clone().requires_grad_()
    (expected_gradient,) = torch.autograd.grad(explanation_loss(plain, teacher), plain)
    close(gradient * scale, expected_gradient, 1e-4)


def test_loss_of_the_same_the_opposite_and_the_unrelated():
    maps = drawn(5, 3, 4)
    assert explanation_loss(maps, maps) < 1e-6
    assert explanation_loss(maps, 7 * maps) < 1e-6
    assert explanation_loss(maps, -maps) == pytest.approx(2)
    assert explanation_loss(torch.eye(2), torch.eye(2).flip(0)) == pytest.approx(1)
    assert not explanation_loss(maps, maps.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize(("student", "teacher", "value"), [(0, 1, 1), (1, 0, 1), (0, 0, 0)])
def test_all_zeros_give_a_finite_value_and_no_gradient(student, teacher, value):
    maps = drawn(2, 3, 4)
    of_student, of_teacher = maps.clone(), drawn(2, 3, 4, seed=1)
    of_student[0] *= student
    of_teacher[0] *= teacher
    of_student.requires_grad_()
    loss = explanation_loss(of_student, of_teacher)
    loss.backward()
    alone = explanation_loss(of_student[1:], of_teacher[1:])
    assert loss.item() == pytest.approx((value + alone.item()) / 2)
    assert (of_student.grad[0] == 0).all()
    assert torch.isfinite(of_student.grad).all()
    assert of_student.grad[1].abs().max() > 0


def test_a_network_with_a_dead_explanation_gets_no_nan():
    network, x = plain_cnn(), drawn(4, 2, 6, 6).requires_grad_()
    nn.init.constant_(network[3].bias, -100)
    explanation_loss(input_x_gradient(network(x), x, TARGET), drawn(4, 2, 6, 6, seed=1)).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_tuples_are_one_long_vector():
    of_student, of_teacher = (drawn(3, 4), drawn(3, 2, 2, seed=1)), (drawn(3, 4, seed=2), drawn(3, 2, 2, seed=3))
    long = [torch.cat([part.flatten(1) for part in parts], 1) for parts in (of_student, of_teacher)]
    assert torch.allclose(explanation_loss(of_student, of_teacher), explanation_loss(*long))


def test_larger_maps_are_averaged_down_along_each_dimension():
    small = drawn(3, 2, 4).abs()
    large = small.repeat_interleave(3, 1)
    assert explanation_loss(large, small) < 1e-6
    assert explanation_loss(small, large) < 1e-6
    assert explanation_loss(large, small.repeat_interleave(2, 2)) < 1e-6
    assert explanation_loss(drawn(3, 8), drawn(3, 5)) > 0
    assert explanation_loss(drawn(3, 8, 2, 2), drawn(3, 5, 2, 3)) > 0


@pytest.mark.parametrize(
    ("student", "teacher", "word"),
    [
        (torch.ones(3, 4), torch.ones(2, 4), "samples"),
        (torch.ones(3, 4), torch.ones(3, 2, 2), "layers of the same kind"),
        (torch.ones(3, 2, 2, 2, 2), torch.ones(3, 2, 2, 2, 3), "layers of the same kind"),
        ((torch.ones(3, 4),), (torch.ones(3, 4), torch.ones(3, 4)), "same inputs"),
        ((), (), "same inputs"),
    ],
)
def test_incomparable_attributions_are_refused(student, teacher, word):
    with refused("explanation_loss", word):
        explanation_loss(student, teacher)


def test_mistakes_are_named():
    network, x = mlp(), drawn(4, 5)
    tracked = x.clone().requires_grad_()
    with refused("inputs", "requires_grad_()"):
        input_x_gradient(network(x), x, TARGET)
    with refused("inputs", "embedding layer"):
        input_x_gradient(network(x), torch.ones(4, 5, dtype=torch.int64), TARGET)
    with refused("logits", "same forward pass"):
        input_x_gradient(network(x), tracked, TARGET)
    with refused("logits", "same forward pass"):
        input_x_gradient(network(tracked).detach(), tracked, TARGET)
    with refused("logits", "same forward pass"):
        input_x_gradient(network(tracked), (tracked, x.clone().requires_grad_()), TARGET)
    with refused("target", "0 to 2", "got 3"):
        input_x_gradient(network(tracked), tracked, TARGET + 1)
    with refused("target", "(4,)"):
        input_x_gradient(network(tracked), tracked, TARGET[:2])
    with refused("target", "(4,)"):
        input_x_gradient(network(tracked), tracked, TARGET.float())
    with refused("activations", "positions"):
        grad_cam(network(tracked), tracked, TARGET)
    with refused("logits", "activations"):
        grad_cam(network(tracked), drawn(4, 2, 3).requires_grad_(), TARGET)
    with refused("logits", "one row per sample"):
        top_class(torch.tensor(1.0))


def test_no_gradient_is_left_on_parameters_or_inputs():
    network, x = mlp(), drawn(4, 5).requires_grad_()
    input_x_gradient(network(x), x, TARGET)
    assert x.grad is None
    assert all(p.grad is None for p in network.parameters())
