"""The kernel of few passes against torch's own operators."""

import pytest
import torch
from torch import Tensor

from lit_xai.quantization.fake_quantize import fake_quantize, find_min_max

RANGES = ((0, 255, 0), (0, 255, 37), (-128, 127, 0), (-64, 63, 0), (-2, 1, 0))


def reference(tensor: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    if scale.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(tensor, float(scale), zero_point, low, high)
    zeros = torch.full((len(scale),), zero_point, dtype=torch.int)
    return torch.fake_quantize_per_channel_affine(tensor, scale, zeros, 0, low, high)


@pytest.mark.parametrize(("low", "high", "zero_point"), RANGES)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4, 5), (7, 3, 33), (0, 4)], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("spread", [0.4, 2.0], ids=["within", "beyond"])
def test_numbers_and_gradients_are_those_of_torch(shape, low, high, zero_point, per_channel, spread):
    generator = torch.Generator().manual_seed(0)
    channels = shape[0] if per_channel and shape and shape[0] else 1
    scale = torch.rand(channels, generator=generator) * 0.1 + 1e-3
    unit = torch.rand(shape, generator=generator) * 2 - 1
    middle = (low + high) / 2 - zero_point
    by_channel = scale.view(-1, *(1,) * (len(shape) - 1)) if channels > 1 else scale.item()
    ours = ((unit * spread * (high - low) / 2 + middle) * by_channel).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weights = torch.randn(shape, generator=generator)

    out, wanted = fake_quantize(ours, scale, zero_point, low, high), reference(theirs, scale, zero_point, low, high)
    (out * weights).sum().backward()
    (wanted * weights).sum().backward()

    assert torch.equal(out, wanted)
    assert torch.equal(ours.grad, theirs.grad)
    if ours.numel():
        ends = find_min_max(ours, per_channel=channels > 1)
        again, ours.grad = fake_quantize(ours, scale, zero_point, low, high, ends), None
        (again * weights).sum().backward()
        assert torch.equal(again, wanted)
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4), (2, 3, 4, 5), (4, 1, 1, 1)], ids=str)
def test_ends_are_those_that_sorting_finds(shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    assert find_min_max(tensor).tolist() == [float(tensor.flatten().sort()[0][i]) for i in (0, -1)]
    if tensor.dim() > 1:
        rows = [row.flatten().sort()[0] for row in tensor]
        assert find_min_max(tensor, per_channel=True).tolist() == [[float(row[0]), float(row[-1])] for row in rows]
    assert not find_min_max(tensor.requires_grad_()).requires_grad


def test_halves_and_ends_are_those_of_torch():
    scale = torch.tensor([0.25])
    halves = (torch.arange(-600, 600) / 2 * 0.25).requires_grad_()
    others = halves.detach().clone().requires_grad_()

    out, wanted = fake_quantize(halves, scale, 3, 0, 255), reference(others, scale, 3, 0, 255)
    out.sum().backward()
    wanted.sum().backward()

    assert torch.equal(out, wanted)
    assert torch.equal(halves.grad, others.grad)


def test_input_may_be_written_to_afterwards():
    leaf = torch.linspace(-2, 2, 9, requires_grad=True)
    inputs = leaf * 1
    out = fake_quantize(inputs, torch.tensor([0.1]), 0, -10, 10)
    inputs.copy_(out)
    (inputs.sum() + out.sum()).backward()

    assert leaf.grad.tolist() == [0, 0, 2, 2, 2, 2, 2, 0, 0]


def test_gradient_of_a_gradient():
    inputs = torch.tensor([0.3, 5.0], requires_grad=True)
    rounded = fake_quantize(inputs, torch.tensor([0.25]), 0, -4, 4)
    (gradient,) = torch.autograd.grad(rounded.pow(3).sum(), inputs, create_graph=True)
    gradient.sum().backward()

    assert gradient.tolist() == [3 * 0.25**2, 0]
    assert inputs.grad.tolist() == [6 * 0.25, 0]


def test_transforms_of_torch_func():
    scale, inputs = torch.tensor([0.25]), torch.tensor([[0.3, 5.0], [0.6, -0.1]])

    def total(row):
        return fake_quantize(row, scale, 0, -4, 4).pow(2).sum()

    found = torch.func.vmap(torch.func.grad(total))(inputs)

    assert found.tolist() == [[0.5, 0], [1.0, 0]]


def test_makes_no_graph_without_gradients():
    with torch.inference_mode():
        out = fake_quantize(torch.rand(4), torch.tensor([0.1]), 0, 0, 255)
    assert not out.requires_grad
    assert fake_quantize(torch.rand(4), torch.tensor([0.1]), 0, 0, 255).grad_fn is None
