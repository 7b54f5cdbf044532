"""Inspect a module before it is trained: what each callback would do with it."""

import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_xai.network.calling import find_labels
from lit_xai.network.copying import copy_network
from lit_xai.network.probing import Probe
from lit_xai.network.spec import Network
from lit_xai.overview import sections
from lit_xai.trainer.access import callbacks_of, without_log
from lit_xai.trainer.batches import example_inputs, read_batch
from lit_xai.trainer.structural_callback import FollowRecipe
from lit_xai.trainer.watching import summary, watch


class _Inspected(Exception):  # noqa: N818  # ends a fit before its first step, and is no error
    pass


class Inspection(Callback):
    """Write down what each callback would do with a module, and end the run before its first step.

    Attributes:
        lines: what was found, by the name of the callback.
    """

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Inspect, and end the run."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they are about is told in the lines
            self._inspect(trainer, pl_module)
        raise _Inspected

    def _inspect(self, trainer: Trainer, pl_module: LightningModule) -> None:
        watched = watch(trainer, pl_module, "train")
        self.lines["step"] = f"{summary(watched, pl_module)}"
        network, called = watched.network, watched.called
        self._tell("network", lambda: sections.sizes(*self._one(trainer, pl_module, network)))
        with without_log(pl_module):
            self._tell("StructuredPruning", lambda: sections.pruning(*self._one(trainer, pl_module, network)))
            trained = called if called.step is None else network
            quantizing = "QuantizationAwareTraining"
            self._tell(quantizing, lambda: sections.quantization(*self._one(trainer, pl_module, trained)))
            self._tell("KnowledgeDistillation", lambda: sections.distillation(*self._one(trainer, pl_module, trained)))
            self._tell("AttributionMonitor", lambda: self._explained(trainer, pl_module))
            self._tell("ModelExport", lambda: sections.export(*self._one(trainer, pl_module, network)))
            self._tell("cost", lambda: sections.costs(*self._one(trainer, pl_module, network)))

    def _tell(self, name: str, section: Callable[[], str]) -> None:
        try:
            self.lines[name] = section()
        except Exception as error:  # what one cannot do says nothing about the others
            self.lines[name] = f"refused: {' '.join(str(error).split())}"

    def _one(self, trainer: Trainer, pl_module: LightningModule, network: Network) -> tuple[Any, Any, Any]:
        inputs = example_inputs(trainer, pl_module, network)
        return network.of(pl_module), inputs, network.output

    def _explained(self, trainer: Trainer, pl_module: LightningModule) -> str:
        loader = "train" if trainer.val_dataloaders is None else "val"
        watched = watch(trainer, pl_module, loader)
        network = watched.network
        batch, _ = read_batch(trainer, loader, Probe(n=4), seed=0)
        assert callable(network.batch_to_inputs)  # watched
        found = network.of(pl_module)
        labels = find_labels(batch, batch_to_target=watched.batch_to_target) if watched.batch_to_target else None
        return sections.attribution(found, network.batch_to_inputs(batch), labels, network.output)

    def __str__(self) -> str:
        width = max(map(len, self.lines), default=0)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.lines.items())


class _OneBatch:
    """A loader of one batch."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __iter__(self) -> Any:
        return iter([self.batch])

    def __len__(self) -> int:
        return 1


def inspect(module: LightningModule, batch: Any) -> Inspection:
    """Return what each callback would do with a module: network, call, labels, what can be pruned and quantized, costs.

    Args:
        module: left unchanged.
        batch: one, as its steps get it.

    Raises:
        ValueError: the training step calls no network, or several side by side; names them.

    Example:
        >>> from lit_xai.models import Classifier, MLP
        >>> import torch
        >>> module = Classifier(MLP(4, [8], 3), num_classes=3)
        >>> found = inspect(module, (torch.randn(16, 4), torch.randint(3, (16,))))
        >>> print(found.lines["step"])
        the network is `Classifier`, called with Tensor[16, 4] float32; logits: output; labels: batch['1'].
        >>> print(found)  # doctest: +SKIP
    """
    copied: Any = copy_network(module)
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    options |= {"enable_checkpointing": False, "logger": False, "accelerator": "cpu", "devices": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a loader of one batch, and of what is logged
        return inspect_with(Trainer(max_epochs=1, **options), copied, train_dataloaders=_OneBatch(batch))


def inspect_with(trainer: Trainer, module: LightningModule, **data: Any) -> Inspection:
    """Inspect a module in a Trainer, which is used up by it.

    Args:
        trainer: its callbacks are left out.
        module: set up for this Trainer.
        data: of ``trainer.fit``.

    Raises:
        ValueError: as for :func:`inspect`.
    """
    inspection = Inspection()
    callbacks_of(trainer)[:] = [FollowRecipe(), inspection]
    try:
        trainer.fit(module, **data)
    except _Inspected:
        return inspection
    raise ValueError(f"{type(module).__name__} expected data to train on, but its loader gave none.")
