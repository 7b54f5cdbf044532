"""The callback that shows what an encoder-decoder writes, and what each token of it owes to what was read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lit_xai.attribution.evaluation import DataInfo
from lit_xai.attribution.samples import Samples, read_samples
from lit_xai.attribution.source_matrix import WRITTEN, source_matrix
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, call_network
from lit_xai.network.check import check_choice, check_integer
from lit_xai.network.probing import Probe, as_probe
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.render.samples import LEFT_OUT, SAMPLES
from lit_xai.trainer.access import (
    rank_zero_info,
    rank_zero_warn,
    refuse_strategies,
    require_writable,
    run_folder,
    without_log,
)
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import loader_name
from lit_xai.trainer.budget import Budget
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.logging import log_image
from lit_xai.trainer.regular import Moment, Regular
from lit_xai.trainer.scheduling import Epochs, Steps, Times
from lit_xai.trainer.watching import labels_of, resolved

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class TranslationMonitor(AnyCallback):
    """Attribute each token that an encoder-decoder writes to the tokens that it has read, after every epoch.

    One figure of a few fixed samples: a matrix each, with the reference's tokens as rows, the source's as columns, and
    beside each row what the network itself would write there. It goes to every logger that shows images and, as PNG,
    into the run's folder. It changes nothing: the run is bit for bit the run without it.

    Batches are dicts that hold ``decoder_input_ids`` (what the decoder has read when it writes a token) among the
    network's inputs, and labels ``(N, T)``, negative where there is none, as those of
    :class:`~lit_xai.data.PairDataModule`.

    Args:
        probe: how many samples, their dataset indices, or a :class:`~lit_xai.network.probing.Probe`.
        every_n_epochs: an integer, or a fraction of the run; the end of the run is always shown.
        every_n_steps: steps of the first optimizer, instead of epochs.
        source: the name of what the encoder reads.
        token_names: by id; default the data module's.
        internal_batch_size: most samples in one forward/backward pass.
        module: the network inside the LightningModule, a dotted name; by default found by its call.
        batch_to_inputs: the model's inputs in a batch, as for :class:`~lit_xai.AttributionMonitor`.
        batch_to_target: the labels in a batch, likewise.
        output: the logits in its output, likewise.
        samples: ``"show"``; ``"maps_only"`` writes places instead of tokens; ``"none"`` draws nothing.

    Raises:
        ValueError: an argument is out of range; before the first step, the network reads no ``decoder_input_ids``, or
            labels are not one row of tokens for each sample.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[TranslationMonitor()], logger=False)
    """

    def __init__(
        self,
        *,
        probe: int | list[int] | Probe = 4,
        every_n_epochs: Epochs = 1,
        every_n_steps: Steps | None = None,
        source: str = "input_ids",
        token_names: list[str] | None = None,
        internal_batch_size: int = 64,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: BatchToTarget = None,
        output: OutputSpec = None,
        samples: Literal["show", "maps_only", "none"] = "show",
    ) -> None:
        super().__init__()
        self.probe, self.source = as_probe(probe), source
        self.samples = check_choice("samples", samples, SAMPLES)
        self.internal_batch_size = check_integer("internal_batch_size", internal_batch_size)
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self._regular = Regular(Times.given((1,), {"every_n_epochs": every_n_epochs}, {"every_n_steps": every_n_steps}))
        self.given, self.batch_to_target = Network(module, batch_to_inputs, output), batch_to_target
        self.data_info = DataInfo(token_names=token_names)
        self._forget()

    def _forget(self) -> None:
        self._regular.forget()
        self._network, self._folder = self.given, Path()
        self._read: Samples | None = None
        self._known = self.data_info
        self._budget = Budget(1.0, 1.0)
        self._has_warned = False

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        """Check what does not depend on the model, and create the run's folder."""
        guard(trainer)
        if stage != "fit":
            return
        self._forget()
        refuse_strategies(trainer, "TranslationMonitor", "leave it out")
        self._regular.check(trainer)
        self._folder = run_folder(trainer) / "attribution" / "translation"
        agreed(trainer, "TranslationMonitor", lambda: require_writable(self._folder))

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Read the samples."""
        self._regular.start(trainer)
        self._budget.start({})
        with self._budget.once():
            agreed(trainer, "TranslationMonitor", lambda: self._prepare(trainer, pl_module))
        if self.samples != "show":
            rank_zero_info(f"TranslationMonitor: {LEFT_OUT[self.samples]}")

    def _prepare(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        loader = loader_name(trainer, self.probe, "fit")
        self._network = resolved(trainer, pl_module, loader, self.given)
        labels = labels_of(trainer, pl_module, loader, self.given, self.batch_to_target)
        network = self._network.of(pl_module)
        read = read_samples(trainer, network, self.probe, loader, self._network.batch_to_inputs, 0, labels)
        inputs: Any = read.inputs
        if not isinstance(inputs, dict) or WRITTEN not in inputs or self.source not in inputs:
            names = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(
                f"TranslationMonitor expected {self.source!r} and {WRITTEN!r} among the network's inputs, but got"
                f" {names}: have the data module or the step make {WRITTEN}, which are the labels one place later."
            )
        if read.labels is None or read.labels.shape != inputs[WRITTEN].shape:
            got = None if read.labels is None else tuple(read.labels.shape)
            expected = tuple(inputs[WRITTEN].shape)
            raise ValueError(
                f"TranslationMonitor expected labels of shape {expected}, a token for each, but got {got}: name them"
                " with batch_to_target=."
            )
        self._read = read
        self._known = self.data_info.completed_by(getattr(trainer, "datamodule", None))

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: "LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw the step if it is due."""
        self._draw_at(trainer, pl_module, self._regular.after_batch(trainer))

    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Draw the epoch if it is due."""
        self._draw_at(trainer, pl_module, self._regular.after_epoch(trainer))

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Draw the end."""
        self._regular.stop()
        self._draw_at(trainer, pl_module, self._regular.at_end())
        if self.samples != "none":
            rank_zero_info(f"TranslationMonitor: figures are in '{self._folder}'. They took {self._budget.sentence()}.")

    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        """Release the samples."""
        unguard(trainer)
        self._regular.stop()
        self._forget()

    def on_exception(self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException) -> None:
        """Release the samples after an exception, when Lightning does not call ``teardown``."""
        self.teardown(trainer, pl_module, "exception")

    def _draw_at(self, trainer: "Trainer", pl_module: "LightningModule", moment: Moment | None) -> None:
        is_first = trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by its connector
        if moment is None or self.samples == "none" or not is_first:
            return
        with self._budget.recurring():
            try:
                self._draw(trainer, pl_module, moment)
            except Exception as error:  # an observer never ends a run
                if not self._has_warned:
                    self._has_warned = True
                    words = " ".join(str(error).split())[:300]
                    rank_zero_warn(
                        "TranslationMonitor cannot draw its figure, and training continues."
                        f" {type(error).__name__}: {words}"
                    )

    def _draw(self, trainer: "Trainer", pl_module: "LightningModule", moment: Moment) -> None:
        from lit_xai.render import figure_to_rgb, save_png
        from lit_xai.render.matrix import matrix_figure

        assert self._read is not None  # prepared before the first step
        inputs: Any = self._read.inputs
        labels = self._read.labels
        assert labels is not None  # checked there
        network, output = self._network.of(pl_module), self._network.output
        with without_log(pl_module):
            size = self.internal_batch_size
            found = source_matrix(network, inputs, labels, source=self.source, output=output, internal_batch_size=size)
            with untouched(network), torch.no_grad():
                guesses = call_network(network, inputs, output=output).argmax(-1)
        figure = matrix_figure(
            found,
            [row[: one.shape[1]] for row, one in zip(_rows(inputs[self.source]), found, strict=True)],
            [row[: len(one)] for row, one in zip(_rows(labels), found, strict=True)],
            predicted=[row[: len(one)] for row, one in zip(_rows(guesses), found, strict=True)],
            token_names=self._known.token_names,
            title=f"LayerIntegratedGradients, baseline padding\n{moment.point}, step {moment.step}",
            shows_inputs=self.samples == "show",
        )
        pixels = figure_to_rgb(figure)
        png = save_png(pixels, self._folder / f"{str(moment.point).replace(' ', '=')}.png")
        log_image(trainer, "attribution/translation", pixels, moment.step, png)


def _rows(values: Tensor) -> list[Tensor]:
    return list(values.detach().cpu())
