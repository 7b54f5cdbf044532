"""The LightningModule that trains any network to classify."""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy, MultilabelAccuracy

from lit_xai.models.classification import TASKS, Task, align, check_labels, classification_loss, probabilities
from lit_xai.models.optim import Interval
from lit_xai.models.sizes import check_probability
from lit_xai.models.supervised import Metrics, Supervised
from lit_xai.network.calling import BatchToInputs, OutputSpec
from lit_xai.network.check import check_choice


class Classifier(Supervised):
    r"""Train any network to classify, and log ``<stage>/loss`` and ``<stage>/accuracy`` per epoch.

    Batches are tuples ``(inputs, labels)`` or dicts with the labels under ``label``, ``labels``, ``y``, ``target`` or
    ``targets`` and the network's arguments under their names (the Hugging Face form). Metrics receive probabilities.

    With :class:`~lit_xai.models.LinearModel` it is logistic regression.

    Args:
        network: any module that gives logits; a transformers model too.
        num_classes: classes (multiclass) or labels (multilabel); a binary task needs none.
        task: ``"multiclass"`` (logits ``(batch, num_classes)``, labels ``(batch,)`` of class indices), ``"binary"``
            (logits ``(batch,)`` or ``(batch, 1)``, labels 0 and 1) or ``"multilabel"`` (both ``(batch, num_classes)``).
        label_smoothing: :math:`\epsilon` in [0, 1), see :func:`~lit_xai.models.classification.classification_loss`.
        class_weights: weight of each class in the loss (binary: of 0 and 1; multilabel: of each label).
        metrics: torchmetrics in place of accuracy: one, a list, or a dict whose keys become the logged names.
        optimizer: called with the parameters, such as ``functools.partial(torch.optim.SGD, lr=0.1)``; in YAML
            ``class_path`` and ``init_args``. By default ``torch.optim.Adam`` with its learning rate of 0.001.
        lr_scheduler: called with the optimizer; given in the same way. ``OneCycleLR`` and
            :class:`~lit_xai.models.CosineAnnealing` take their length from the Trainer.
        lr_scheduler_interval: ``"epoch"`` or ``"step"``; by default per epoch, but per step for ``OneCycleLR`` and
            ``CyclicLR``.
        lr_scheduler_monitor: the metric that ``ReduceLROnPlateau`` watches.
        batch_to_inputs: the network's inputs in a batch, if they are not in the usual place; see
            :func:`~lit_xai.network.calling.find_inputs`.
        output: the logits in the network's output, if they are not in the usual place; see
            :func:`~lit_xai.network.calling.find_logits`.

    Raises:
        ValueError: an argument is out of range, or, at the first batch, logits or labels do not fit the task.
        TypeError: ``network``, ``optimizer`` or ``lr_scheduler`` is of the wrong kind.

    Example:
        >>> from functools import partial
        >>> from lit_xai.models import MLP
        >>> classifier = Classifier(MLP(), num_classes=10, optimizer=partial(torch.optim.SGD, lr=0.1))
        >>> classifier(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        num_classes: int | None = None,
        task: Task = "multiclass",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        metrics: Metrics | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Interval | None = None,
        lr_scheduler_monitor: str = "val/loss",
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
    ) -> None:
        num_classes = _checked_num_classes(num_classes, task)
        check_probability(label_smoothing=label_smoothing)
        # Plain floats, also from scikit-learn's array or a tensor: they are a hyperparameter in the checkpoint.
        class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        _check_class_weights(class_weights, num_classes)
        super().__init__(
            network,
            {"accuracy": _accuracy(task, num_classes)} if metrics is None else metrics,
            optimizer,
            lr_scheduler,
            lr_scheduler_interval,
            lr_scheduler_monitor,
            batch_to_inputs,
            output,
        )
        self.num_classes = num_classes
        self.task: Task = task
        self.label_smoothing = label_smoothing
        # Not persistent: weights trained with class weights load into a module without them.
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def on_fit_start(self) -> None:
        """Refuse a data module of more classes: the rarest may come in the last batch of an epoch."""
        datamodule = getattr(self.trainer, "datamodule", None)
        names = getattr(datamodule, "class_names", None)
        if self.task == "multiclass" and isinstance(names, (list, tuple)) and len(names) > self.num_classes:
            expected = f"at least {len(names)}, the classes of {type(datamodule).__name__}"
            raise ValueError(
                f"num_classes expected {expected}, but got {self.num_classes}: set it, and the outputs of the network."
            )

    def align(self, outputs: Tensor, labels: Tensor, check_values: bool) -> tuple[Tensor, Tensor]:
        """Return logits and labels in the form of loss and metrics, or raise a ValueError if they do not fit."""
        logits, aligned = align(outputs, labels, self.task, self.num_classes)
        if check_values:
            check_labels(labels, self.task, self.num_classes)
        return logits, aligned

    def compute_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy of a batch."""
        weights = None if self.class_weights is None else self.class_weights.to(outputs.dtype)
        return classification_loss(outputs, labels, self.task, weights, self.label_smoothing)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return probabilities."""
        return probabilities(outputs, self.task)


def _checked_num_classes(num_classes: int | None, task: Task) -> int:
    check_choice("task", task, TASKS)
    if task == "binary":
        if num_classes not in (None, 2):
            raise ValueError(f"num_classes expected None or 2 for task='binary', but got {num_classes}.")
        return 2
    least = 2 if task == "multiclass" else 1
    if num_classes is None or int(num_classes) < least:
        raise ValueError(
            f"num_classes expected an integer of at least {least} for task={task!r}, but got {num_classes}."
        )
    return int(num_classes)


def _check_class_weights(class_weights: list[float] | None, num_classes: int) -> None:
    if class_weights is not None and (len(class_weights) != num_classes or min(class_weights) < 0):
        raise ValueError(
            f"class_weights expected {num_classes} weights of 0 or more, one for each class, but got {class_weights}."
        )


def _accuracy(task: Task, num_classes: int) -> Metric:
    # validate_args=False: torchmetrics' validation waits for the GPU in every step, and labels are checked already.
    if task == "binary":
        return BinaryAccuracy(validate_args=False)
    if task == "multilabel":
        return MultilabelAccuracy(num_labels=num_classes, validate_args=False)
    return MulticlassAccuracy(num_classes=num_classes, average="micro", validate_args=False)
