"""Losses between the outputs of a student and of its teacher, on logits and on features.

Each follows the protocol of :mod:`lit_xai.distillation.loss_spec`, which losses of other packages follow as well. Those
of this module compute in float32 or wider, also under autocast, and detach the teacher. None is multiplied by the
square of the temperature: the caller who adds it to another loss does that.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_xai.distillation.loss_spec import resolve_loss as resolve_loss  # where 0.1 had it
from lit_xai.distillation.loss_spec import takes as takes  # where 0.1 had it
from lit_xai.network.check import check_positive
from lit_xai.network.describing import describe


def kl_divergence(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, class_dim: int = 1) -> Tensor:
    r"""Return the divergence of the student's probabilities from the teacher's, :math:`KL(p_t \| p_s)` in nats.

    :math:`p = \mathrm{softmax}(\mathrm{logits} / T)`, and the mean is over everything but the classes. Hinton et al.
    2015, Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531, who multiply by :math:`T^2`,
    since the gradients shrink with it; here the caller multiplies.

    Args:
        student: logits ``(N, C, ...)``; ``(N,)`` or one class stand for a binary task, as two classes ``[0, logit]``.
        teacher: logits of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.
        temperature: :math:`T`; the higher it is, the more the unlikely classes count.
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
    student, teacher = _class_logits(student, teacher, temperature, class_dim)
    return _divergence(student.log_softmax(class_dim), teacher.log_softmax(class_dim), class_dim).mean()


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
    r"""Return the KL divergence split in two, target against the rest and within the rest, each with its own weight.

    :func:`kl_divergence` weights the second part with :math:`1 - p_t[\mathrm{target}]`, almost zero where the teacher
    is confident. Zhao et al. 2022, Decoupled Knowledge Distillation, https://arxiv.org/abs/2203.08679, who multiply
    by :math:`T^2` as well.

    Args:
        student: logits ``(N, C, ...)``; ``(N,)`` or one class stand for a binary task, whose second part is 0.
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
    student, teacher = _class_logits(student, teacher, temperature, class_dim)
    index = _target_index(target, student, class_dim)
    # The paper splits KL = TCKD + (1 - p_t[target]) * NCKD; here both parts, (N, ...) each, get weights of their own.
    among_two = _target_part(student, teacher, index, class_dim)
    among_others = _nontarget_part(student, teacher, index, class_dim)
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
    """Return the mean of half the squared difference, linear beyond ``delta``.

    Huber 1964, Robust Estimation of a Location Parameter, https://doi.org/10.1214/aoms/1177703732.

    Args:
        student: outputs of any shape.
        teacher: outputs of the same shape; ``(N,)`` and ``(N, 1)`` count as the same.
        delta: the difference beyond which the loss grows linearly.

    Raises:
        ValueError: the shapes differ, or ``delta`` is not positive.

    Example:
        >>> huber(torch.tensor([0.0, 3.0]), torch.tensor([[1.0], [1.0]]))
        tensor(1.)
    """
    check_positive("delta", delta)
    return F.huber_loss(*_outputs(student, teacher), delta=delta)


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of features.

    Romero et al. 2014, FitNets: Hints for Thin Deep Nets, https://arxiv.org/abs/1412.6550. The caller
    supplies their regressor, which maps a thinner student's features to the teacher's shape.

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
            " to it with a trained layer, or use attention_transfer, which compares any widths."
        )
    return F.mse_loss(*_floats(student, teacher))


def attention_transfer(student: Tensor, teacher: Tensor, *, channel_dim: int = 1) -> Tensor:
    """Return the difference between the attention maps of student and teacher, whose widths may differ.

    A map is the mean of the squared activations over the channels, normalized to length 1 per sample. The loss is the
    mean squared difference of the maps over samples and positions, as in the authors' code. Zagoruyko and Komodakis
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
            f"attention_transfer expected features with positions, (N, C, ...), but got {describe(few)}: use hint."
        )
    if student.dim() != teacher.dim() or len(student) != len(teacher):
        raise ValueError(
            "attention_transfer expected features with the teacher's samples and dimensions,"
            f" {describe(teacher)}, but got {describe(student)}: choose layers of the same kind."
        )
    _check_dim("channel_dim", channel_dim, student.dim())
    # (N, C, ...) to (N, ...): one map for each sample.
    maps = [features.square().mean(channel_dim) for features in _floats(student, teacher)]
    # The smaller size in each dimension: enlarging a map would invent positions.
    size = tuple(map(min, *(each.shape[1:] for each in maps)))
    # A single position normalizes to 1 in both maps: the loss would be 0 whatever the features are.
    if math.prod(size) < 2:
        raise ValueError(
            "attention_transfer expected at least two positions, but got a student's"
            f" {describe(student)} and a teacher's {describe(teacher)}: use an earlier layer, or hint."
        )
    # Normalized after pooling, so that both have length 1 at the size that is compared; rows are (N, positions).
    student, teacher = (F.normalize(_pooled(each, size).flatten(1)) for each in maps)
    return F.mse_loss(student, teacher)


attention_transfer.any_width = True  # type: ignore[attr-defined]  # functions declare no attributes


LOSSES: dict[str, Callable[..., Tensor]] = {
    "kl_divergence": kl_divergence,
    "decoupled_kl_divergence": decoupled_kl_divergence,
    "l1": l1,
    "l2": l2,
    "huber": huber,
}
"""Names of losses on logits."""

FEATURE_LOSSES: dict[str, Callable[..., Tensor]] = {"hint": hint, "attention_transfer": attention_transfer}
"""Names of losses on features."""


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Refuse a teacher whose outputs cannot be compared with the student's element by element.

    Args:
        student: outputs ``(N, ...)``.
        teacher: outputs of the same shape, with or without a last dimension of 1.

    Raises:
        ValueError: the shapes differ; the message gives the number of outputs of each.

    Example:
        >>> check_logits(torch.zeros(8), torch.zeros(8, 1))
        >>> check_logits(torch.zeros(8, 10), torch.zeros(8, 100))
        Traceback (most recent call last):
        ...
        ValueError: The teacher gives 100 outputs per sample, but the student 10: use a teacher of the same classes, or
        your own loss that compares them.
    """
    of_student, of_teacher = tuple(student.shape), tuple(teacher.shape)
    if of_teacher in (of_student, (*of_student, 1)) or of_student == (*of_teacher, 1):
        return
    if of_student[:1] != of_teacher[:1]:
        raise ValueError(
            f"The teacher gives outputs for {_sizes(of_teacher[:1])} samples, but the student for"
            f" {_sizes(of_student[:1])}: call both with the same inputs."
        )
    raise ValueError(
        f"The teacher gives {_sizes(of_teacher[1:])} outputs per sample, but the student {_sizes(of_student[1:])}: use"
        " a teacher of the same classes, or your own loss that compares them."
    )


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "1"


def _check_dim(argument: str, dim: int, dims: int) -> None:
    """Refuse a dimension that does not exist, and the first, which counts the samples."""
    if dim % dims == 0 or not -dims < dim < dims:
        raise ValueError(f"{argument} expected a dimension from 1 to {dims - 1}, or -1 for the last, but got {dim}.")


def _floats(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the wider of their types, at least float32, and the teacher detached."""
    # At least float32: under autocast logits are in half precision, in which small probabilities vanish.
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def _outputs(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with the student's shape."""
    check_logits(student, teacher)
    return _floats(student, teacher.reshape(student.shape))


def _class_logits(student: Tensor, teacher: Tensor, temperature: float, class_dim: int) -> tuple[Tensor, Tensor]:
    """Return both with at least two classes, divided by the temperature."""
    check_positive("temperature", temperature)
    student, teacher = _outputs(student, teacher)
    if student.dim() < 2:
        student, teacher = student.reshape(-1, 1), teacher.reshape(-1, 1)
    _check_dim("class_dim", class_dim, student.dim())
    if student.shape[class_dim] == 1:  # sigmoid(z) is the softmax of [0, z]
        student, teacher = (torch.cat([torch.zeros_like(z), z], class_dim) for z in (student, teacher))
    return student / temperature, teacher / temperature


def _divergence(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Return the KL divergence of log-probabilities, per sample; exactly 0 where the two are equal."""
    probabilities = teacher.exp()
    # 0 log 0 is 0, where a difference of infinities would be NaN: logits of -inf are how classes are masked out.
    terms = probabilities * (teacher - student).masked_fill(probabilities == 0, 0.0)
    # Both add up to 1 only up to rounding: with the difference the gradient is exactly 0 where the two are equal.
    return (terms + (student.exp() - probabilities)).sum(dim)


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
    # log(1 - p) as a logsumexp over the others: 1 - p itself would round to 0 for a confident network.
    others = log_probabilities.scatter(dim, index, -math.inf).logsumexp(dim, keepdim=True)
    return torch.cat([log_probabilities.gather(dim, index), others], dim)


def _nontarget_part(student: Tensor, teacher: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return the divergence among the other classes, per sample."""
    # A logit of -inf leaves the target out of the softmax.
    student, teacher = (z.scatter(dim, index, -math.inf).log_softmax(dim) for z in (student, teacher))
    return _divergence(student, teacher, dim)


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
            f"attention_transfer expected equal positions, or at most three dimensions of them, but got {len(size)}."
        )
    return pools[len(size)](maps.unsqueeze(1), size).squeeze(1)
