"""The LightningModule that trains any network to predict numbers."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError

from lit_xai.models.optim import Interval
from lit_xai.models.sizes import squeeze_column
from lit_xai.models.supervised import Metrics, Supervised
from lit_xai.network.calling import BatchToInputs, OutputSpec


class Regressor(Supervised):
    """Train any network to predict numbers, and log ``<stage>/loss`` and ``<stage>/mae`` per epoch.

    Batches are as for :class:`~lit_xai.models.Classifier`, with floating targets for labels. With
    :class:`~lit_xai.models.LinearModel` it is linear regression.

    Args:
        network: any module that gives ``(batch,)``, ``(batch, 1)`` or ``(batch, outputs)``.
        loss: called with predictions and targets of one shape, such as ``torch.nn.HuberLoss()``; in YAML a function's
            import path, or ``class_path`` and ``init_args``. By default the mean squared error.
        metrics: torchmetrics in place of the mean absolute error: one, a list, or a dict whose keys become the names.
        optimizer: as for :class:`~lit_xai.models.Classifier`.
        lr_scheduler: as for :class:`~lit_xai.models.Classifier`.
        lr_scheduler_interval: as for :class:`~lit_xai.models.Classifier`.
        lr_scheduler_monitor: the metric that ``ReduceLROnPlateau`` watches.
        batch_to_inputs: as for :class:`~lit_xai.models.Classifier`.
        output: as for :class:`~lit_xai.models.Classifier`.

    Raises:
        ValueError: an argument is out of range, or, at the first batch, predictions and targets differ in shape.
        TypeError: ``network``, ``loss``, ``optimizer`` or ``lr_scheduler`` is of the wrong kind.

    Example:
        >>> from lit_xai.models import LinearModel
        >>> regressor = Regressor(LinearModel(in_features=4), loss=nn.HuberLoss())
        >>> regressor(torch.zeros(2, 4)).shape
        torch.Size([2, 1])
    """

    takes_logits = False

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor, Tensor], Any] = F.mse_loss,
        metrics: Metrics | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Interval | None = None,
        lr_scheduler_monitor: str = "val/loss",
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
    ) -> None:
        if not callable(loss):
            raise TypeError(f"loss expected a callable of predictions and targets, but got {loss!r}.")
        super().__init__(
            network,
            {"mae": MeanAbsoluteError()} if metrics is None else metrics,
            optimizer,
            lr_scheduler,
            lr_scheduler_interval,
            lr_scheduler_monitor,
            batch_to_inputs,
            output,
        )
        self.loss = loss

    def align(self, outputs: Tensor, labels: Tensor, check_values: bool) -> tuple[Tensor, Tensor]:
        """Return predictions and targets of one shape and of at least single precision."""
        # (batch, 1) against (batch,) would broadcast to (batch, batch), with a loss that falls and means nothing.
        outputs, labels = squeeze_column(outputs), squeeze_column(labels)
        if outputs.shape != labels.shape:
            raise ValueError(
                f"Predictions and targets expected one shape, but got {tuple(outputs.shape)} from the network and"
                f" {tuple(labels.shape)} from the batch: change the network's last layer, or the targets."
            )
        # Squares of the 16-bit outputs that autocast gives would overflow or lose most of their digits.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return outputs, labels.to(outputs.dtype)

    def compute_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(outputs, labels)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the outputs, which are the predictions."""
        return outputs
