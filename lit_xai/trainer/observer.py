"""The base of callbacks that look at the network after chosen epochs, and leave the run as it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToTarget, find_inputs, find_labels
from lit_xai.network.check import refusal
from lit_xai.network.probing import random_probe
from lit_xai.network.spec import Network
from lit_xai.trainer.access import callbacks_of, refuse_strategies, require_writable, run_folder, without_log
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import loaders, read_batch
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.regular import Moment, Regular
from lit_xai.trainer.scheduling import Epochs, Times
from lit_xai.trainer.watching import labels_of, resolved


@dataclass(frozen=True)
class Rows:
    """Samples of a loader, drawn at random.

    Args:
        inputs: what the network is called with, ``(N, ...)``.
        labels: if there are any.
    """

    inputs: Inputs
    labels: Tensor | None


class Observer(AnyCallback):
    """Interface of callbacks that look at the network after every so many epochs of a fit, and at its end.

    A subclass implements :meth:`prepare`, which reads samples and refuses what it cannot do before the first step, and
    :meth:`observe`, which runs on one process. An error in :meth:`observe` is one warning, and training continues.

    Args:
        name: of tags and of the folder in the run's.
        every_n_epochs: an integer, or a fraction of the run; the last epoch is always looked at.
        given: the network, and how it is called, as far as they were named.
        batch_to_target: the labels in a batch.
        seed: of the choice of samples.

    Attributes:
        folder: the callback's own in the run's folder.
        network: the network, once a fit has started.
    """

    def __init__(
        self, name: str, every_n_epochs: Epochs, given: Network, batch_to_target: BatchToTarget = None, seed: int = 0
    ) -> None:
        super().__init__()
        if not name or set(name) & set("/\\:"):
            raise refusal("name", "the name of a folder, without slashes or colons", name)
        self.name, self.given, self.batch_to_target, self.seed = name, given, batch_to_target, seed
        self.every_n_epochs = every_n_epochs
        self._regular = Regular(Times.given((1,), {"every_n_epochs": every_n_epochs}, {"every_n_steps": None}))
        self.folder, self.network = Path(), given
        self._has_failed = False

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read samples, and refuse what cannot be done; on every process, before the first step."""

    def observe(self, trainer: Trainer, pl_module: LightningModule, when: str, step: int) -> None:
        """Look at the network; on the first process alone.

        Args:
            trainer: inside ``fit``.
            pl_module: its module.
            when: ``"epoch 3"``.
            step: its place on the loggers' axis.
        """
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what does not depend on the model, and create the folder."""
        guard(trainer)
        if stage != "fit":
            return
        kind = type(self).__name__
        refuse_strategies(trainer, kind, "leave the callback out")
        same = [one for one in callbacks_of(trainer) if isinstance(one, Observer) and one.name == self.name]
        if len(same) > 1:
            raise MisconfigurationException(
                f"Two callbacks have the name {self.name!r}: give one of them another, with name=."
            )
        self._regular.forget()
        self._regular.check(trainer)
        self._has_failed = False
        self.folder = run_folder(trainer) / self.name
        agreed(trainer, kind, lambda: require_writable(self.folder))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare: foreseeable errors come before the first step."""
        self._regular.start(trainer)

        def prepare() -> None:
            loader = "train" if trainer.val_dataloaders is None or trainer.val_dataloaders == [] else "val"
            self.network = resolved(trainer, pl_module, loader, self.given)
            with without_log(pl_module):
                self.prepare(trainer, pl_module)

        agreed(trainer, type(self).__name__, prepare)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the network if it is time."""
        self._observe_at(trainer, pl_module, self._regular.after_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last epoch's network in any case: it is the one that is kept."""
        self._regular.stop()
        self._observe_at(trainer, pl_module, self._regular.at_end())

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop counting."""
        unguard(trainer)
        self._regular.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop after an exception, when Lightning does not call ``teardown``."""
        self.teardown(trainer, pl_module, "exception")

    def read(self, trainer: Trainer, pl_module: LightningModule, loader: str, n: int) -> Rows:
        """Return samples of a loader, drawn at random where they have indices.

        Args:
            trainer: inside ``fit``.
            pl_module: its module.
            loader: ``"train"`` or ``"val"``.
            n: most samples.

        Raises:
            ValueError: there is nothing to read, or the batch holds no usable inputs.
        """
        called = resolved(trainer, pl_module, loader, self.given)
        network: nn.Module = called.of(pl_module)
        to_target = labels_of(trainer, pl_module, loader, self.given, self.batch_to_target)
        batch, _ = read_batch(
            trainer, loader, random_probe(loaders(trainer)[loader], n, self.seed), self.seed, to_target
        )
        inputs: Any = find_inputs(batch, network, called.batch_to_inputs)
        return Rows(inputs, find_labels(batch, network, batch_to_target=to_target))

    def _observe_at(self, trainer: Trainer, pl_module: LightningModule, moment: Moment | None) -> None:
        is_dry = trainer.fast_dev_run  # type: ignore[attr-defined]  # set by its connector
        if moment is None or not trainer.is_global_zero or is_dry:
            return
        try:
            with without_log(pl_module):
                self.observe(trainer, pl_module, str(moment.point), moment.step)
        except Exception as error:  # an observer never ends a run
            if not self._has_failed:
                self._has_failed = True
                rank_zero_warn(
                    f"{self.name}: nothing to show of {moment.point}; training continues."
                    f" {type(error).__name__}: {error}"
                )
