"""The common base of classification and regression."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lit_xai.models.optim import Interval, configure_optimizers
from lit_xai.network.calling import (
    LABEL_KEYS,
    BatchToInputs,
    OutputSpec,
    call_network,
    find_inputs,
    find_labels,
    find_logits,
)
from lit_xai.network.describing import describe
from lit_xai.network.keras import as_network

Metrics: TypeAlias = Metric | list[Metric] | dict[str, Metric]
"""One metric, several, or several by name."""


class Supervised(LightningModule, ABC):
    """Interface of :class:`~lit_xai.models.Classifier` and :class:`~lit_xai.models.Regressor`.

    Logs ``<stage>/loss`` and ``<stage>/<metric>`` once per epoch for the stages ``train``, ``val`` and ``test``.

    Args:
        network: any module; a transformers model too, its ``logits`` are taken, and a Keras one on the torch backend.
        metrics: torchmetrics, cloned for each stage.
        optimizer: called with the parameters; ``torch.optim.Adam`` if ``None``.
        lr_scheduler: called with the optimizer.
        lr_scheduler_interval: see :func:`~lit_xai.models.optim.configure_optimizers`.
        lr_scheduler_monitor: see :func:`~lit_xai.models.optim.configure_optimizers`.
        batch_to_inputs: the network's inputs in a batch, see :func:`~lit_xai.network.calling.find_inputs`.
        output: where the logits are, see :func:`~lit_xai.network.calling.find_logits`.
    """

    def __init__(
        self,
        network: nn.Module,
        metrics: Metrics,
        optimizer: OptimizerCallable | None,
        lr_scheduler: LRSchedulerCallable | None,
        lr_scheduler_interval: Interval | None,
        lr_scheduler_monitor: str,
        batch_to_inputs: BatchToInputs,
        output: OutputSpec,
    ) -> None:
        super().__init__()
        _check_arguments(network, optimizer, lr_scheduler, lr_scheduler_interval)
        # A module or a function in the hyperparameters would need weights_only=False to load the checkpoint.
        functions = [k for k, v in {"batch_to_inputs": batch_to_inputs, "output": output}.items() if callable(v)]
        self.save_hyperparameters(ignore=["network", "metrics", "optimizer", "lr_scheduler", "loss", *functions])
        if "_instantiator" in self.hparams:
            # A LightningCLI hands over its config, plain data that builds everything again: keep all of it.
            self.save_hyperparameters()
        self.network = as_network(network, self.takes_logits)
        # Not the default in the signature: a command line would hand Adam's arguments on to the optimizer that replaces
        # it, and AdamW would run without weight decay.
        self.optimizer = optimizer or torch.optim.Adam
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.lr_scheduler_monitor = lr_scheduler_monitor
        self.batch_to_inputs = batch_to_inputs
        self.output = output
        collected = _collect(metrics)
        # One clone per stage, as attributes: they move with the module, and the sanity check leaves the others alone.
        self.train_metrics = collected.clone(prefix="train/")
        self.val_metrics = collected.clone(prefix="val/")
        self.test_metrics = collected.clone(prefix="test/")

    takes_logits: ClassVar[bool] = True
    """Whether outputs are scores of classes; a Keras model's probabilities are then turned into them."""

    @abstractmethod
    def align(self, outputs: Tensor, labels: Tensor, check_values: bool) -> tuple[Tensor, Tensor]:
        """Return outputs and labels in the form of loss and metrics, or raise a ValueError if they do not fit."""

    @abstractmethod
    def compute_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predictions, which metrics compare with the labels and ``predict_step`` returns."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's logits."""
        return find_logits(self.network(*args, **kwargs), self.output)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log it."""
        return self._step("train", batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Log loss and metrics of a batch."""
        return self._step("val", batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Log loss and metrics of a batch."""
        return self._step("test", batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the predictions for a batch, with labels or without."""
        return self.predictions(self._call(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler."""
        return configure_optimizers(
            self.parameters(),
            self.optimizer,
            self.lr_scheduler,
            trainer=self.trainer,
            interval=self.lr_scheduler_interval,
            monitor=self.lr_scheduler_monitor,
        )

    def _call(self, batch: Any) -> Tensor:
        inputs = find_inputs(batch, self.network, self.batch_to_inputs)
        return call_network(self.network, inputs, output=self.output)

    def _step(self, stage: str, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        if dataloader_idx:
            raise MisconfigurationException(
                f"{type(self).__name__} expected one {stage} dataloader, but got several, whose metrics would be mixed:"
                " join them with torch.utils.data.ConcatDataset, or evaluate them one after the other."
            )
        # The network's signature tells how many elements of a tuple are inputs.
        labels = find_labels(batch, self.network)
        if labels is None:
            raise MisconfigurationException(
                f"{type(self).__name__} expected labels after the inputs of a tuple or under one of the keys"
                f" {list(LABEL_KEYS)} of a dict, but got a batch of {describe(batch)}."
            )
        # Checking values is cheap on the CPU. Elsewhere it waits for the device, which is affordable once an epoch.
        outputs, labels = self.align(self._call(batch), labels, labels.device.type == "cpu" or batch_idx == 0)
        loss = self.compute_loss(outputs, labels)
        self._log(stage, loss, outputs.detach(), labels)
        return loss

    @torch.compiler.disable  # nothing to speed up here, and Lightning 2.6's self.log cannot be traced
    def _log(self, stage: str, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        metrics.update(self.predictions(outputs), labels)
        # Given, since Lightning guesses it from the batch, and warns where a dict holds several sizes.
        size = len(labels)
        # The loss is a plain number that has to be averaged over processes; metrics gather their own states.
        self.log(f"{stage}/loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        self.log_dict(metrics, prog_bar=stage == "val", on_step=False, on_epoch=True, batch_size=size)


def _check_arguments(network: Any, optimizer: Any, lr_scheduler: Any, interval: Any) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"network expected a torch.nn.Module, but got {network!r}.")
    if optimizer is not None and not callable(optimizer):
        raise TypeError(
            "optimizer expected a callable of the parameters, for instance functools.partial(torch.optim.SGD, lr=0.1),"
            f" but got {optimizer!r}."
        )
    if lr_scheduler is not None and not callable(lr_scheduler):
        raise TypeError(
            "lr_scheduler expected a callable of the optimizer, for instance"
            f" functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10), but got {lr_scheduler!r}."
        )
    if interval not in ("epoch", "step", None):
        raise ValueError(f"lr_scheduler_interval expected 'epoch', 'step' or None, but got {interval!r}.")


def _collect(metrics: Metrics) -> MetricCollection:
    try:
        return MetricCollection(metrics)  # type: ignore[arg-type]  # torchmetrics annotates an invariant dict
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metrics expected a torchmetrics Metric, a list of different ones or a dict that names them, but got"
            f" {metrics!r}: {error}."
        ) from None
