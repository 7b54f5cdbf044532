"""Attributions that can be part of a loss, since they keep the graph that they were computed by.

Captum's do not: Saliency, InputXGradient and IntegratedGradients return tensors that claim ``requires_grad`` but have
no gradient with respect to parameters. Hence the closed forms here.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_xai.network.describing import describe


@overload
def input_x_gradient(logits: Tensor, inputs: Tensor, target: Tensor, *, create_graph: bool = True) -> Tensor: ...


@overload
def input_x_gradient(
    logits: Tensor, inputs: tuple[Tensor, ...], target: Tensor, *, create_graph: bool = True
) -> tuple[Tensor, ...]: ...


def input_x_gradient(
    logits: Tensor, inputs: Tensor | tuple[Tensor, ...], target: Tensor, *, create_graph: bool = True
) -> Tensor | tuple[Tensor, ...]:
    """Return inputs times the gradient of the target's logit, as a part of the graph.

    Shrikumar et al. 2016, Not Just a Black Box, https://arxiv.org/abs/1605.01713. The gradient is of the sum over
    samples: with BatchNorm in train mode a sample's attribution includes its effect on the others' logits. Run the
    network inside :func:`double_backward` if it has attention.

    Args:
        logits: ``(N, C)``, or ``(N, C, ...)``, the mean over whose positions is explained; of ``(N,)`` and ``(N, 1)``
            the only output is explained.
        inputs: ``(N, ...)`` in floating point, requiring a gradient, that the logits were computed from; or several.
        target: the class to explain of each sample, ``(N,)``; ignored where there is one output.
        create_graph: ``False`` where the result is not part of a loss; autograd then frees the graph of the logits.

    Returns:
        Attributions shaped like the inputs, in float32 at least; a tuple for a tuple.

    Raises:
        ValueError: the inputs are integers, require no gradient, or the logits do not depend on them; the target holds
            no such classes.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        >>> x = torch.tensor([[1.0, -1.0]], requires_grad=True)
        >>> found = input_x_gradient(x @ weight.T, x, torch.tensor([1]))
        >>> found
        tensor([[ 3., -4.]], grad_fn=<MulBackward0>)
        >>> found.sum().backward()
        >>> weight.grad
        tensor([[ 0., -0.],
                [ 1., -1.]])
    """
    several = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    gradients = _gradients(logits, several, target, create_graph, "inputs")
    maps = tuple(_at_least_float32(x) * gradient for x, gradient in zip(several, gradients, strict=True))
    maps = maps if create_graph else tuple(found.detach() for found in maps)
    return maps[0] if isinstance(inputs, Tensor) else maps


def grad_cam(
    logits: Tensor, activations: Tensor, target: Tensor, *, create_graph: bool = True, channel_dim: int = 1
) -> Tensor:
    r"""Return the Grad-CAM map, where a layer's activations speak for the target, as a part of the graph.

    :math:`\mathrm{ReLU}(\sum_c w_c A_c)` with :math:`w_c` the mean over positions of the target's gradient by channel
    :math:`A_c`. Selvaraju et al. 2017, Grad-CAM, https://arxiv.org/abs/1610.02391.

    Args:
        logits: as for :func:`input_x_gradient`.
        activations: ``(N, C, ...)``, a layer's output in the very pass that gave the logits.
        target: as for :func:`input_x_gradient`.
        create_graph: as for :func:`input_x_gradient`.
        channel_dim: the dimension of the channels; -1 for tokens ``(N, L, C)``.

    Returns:
        Maps ``(N, ...)`` of the layer's size, in float32 at least.

    Raises:
        ValueError: as :func:`input_x_gradient`; the activations have no positions.

    Example:
        >>> activations = torch.tensor([[[1.0, 3.0], [2.0, 0.0]]], requires_grad=True)
        >>> grad_cam(activations.mean(2), activations, torch.tensor([0]), create_graph=False)
        tensor([[0.5000, 1.5000]])
    """
    if activations.dim() < 3:
        raise ValueError(
            f"grad_cam expected activations with positions, (N, C, ...), but got {describe(activations)}: use an"
            " earlier layer."
        )
    (gradient,) = _gradients(logits, (activations,), target, create_graph, "activations")
    gradient, activations = (value.movedim(channel_dim, 1) for value in (gradient, activations))
    # gradient (N, C, ...) -> weights (N, C), then (N, C, 1, ...) to broadcast over the positions.
    weights = gradient.flatten(2).mean(2)
    weights = weights.reshape(*weights.shape, *(1 for _ in activations.shape[2:]))
    found = (weights * _at_least_float32(activations)).sum(1).relu()
    return found if create_graph else found.detach()


def explanation_loss(student: Tensor | tuple[Tensor, ...], teacher: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return 1 minus the cosine between student's and teacher's attributions, the mean over samples.

    0 where they agree up to a positive factor, 1 where they are orthogonal, 2 where they are opposite. A sample with
    attributions of all zeros on one side counts 1, on both sides 0; neither has a gradient.

    Args:
        student: attributions ``(N, ...)``, or a tuple of them, concatenated to one vector per sample.
        teacher: the same of the teacher, detached. Maps without channels, ``(N, ...)`` with one to three dimensions of
            positions, may differ in size: the larger is averaged down to the smaller, along each dimension.

    Raises:
        ValueError: the attributions differ in number, samples or dimensions.

    Example:
        >>> student = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
        >>> explanation_loss(student[:2], torch.tensor([[2.0, 0.0], [5.0, 0.0]]))
        tensor(0.5000)
        >>> explanation_loss(student[2:], student[:1]), explanation_loss(student[2:], student[2:])
        (tensor(1.), tensor(0.))
    """
    of_student, of_teacher = _pair_up(student, teacher)
    student_empty, teacher_empty = (of_student == 0).all(1), (of_teacher == 0).all(1)
    # Filled with a constant, samples without a direction have a gradient of zero rather than NaN.
    skipped = (student_empty | teacher_empty)[:, None]
    of_student, of_teacher = _unit(of_student.masked_fill(skipped, 1.0)), _unit(of_teacher.masked_fill(skipped, 1.0))
    # Half the squared distance of unit vectors is 1 - cosine, without the cancellation where they nearly agree.
    per_sample = (of_student - of_teacher).square().sum(1) / 2
    return (per_sample + (student_empty ^ teacher_empty)).mean()


def top_class(logits: Tensor) -> Tensor:
    """Return the class with the highest logit of each sample, ``(N,)``.

    Args:
        logits: ``(N, C)``, or ``(N, C, ...)``, of which the mean over positions counts. ``(N,)`` and ``(N, 1)`` have
            one output, class 0.

    Example:
        >>> top_class(torch.tensor([[1.0, 2.0], [3.0, 0.0]])), top_class(torch.tensor([0.5, -0.5]))
        (tensor([1, 0]), tensor([0, 0]))
    """
    return _per_class(logits.detach()).argmax(1)


@contextlib.contextmanager
def double_backward() -> Iterator[None]:
    """Run attention in operations that can be differentiated twice, which the fused kernels cannot be.

    Use it around the student's forward pass. Of other operations only recurrent layers on cuDNN need help:
    ``torch.backends.cudnn.flags(enabled=False)``.

    Example:
        >>> q = torch.ones(1, 2, 3, 4, requires_grad=True)
        >>> with double_backward():
        ...     out = F.scaled_dot_product_attention(q, q, q)
        >>> (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        >>> gradient.sum().backward()
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _gradients(
    logits: Tensor, wanted: tuple[Tensor, ...], target: Tensor, create_graph: bool, argument: str
) -> tuple[Tensor, ...]:
    """Return the gradient of the chosen logits by each tensor, in float32 at least."""
    for value in wanted:
        _check_wanted(value, argument)
    chosen = _chosen(logits, target).sum()
    # Autocast is for forward passes: backward operations run in the types that the forward pass recorded.
    with torch.autocast(logits.device.type, enabled=False):
        found = (
            torch.autograd.grad(chosen, wanted, create_graph=create_graph, allow_unused=True)
            if chosen.requires_grad
            else [None] * len(wanted)
        )
    gradients = tuple(_at_least_float32(gradient) for gradient in found if gradient is not None)
    if len(gradients) < len(wanted):
        raise ValueError(
            f"logits expected to be computed from the {argument}, but autograd found no path: take both from the same"
            " forward pass, with gradients on and nothing detached or copied in between."
        )
    return gradients


def _check_wanted(value: Tensor, argument: str) -> None:
    if not value.is_floating_point():
        raise ValueError(
            f"{argument} expected floating point, which has a gradient, but got {describe(value)}: explain a layer,"
            " where they are token ids the embedding layer, by its output."
        )
    if not value.requires_grad:
        raise ValueError(
            f"{argument} expected tensors that require a gradient, but got {describe(value)} without: call"
            " requires_grad_() before the forward pass, with gradients on."
        )


def _per_class(logits: Tensor) -> Tensor:
    """Return one logit per class, ``(N, C)``."""
    if logits.dim() == 0:
        raise ValueError(f"logits expected one row per sample, (N, C), but got {describe(logits)}.")
    if logits.dim() == 1:
        return _at_least_float32(logits)[:, None]
    return _at_least_float32(logits).flatten(2).mean(2) if logits.dim() > 2 else _at_least_float32(logits)


def _chosen(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit of each sample, ``(N,)``."""
    per_class = _per_class(logits)
    n, classes = per_class.shape
    if classes == 1:
        return per_class[:, 0]
    if tuple(target.shape) != (n,) or target.is_floating_point():
        raise ValueError(f"target expected one class index per sample, of shape ({n},), but got {describe(target)}.")
    wrong = (target < 0) | (target >= classes)
    if wrong.any():
        raise ValueError(f"target expected classes from 0 to {classes - 1}, but got {int(target[wrong][0])}.")
    return per_class.gather(1, target.long()[:, None])[:, 0]


def _at_least_float32(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors ``(N, D)`` of length 1; none may be all zeros."""
    # Scaled first, so that no square underflows. A factor changes no direction: detached, it leaves the gradient right.
    vectors = vectors / vectors.detach().abs().amax(1, keepdim=True)
    return vectors / vectors.norm(dim=1, keepdim=True)


def _pair_up(student: Tensor | tuple[Tensor, ...], teacher: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return both as one vector per sample, ``(N, D)``, in the wider type, and the teacher without a gradient."""
    of_student = (student,) if isinstance(student, Tensor) else tuple(student)
    of_teacher = (teacher,) if isinstance(teacher, Tensor) else tuple(teacher)
    if len(of_student) != len(of_teacher) or not of_student:
        raise ValueError(
            f"explanation_loss expected as many attributions of the student as of the teacher, {len(of_teacher)}, but"
            f" got {len(of_student)}: explain the same inputs of both."
        )
    pairs = [_same_size(one, other.detach()) for one, other in zip(of_student, of_teacher, strict=True)]
    return torch.cat([one.flatten(1) for one, _ in pairs], 1), torch.cat([other.flatten(1) for _, other in pairs], 1)


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    if student.shape != teacher.shape and not (
        student.dim() == teacher.dim() and 2 <= student.dim() <= 4 and len(student) == len(teacher)
    ):
        raise ValueError(
            f"explanation_loss expected attributions like the teacher's, {describe(teacher)}, but got"
            f" {describe(student)}: explain the same samples, and layers of the same kind."
        )
    size = tuple(map(min, student.shape[1:], teacher.shape[1:]))
    return _pooled(student.to(dtype), size), _pooled(teacher.to(dtype), size)


def _pooled(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps ``(N, ...)`` averaged down to ``size``."""
    if maps.shape[1:] == size or math.prod(size) == 0:
        return maps
    # The pools expect channels: (N, ...) -> (N, 1, ...).
    pools: list[Callable[..., Tensor]] = [F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d]
    return pools[len(size) - 1](maps.unsqueeze(1), size).squeeze(1)
