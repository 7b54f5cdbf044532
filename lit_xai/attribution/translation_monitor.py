"""The callback that shows what an encoder-decoder writes, and what each token of it owes to what was read."""

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lit_xai.attribution.evaluation import DataInfo
from lit_xai.attribution.samples import Samples, probe_samples
from lit_xai.attribution.source_matrix import WRITTEN, source_matrix
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, call_network
from lit_xai.network.check import check_choice, check_integer
from lit_xai.network.probing import Probe, as_probe
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.render.samples import LEFT_OUT, SAMPLES
from lit_xai.trainer.access import rank_zero_info
from lit_xai.trainer.logging import log_image
from lit_xai.trainer.observer import Observer
from lit_xai.trainer.scheduling import Epochs, Steps

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class TranslationMonitor(Observer):
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
        name: of the tag and of the folder.

    Raises:
        ValueError: an argument is out of range; before the first step, the network reads no ``decoder_input_ids``, or
            labels are not one row of tokens for each sample.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[TranslationMonitor()], logger=False)
    """

    within = "attribution"
    _read: Samples | None

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
        name: str = "translation",
    ) -> None:
        given = Network(module, batch_to_inputs, output)
        super().__init__(name, every_n_epochs, given, batch_to_target, every_n_steps=every_n_steps)
        self.probe, self.source = as_probe(probe), source
        self.samples = check_choice("samples", samples, SAMPLES)
        self.internal_batch_size = check_integer("internal_batch_size", internal_batch_size)
        self.data_info = DataInfo(token_names=token_names)

    def prepare(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Read the samples, and refuse networks that are no encoder-decoders."""
        read = probe_samples(self, trainer, pl_module, self.probe)
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

    def begin(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Say what is left out."""
        if self.samples != "show":
            rank_zero_info(f"TranslationMonitor: {LEFT_OUT[self.samples]}")

    def release(self) -> None:
        """Drop the samples."""
        self._read = None

    def observe(self, trainer: "Trainer", pl_module: "LightningModule", when: str, step: int) -> None:
        """Draw the matrices."""
        if self.samples == "none":
            return
        from lit_xai.render import figure_to_rgb, save_png
        from lit_xai.render.matrix import matrix_figure

        assert self._read is not None  # prepared before the first step
        inputs: Any = self._read.inputs
        labels = self._read.labels
        assert labels is not None  # checked there
        network, output = self.network.of(pl_module), self.network.output
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
            title=f"LayerIntegratedGradients, baseline padding\n{when}, step {step}",
            shows_inputs=self.samples == "show",
        )
        pixels = figure_to_rgb(figure)
        png = save_png(pixels, self.folder / f"{when.replace(' ', '=')}.png")
        log_image(trainer, f"{self.within}/{self.name}", pixels, step, png)


def _rows(values: Tensor) -> list[Tensor]:
    return list(values.detach().cpu())
