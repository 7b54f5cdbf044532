"""The base of callbacks that look at the network after chosen epochs, and leave the run as it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToTarget, find_inputs, find_labels
from lit_xai.network.check import refusal
from lit_xai.network.probing import Probe, random_probe
from lit_xai.network.spec import Network
from lit_xai.trainer.access import callbacks_of, refuse_strategies, require_writable, run_folder, without_log
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import loader_name, loaders, read_batch
from lit_xai.trainer.budget import Budget
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.regular import Moment, Regular
from lit_xai.trainer.scheduling import Epochs, Steps, Times
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
        every_n_steps: steps of the first optimizer, instead of epochs.

    Attributes:
        folder: the callback's own in the run's folder.
        network: the network, once a fit has started.
    """

    probe = Probe()
    """Tells which loader's step shows how the network is called."""
    within = ""
    """The folder of the run's in which that of the name is."""

    def __init__(
        self,
        name: str,
        every_n_epochs: Epochs,
        given: Network,
        batch_to_target: BatchToTarget = None,
        seed: int = 0,
        every_n_steps: Steps | None = None,
    ) -> None:
        super().__init__()
        if not name or set(name) & set("/\\:"):
            raise refusal("name", "the name of a folder, without slashes or colons", name)
        self.name, self.given, self.batch_to_target, self.seed = name, given, batch_to_target, seed
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self._regular = Regular(Times.given((1,), {"every_n_epochs": every_n_epochs}, {"every_n_steps": every_n_steps}))
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._regular.forget()
        self.folder, self.network = Path(), self.given
        self._budget, self._warned, self._has_shown = Budget(1.0, 1.0), set[str](), False
        self.release()

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read samples, and refuse what cannot be done; on every process, before the first step."""

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what is shown once, before the first step."""

    def observe(self, trainer: Trainer, pl_module: LightningModule, when: str, step: int) -> None:
        """Look at the network; on the first process alone.

        Args:
            trainer: inside ``fit``.
            pl_module: its module.
            when: ``"epoch 3"``, or ``"step 500"``.
            step: its place on the loggers' axis.
        """
        raise NotImplementedError

    def finish(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Show what is shown once, after the last epoch was looked at."""

    def release(self) -> None:
        """Drop what was read of one ``fit``."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what does not depend on the model, and create the folder."""
        guard(trainer)
        if stage != "fit":
            return
        kind = type(self).__name__
        refuse_strategies(trainer, kind, "leave the callback out")
        mine = (self.within, self.name)
        same = [one for one in callbacks_of(trainer) if isinstance(one, Observer) and (one.within, one.name) == mine]
        if len(same) > 1:
            raise MisconfigurationException(
                f"Two callbacks have the name {self.name!r}: give one of them another, with name=."
            )
        self._start_afresh()
        self._regular.check(trainer)
        self.folder = run_folder(trainer) / self.within / self.name
        agreed(trainer, kind, lambda: require_writable(self.folder))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare: foreseeable errors come before the first step."""
        self._regular.start(trainer)
        self._budget.start({})

        def prepare() -> None:
            self.network = resolved(trainer, pl_module, loader_name(trainer, self.probe, "fit"), self.given)
            with without_log(pl_module):
                self.prepare(trainer, pl_module)

        with self._budget.once():
            agreed(trainer, type(self).__name__, prepare)
            self.begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the network if it is time."""
        self._observe_at(trainer, pl_module, self._regular.after_batch(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the network if it is time."""
        self._observe_at(trainer, pl_module, self._regular.after_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last epoch's network in any case: it is the one that is kept."""
        self._regular.stop()
        self._observe_at(trainer, pl_module, self._regular.at_end())
        if self._regular.last is not None:
            self.finish(trainer, pl_module, self._regular.last.step)
        if self._has_shown and any(self.folder.iterdir()):
            what = f"{type(self).__name__}: figures are in '{self.folder}'"
            rank_zero_info(f"{what}. They took {self._budget.sentence()}.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop counting, and release the samples."""
        unguard(trainer)
        self._regular.stop()
        self.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop after an exception, when Lightning does not call ``teardown``."""
        self.teardown(trainer, pl_module, "exception")

    def attempt(self, trainer: Trainer, what: str, work: Callable[[], None]) -> None:
        """Do what must never end a run, on the first process; an error is one warning.

        Args:
            trainer: inside ``fit``; with ``fast_dev_run`` nothing is done.
            what: is shown, in words.
            work: shows it.
        """
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            return
        try:
            work()
        except Exception as error:
            if what not in self._warned:
                self._warned.add(what)
                words = " ".join(str(error).split())[:300]
                kind = type(self).__name__
                rank_zero_warn(f"{kind} cannot show {what}, and training continues. {type(error).__name__}: {words}")

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
        if moment is None:
            return

        def observe() -> None:
            with without_log(pl_module):
                self.observe(trainer, pl_module, str(moment.point), moment.step)
            self._has_shown = True

        with self._budget.recurring():
            self.attempt(trainer, "its figure", observe)
