"""Training samples and their loss, for importances that need data."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_xai.network.calling import BatchToInputs, OutputSpec, find_inputs, find_labels
from lit_xai.network.probing import Probe
from lit_xai.network.trees import take
from lit_xai.pruning.importance import needs_data, prepare_importance
from lit_xai.trainer.batches import read_batch

BATCH = 64
"""Samples in one forward pass."""


@dataclass(frozen=True)
class TrainingData:
    """The same samples of the training set at every cut.

    Args:
        parts: of a batch as the module's steps would get it, a few samples each.
        batch_to_inputs: the model's inputs in a batch.
    """

    parts: list[Any]
    batch_to_inputs: BatchToInputs

    @classmethod
    def read(cls, importance: Any, trainer: Trainer, n: int, batch_to_inputs: BatchToInputs) -> "TrainingData":
        """Read samples, if an importance needs any; call it on every process.

        Args:
            importance: an instance.
            trainer: inside ``fit``.
            n: how many.
            batch_to_inputs: the model's inputs in a batch.

        Raises:
            ValueError: there is nothing to read.
        """
        if not needs_data(importance):
            return cls([], batch_to_inputs)
        # A fixed seed: cuts that see the same samples differ by the network alone.
        batch, indices = read_batch(trainer, "train", Probe(n=n), seed=0)
        rows = [list(range(start, min(start + BATCH, len(indices)))) for start in range(0, len(indices), BATCH)]
        return cls([take(batch, part, len(indices)) for part in rows], batch_to_inputs)

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
        own = _loss_of_step(copied, self.parts[0])
        if own is not None:
            return prepare_importance(importance, network, batches, own, output=output)
        labelled = [(inputs, find_labels(part, network)) for inputs, part in batches]
        return prepare_importance(importance, network, labelled, output=output)


def _loss_of_step(copied: LightningModule, batch: Any) -> Any:
    """Return the loss of the module's training step as a function, ``None`` where it cannot be called by itself."""
    if not copied.automatic_optimization:  # it would step the optimizers
        return None

    def loss(network: nn.Module, inputs: Any, part: Any) -> Tensor:
        # training_step may take batch_idx or leave it out, as Lightning allows.
        taken = len(inspect.signature(copied.training_step).parameters)
        found: Any = copied.training_step(*(part, 0)[:taken])
        return found["loss"] if isinstance(found, dict) else found

    try:
        with torch.no_grad():
            found = loss(copied, None, batch)
    except Exception:  # a step may need more of its Trainer than a copy has; labels are used instead
        return None
    return loss if isinstance(found, Tensor) else None
