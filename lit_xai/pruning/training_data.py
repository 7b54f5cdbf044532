"""Training samples and their loss, for importances that need data."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, find_inputs, find_labels
from lit_xai.network.observing import Told
from lit_xai.network.probing import Probe
from lit_xai.network.rows import take
from lit_xai.pruning.importance import needs_data, prepare_importance
from lit_xai.trainer.batches import read_batch
from lit_xai.trainer.stand_in import run_step, standing_in

BATCH = 64
"""Samples in one forward pass."""


@dataclass(frozen=True)
class TrainingData:
    """The same samples of the training set at every cut.

    Args:
        parts: of a batch as the module's steps would get it, a few samples each.
        batch_to_inputs: the model's inputs in a batch.
        batch_to_target: the labels in a batch.
        trainer: whose training step gives the loss.
    """

    parts: list[Any]
    batch_to_inputs: BatchToInputs
    batch_to_target: BatchToTarget = None
    trainer: Trainer | None = None

    @classmethod
    def read(
        cls,
        importance: Any,
        trainer: Trainer,
        n: int,
        batch_to_inputs: BatchToInputs,
        batch_to_target: BatchToTarget = None,
    ) -> "TrainingData":
        """Read samples, if an importance needs any; call it on every process.

        Args:
            importance: an instance.
            trainer: inside ``fit``.
            n: how many.
            batch_to_inputs: the model's inputs in a batch.
            batch_to_target: the labels in a batch.

        Raises:
            ValueError: there is nothing to read.
        """
        if not needs_data(importance):
            return cls([], batch_to_inputs)
        # A fixed seed: cuts that see the same samples differ by the network alone.
        batch, indices = read_batch(trainer, "train", Probe(n=n), seed=0)
        rows = [list(range(start, min(start + BATCH, len(indices)))) for start in range(0, len(indices), BATCH)]
        parts = [take(batch, part, len(indices)) for part in rows]
        return cls(parts, batch_to_inputs, batch_to_target, trainer)

    def show(self, importance: Any, copied: LightningModule, network: nn.Module, output: OutputSpec) -> Any:
        """Collect an importance's data on the samples, with the loss of the module's own training step.

        Args:
            importance: an instance that has seen no data.
            copied: a copy of the module that may be written to, and logs nothing.
            network: the network inside it.
            output: where the logits are.

        Raises:
            ValueError: the importance needs a loss, and neither the training step nor labels give one.
        """
        if not self.parts:
            return importance
        for module in copied.modules():
            module.training = False
        # The batch itself takes the place of labels: a training step is called with it.
        batches = [(find_inputs(part, network, self.batch_to_inputs), part) for part in self.parts]
        # Preferred to a default loss on labels, as it is the loss that the network is trained with.
        own = _loss_of_step(self.trainer, copied, self.parts[0])
        if own is not None:
            return prepare_importance(importance, network, batches, own, output=output)
        labelled = [
            (inputs, find_labels(part, network, batch_to_target=self.batch_to_target)) for inputs, part in batches
        ]
        return prepare_importance(importance, network, labelled, output=output)


def _loss_of_step(trainer: Trainer | None, copied: LightningModule, batch: Any) -> Any:
    """Return the loss of the module's training step as a function, ``None`` where it gives none by itself."""
    if trainer is None:
        return None

    def loss(network: nn.Module, inputs: Any, part: Any) -> Tensor:
        told = Told()
        with standing_in(trainer, copied, "train", told):
            run_step(copied, part, "train", told)
        # With several optimizers, the first of them.
        return told.losses[0]

    try:
        with torch.no_grad():
            found = loss(copied, None, batch)
    except Exception:  # a step may need more of its Trainer than a stand-in has; labels are used instead
        return None
    return loss if found.dim() == 0 else None
