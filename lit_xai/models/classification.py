"""Loss, checks and predictions of the three classification tasks."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_xai.models.sizes import squeeze_column

Task: TypeAlias = Literal["multiclass", "binary", "multilabel"]

TASKS: tuple[Task, ...] = get_args(Task)


def align(logits: Tensor, labels: Tensor, task: Task, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return logits and labels in the shapes and types that loss and metrics expect.

    Args:
        logits: ``(batch, num_classes, ...)`` for multiclass, ``(batch,)`` or ``(batch, 1)`` for binary,
            ``(batch, num_classes)`` for multilabel.
        labels: class indices ``(batch, ...)`` for multiclass, zeros and ones of the logits' shape for the others.
        task: ``"multiclass"``, ``"binary"`` or ``"multilabel"``.
        num_classes: classes, or labels.

    Returns:
        Floating logits of at least single precision, and integer labels; both ``(batch,)`` for binary.

    Raises:
        ValueError: the shapes do not fit the task.

    Example:
        >>> logits, labels = align(torch.zeros(8, 1), torch.ones(8), "binary", 2)
        >>> logits.shape, labels.dtype
        (torch.Size([8]), torch.int64)
    """
    if task == "binary":
        logits, labels = squeeze_column(logits), squeeze_column(labels)
    _check_logits(logits, task, num_classes)
    expected = logits.shape if task != "multiclass" else logits.shape[:1] + logits.shape[2:]
    if labels.shape != expected or (task == "multiclass" and labels.is_floating_point()):
        what = "zeros and ones" if task != "multiclass" else "integer class indices"
        raise ValueError(
            f"labels expected {what} of shape {tuple(expected)}, but got {labels.dtype} of shape"
            f" {tuple(labels.shape)} for task={task!r}."
        )
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), labels.long()


def _check_logits(logits: Tensor, task: Task, num_classes: int) -> None:
    if task == "binary":
        fits, expected = logits.ndim == 1, "(batch,) or (batch, 1)"
    else:
        fits = logits.ndim >= 2 and logits.shape[1] == num_classes and (task == "multiclass" or logits.ndim == 2)
        expected = f"(batch, {num_classes})"
    if not fits:
        raise ValueError(
            f"logits expected shape {expected} for task={task!r}, but got {tuple(logits.shape)} from the network:"
            " change the network's last layer, num_classes or task."
        )


def check_labels(labels: Tensor, task: Task, num_classes: int) -> None:
    """Refuse labels outside the classes; on a GPU this waits for the device.

    Args:
        labels: as the batch holds them.
        task: as for :func:`align`.
        num_classes: classes, or labels.

    Raises:
        ValueError: a label lies outside the classes, or is neither 0 nor 1.

    Example:
        >>> check_labels(torch.tensor([0, 10]), "multiclass", 10)
        Traceback (most recent call last):
        ValueError: labels expected classes from 0 to num_classes - 1 = 9, but got values from 0 to 10:
        set num_classes=11, of the network as well.
    """
    if task == "multiclass":
        low, high = labels.min().item(), labels.max().item()
        if low < 0 or high >= num_classes:
            more = f": set num_classes={high + 1}, of the network as well" if low >= 0 else ""
            raise ValueError(
                f"labels expected classes from 0 to num_classes - 1 = {num_classes - 1}, but got values from {low} to"
                f" {high}{more}."
            )
    elif not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"labels expected zeros and ones for task={task!r}, but got {labels.unique()[:8].tolist()}.")


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    task: Task,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Return the mean cross entropy, as ``torch.nn.functional.cross_entropy`` defines it.

    Label smoothing :math:`\epsilon` mixes the labels with the uniform distribution over the classes
    (`Szegedy et al. 2016 <https://arxiv.org/abs/1512.00567>`_); a binary label, and each of several, has two of them.

    Args:
        logits: as :func:`align` returns them.
        labels: as :func:`align` returns them.
        task: as for :func:`align`.
        class_weights: ``(num_classes,)``, two for binary (of 0 and of 1). For multilabel a factor on each label's loss.
        label_smoothing: :math:`\epsilon` in [0, 1).

    Example:
        >>> classification_loss(torch.zeros(4), torch.tensor([0, 1, 0, 1]), "binary")
        tensor(0.6931)
    """
    if task == "binary":
        # sigmoid(z) is the softmax over (0, z): weights and smoothing then mean what they mean with two classes.
        logits = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    if task != "multilabel":
        return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
    # Each label is a distribution over two classes, of which smoothing gives half of epsilon to each.
    soft = labels * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, soft.to(logits.dtype), weight=class_weights)


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Return the probability of each class (multiclass), of the class 1 (binary), or of each label (multilabel).

    Args:
        logits: as the network returns them.
        task: as for :func:`align`.

    Example:
        >>> probabilities(torch.zeros(1, 4), "multiclass")
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    if task == "multiclass":
        return logits.softmax(dim=1)
    return (squeeze_column(logits) if task == "binary" else logits).sigmoid()
