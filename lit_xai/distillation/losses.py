"""Losses between a student and its teacher, on logits and on features: numbers in, one number out.

All compute in float32 at least, whatever autocast says, and cut the teacher from the graph. None is multiplied by the
square of the temperature: whoever adds one to another loss does that.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object
from lit_xai.network.spelling import nearest


def kl_divergence(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, class_dim: int = 1) -> Tensor:
    r"""Return how far the student's probabilities are from the teacher's, :math:`KL(p_t \| p_s)` in nats.

    :math:`p = \mathrm{softmax}(\mathrm{logits} / T)`, and the mean is over everything but the classes. Hinton et al.
    2015, Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531, who multiply by :math:`T^2`,
    since the gradients shrink with it; here the caller does.

    Args:
        student: logits ``(N, C, ...)``; ``(N,)`` or one class stand for a binary task, as two classes ``[0, logit]``.
        teacher: logits of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.
        temperature: :math:`T`; the higher, the more the unlikely classes count.
        class_dim: the dimension of the classes; -1 for a language model's ``(N, L, C)``.

    Raises:
        ValueError: the shapes differ, or an argument is out of range.

    Example:
        >>> teacher = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> kl_divergence(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), teacher)
        tensor(0.0601)
        >>> kl_divergence(teacher, teacher, temperature=4.0)
        tensor(0.)
    """
    ours, theirs = _class_logits(student, teacher, temperature, class_dim)
    return _divergence(ours.log_softmax(class_dim), theirs.log_softmax(class_dim), class_dim).mean()


def decoupled_kl_divergence(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    target_weight: float = 1.0,
    nontarget_weight: float = 8.0,
    class_dim: int = 1,
) -> Tensor:
    r"""Return the KL divergence in two parts: target or not, and which of the others, each with its own weight.

    In :func:`kl_divergence` the second part counts with :math:`1 - p_t[\mathrm{target}]`, next to nothing where the
    teacher is sure. Zhao et al. 2022, Decoupled Knowledge Distillation, https://arxiv.org/abs/2203.08679, who multiply
    by :math:`T^2` as well.

    Args:
        student: logits ``(N, C, ...)``; ``(N,)`` or one class stand for a binary task, which has no second part.
        teacher: logits of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.
        target: the true classes as integers, ``(N, ...)``.
        temperature: :math:`T` in :math:`\mathrm{softmax}(\mathrm{logits} / T)`.
        target_weight: of the divergence between target and all others, the paper's alpha.
        nontarget_weight: of the divergence among the others, the paper's beta.
        class_dim: the dimension of the classes; -1 for a language model's ``(N, L, C)``.

    Raises:
        ValueError: the shapes differ, the target holds no such classes, or an argument is out of range.

    Example:
        >>> student, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, 1.0]])
        >>> decoupled_kl_divergence(student, teacher, torch.tensor([0]))
        tensor(0.9271)
        >>> decoupled_kl_divergence(student, teacher, torch.tensor([0]), nontarget_weight=0.0)
        tensor(0.0395)
    """
    ours, theirs = _class_logits(student, teacher, temperature, class_dim)
    index = _target_index(target, ours, class_dim)
    among_two = _target_part(ours, theirs, index, class_dim)
    among_others = _nontarget_part(ours, theirs, index, class_dim)
    return (target_weight * among_two + nontarget_weight * among_others).mean()


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean absolute difference.

    Args:
        student: outputs of any shape.
        teacher: outputs of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> l1(torch.tensor([0.0, 3.0]), torch.tensor([[1.0], [1.0]]))
        tensor(1.5000)
    """
    return F.l1_loss(*_outputs(student, teacher))


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference.

    On logits: Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?, https://arxiv.org/abs/1312.6184.

    Args:
        student: outputs of any shape.
        teacher: outputs of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> l2(torch.tensor([0.0, 3.0]), torch.tensor([[1.0], [1.0]]))
        tensor(2.5000)
    """
    return F.mse_loss(*_outputs(student, teacher))


def huber(student: Tensor, teacher: Tensor, *, delta: float = 1.0) -> Tensor:
    """Return the mean of half the squared difference, continued as a straight line from ``delta`` on.

    Huber 1964, Robust Estimation of a Location Parameter, https://doi.org/10.1214/aoms/1177703732.

    Args:
        student: outputs of any shape.
        teacher: outputs of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.
        delta: the difference from which on it grows linearly.

    Raises:
        ValueError: the shapes differ, or ``delta`` is not positive.

    Example:
        >>> huber(torch.tensor([0.0, 3.0]), torch.tensor([[1.0], [1.0]]))
        tensor(1.)
    """
    _check_positive("delta", delta)
    return F.huber_loss(*_outputs(student, teacher), delta=delta)


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of features.

    Romero et al. 2014, FitNets: Hints for Thin Deep Nets, https://arxiv.org/abs/1412.6550. Their regressor, which
    brings a thinner student's features to the teacher's shape, is the caller's.

    Args:
        student: a layer's output, of any shape.
        teacher: a layer's output, of the same shape.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> hint(torch.zeros(8, 4, 2, 2), torch.full((8, 4, 2, 2), 3.0))
        tensor(9.)
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"hint expected features of the teacher's shape, {describe(teacher)}, but got {describe(student)}: map them"
            " to it with a layer that is trained along, or take attention_transfer, which compares any widths."
        )
    return F.mse_loss(*_floats(student, teacher))


def attention_transfer(student: Tensor, teacher: Tensor, *, channel_dim: int = 1) -> Tensor:
    """Return how much the places differ where student and teacher are active, however wide the two are.

    A map is the mean over the channels of the squared activations, of length 1 per sample; returned is the mean over
    samples and positions of the maps' squared difference, as the authors' code computes it. Zagoruyko and Komodakis
    2016, Paying More Attention to Attention, https://arxiv.org/abs/1612.03928.

    Args:
        student: a layer's output ``(N, C, ...)``.
        teacher: a layer's output with as many dimensions; ``C`` may differ. Where the positions do, the larger map is
            averaged down to the smaller, along each dimension.
        channel_dim: the dimension of the channels; -1 for a transformer's ``(N, L, C)``.

    Raises:
        ValueError: the features have fewer than two positions, or differ in samples or dimensions.

    Example:
        >>> student = torch.tensor([[[2.0, 0.0]]])
        >>> attention_transfer(student, torch.tensor([[[5.0, 0.0], [1.0, 0.0]]]))
        tensor(0.)
        >>> attention_transfer(student, torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))
        tensor(1.)
    """
    if min(student.dim(), teacher.dim()) < 3:
        few = student if student.dim() < 3 else teacher
        raise ValueError(
            f"attention_transfer expected features with positions, (N, C, ...), but got {describe(few)}: take hint."
        )
    if student.dim() != teacher.dim() or len(student) != len(teacher):
        raise ValueError(
            "attention_transfer expected features with the teacher's samples and dimensions,"
            f" {describe(teacher)}, but got {describe(student)}: take layers of the same kind."
        )
    _check_dim("channel_dim", channel_dim, student.dim())
    ours, theirs = (features.square().mean(channel_dim) for features in _floats(student, teacher))
    size = tuple(map(min, ours.shape[1:], theirs.shape[1:]))
    if math.prod(size) < 2:
        raise ValueError(
            "attention_transfer expected two positions at least, but got a student's"
            f" {describe(student)} and a teacher's {describe(teacher)}: take an earlier layer, or hint."
        )
    ours, theirs = (F.normalize(_pooled(maps, size).flatten(1)) for maps in (ours, theirs))
    return F.mse_loss(ours, theirs)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "kl_divergence": kl_divergence,
    "decoupled_kl_divergence": decoupled_kl_divergence,
    "l1": l1,
    "l2": l2,
    "huber": huber,
}
"""Losses on logits by name."""

FEATURE_LOSSES: dict[str, Callable[..., Tensor]] = {"hint": hint, "attention_transfer": attention_transfer}
"""Losses on features by name."""


def resolve_loss(
    loss: str | Callable[..., Tensor], argument: str, known: Mapping[str, Callable[..., Tensor]]
) -> Callable[..., Tensor]:
    """Return the function of student and teacher: one of the table, at an import path, or as it is.

    Args:
        loss: a name, an import path (with a dot), or a function.
        argument: what it was given for, named in the error.
        known: the table, :data:`LOSSES` or :data:`FEATURE_LOSSES`.

    Raises:
        ValueError: it is nothing of that; the nearest name is given.

    Example:
        >>> resolve_loss("l2", "loss", LOSSES) is resolve_loss("lit_xai.distillation.losses.l2", "loss", LOSSES)
        True
        >>> resolve_loss("kl_divergance", "loss", LOSSES)
        Traceback (most recent call last):
        ...
        ValueError: loss expected a function, its import path, or one of kl_divergence, decoupled_kl_divergence, l1, l2,
        huber, but got 'kl_divergance'. Did you mean 'kl_divergence' or 'decoupled_kl_divergence'?
    """
    if isinstance(loss, str) and loss in known:
        return known[loss]
    found = load_object(loss, argument) if isinstance(loss, str) and "." in loss else loss
    if isinstance(found, type):
        raise ValueError(
            f"{argument} expected a function of student and teacher, but got the class {found.__name__}: give an"
            " instance, or the function of the same purpose."
        )
    if not callable(found):
        close = nearest(loss, known) if isinstance(loss, str) else ""
        raise ValueError(
            f"{argument} expected a function, its import path, or one of {', '.join(known)}, but got {loss!r}.{close}"
        )
    return found


def takes(function: Callable[..., Any], name: str) -> bool:
    """Say whether a loss can be given ``name`` by keyword, next to student and teacher as the first two arguments.

    Args:
        function: a function, ``functools.partial`` or module; one whose signature Python does not know takes nothing.
        name: such as ``"temperature"`` or ``"target"``.

    Example:
        >>> takes(kl_divergence, "temperature"), takes(l2, "temperature")
        (True, False)
        >>> takes(F.mse_loss, "target")  # which is what it calls the second
        False
        >>> takes(functools.partial(kl_divergence, temperature=4.0), "temperature")  # which is decided
        False
    """
    if isinstance(function, functools.partial) and name in function.keywords:
        return False
    try:
        # A module's __call__ takes anything; what it passes on to does not.
        parameters = inspect.signature(function.forward if isinstance(function, nn.Module) else function).parameters
    except (TypeError, ValueError):
        return False
    positional = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if name in positional[:2]:
        return False
    return name in named or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Refuse a teacher whose outputs cannot be compared with the student's one by one.

    Args:
        student: outputs ``(N, ...)``.
        teacher: outputs of the same shape, a last dimension of 1 more or less.

    Raises:
        ValueError: says how many outputs each gives.

    Example:
        >>> check_logits(torch.zeros(8), torch.zeros(8, 1))
        >>> check_logits(torch.zeros(8, 10), torch.zeros(8, 100))
        Traceback (most recent call last):
        ...
        ValueError: The teacher gives 100 outputs per sample, but the student 10: take a teacher of the same classes, or
        a loss of your own that compares them.
    """
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    if ours == theirs or (*ours, 1) == theirs or ours == (*theirs, 1):
        return
    if ours[:1] != theirs[:1]:
        raise ValueError(
            f"The teacher gives outputs for {_sizes(theirs[:1])} samples, but the student for {_sizes(ours[:1])}:"
            " call both with the same inputs."
        )
    raise ValueError(
        f"The teacher gives {_sizes(theirs[1:])} outputs per sample, but the student {_sizes(ours[1:])}: take a"
        " teacher of the same classes, or a loss of your own that compares them."
    )


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "1"


def _check_positive(argument: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{argument} expected a positive number, but got {value!r}.")


def _check_dim(argument: str, dim: int, dims: int) -> None:
    """Refuse what is no dimension, and the first, which counts the samples."""
    if dim % dims == 0 or not -dims < dim < dims:
        raise ValueError(f"{argument} expected a dimension from 1 to {dims - 1}, or -1 for the last, but got {dim}.")


def _floats(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in their wider type, float32 at least, and the teacher without a gradient."""
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def _outputs(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with the student's shape."""
    check_logits(student, teacher)
    return _floats(student, teacher.reshape(student.shape))


def _class_logits(student: Tensor, teacher: Tensor, temperature: float, class_dim: int) -> tuple[Tensor, Tensor]:
    """Return both with two classes at least, divided by the temperature."""
    _check_positive("temperature", temperature)
    ours, theirs = _outputs(student, teacher)
    if ours.dim() < 2:
        ours, theirs = ours.reshape(-1, 1), theirs.reshape(-1, 1)
    _check_dim("class_dim", class_dim, ours.dim())
    if ours.shape[class_dim] == 1:
        ours, theirs = (torch.cat([torch.zeros_like(z), z], class_dim) for z in (ours, theirs))
    return ours / temperature, theirs / temperature


def _divergence(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Return the KL divergence of log-probabilities, per sample; exactly 0 where the two are equal."""
    probabilities = teacher.exp()
    # 0 log 0 is 0, where a difference of infinities would be NaN: logits of -inf are how classes are masked out.
    found = probabilities * (teacher - student).masked_fill(probabilities == 0, 0.0)
    # Both add up to 1 only up to rounding: with the difference the gradient is exactly 0 where the two are equal.
    return (found + (student.exp() - probabilities)).sum(dim)


def _target_index(target: Tensor, logits: Tensor, dim: int) -> Tensor:
    """Return the target as an index along ``dim``."""
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex():
        raise ValueError(f"target expected class indices as integers, but got {describe(target)}: round or argmax it.")
    per_sample = logits.select(dim, 0).shape
    if target.shape != per_sample:
        raise ValueError(
            f"target expected one class per sample, of shape {tuple(per_sample)}, but got {describe(target)}."
        )
    classes = logits.shape[dim]
    wrong = (target < 0) | (target >= classes)
    if wrong.any():
        raise ValueError(f"target expected classes from 0 to {classes - 1}, but got {int(target[wrong][0])}.")
    return target.long().unsqueeze(dim)


def _target_part(student: Tensor, teacher: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return the divergence between the target and all other classes together, per sample."""
    return _divergence(_target_or_not(student, index, dim), _target_or_not(teacher, index, dim), dim)


def _target_or_not(logits: Tensor, index: Tensor, dim: int) -> Tensor:
    log_probabilities = logits.log_softmax(dim)
    others = log_probabilities.scatter(dim, index, -math.inf).logsumexp(dim, keepdim=True)
    return torch.cat([log_probabilities.gather(dim, index), others], dim)


def _nontarget_part(student: Tensor, teacher: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return the divergence among the other classes, per sample."""
    ours, theirs = (z.scatter(dim, index, -math.inf).log_softmax(dim) for z in (student, teacher))
    return _divergence(ours, theirs, dim)


def _pooled(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps ``(N, ...)`` averaged down to ``size``."""
    if maps.shape[1:] == size:
        return maps
    pools: dict[int, Callable[..., Tensor]] = {
        1: F.adaptive_avg_pool1d,
        2: F.adaptive_avg_pool2d,
        3: F.adaptive_avg_pool3d,
    }
    if len(size) not in pools:
        raise ValueError(
            f"attention_transfer expected equal positions, or three dimensions of them at most, but got {len(size)}."
        )
    return pools[len(size)](maps.unsqueeze(1), size).squeeze(1)
