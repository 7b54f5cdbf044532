"""The callback that shows the model itself: its graph, its first filters, what its layers return."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.evaluation import DataInfo, answers_of, known_about
from lit_xai.attribution.layer_outputs import LayerOutput, first_filters, layer_outputs
from lit_xai.attribution.samples import Samples, probe_samples
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, call_network
from lit_xai.network.check import check_choice, check_integer
from lit_xai.network.copying import copy_network, uncompiled_
from lit_xai.network.layers import match_layers
from lit_xai.network.probing import Probe
from lit_xai.network.rows import take
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.render.samples import LEFT_OUT, SAMPLES
from lit_xai.trainer.access import is_a, rank_zero_info, without_log
from lit_xai.trainer.logging import log_image, outlived
from lit_xai.trainer.observer import Observer
from lit_xai.trainer.scheduling import Epochs, Steps

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class ModelMonitor(Observer):
    """Show the model in TensorBoard: graph, first filters, layers' outputs for a sample, and samples sorted by them.

    It changes nothing: weights, optimizer, random numbers and losses are bit for bit those of a run without it, and
    what cannot be shown is one warning. Pictures go to every logger that shows images and into the run's folder.

    Args:
        graph: TensorBoard's page of graphs, drawn once, before the first step.
        filters: the first layer's filters, where that reads images: kernels of a convolution, rows of a linear layer.
        activations: what the layers return for the first sample of the probe.
        projector: TensorBoard's page of the embedding projector, at the end of the run: the ``n`` samples by what
            enters the last layer, with labels, predictions and, for images, their pictures.
        every_n_epochs: an integer, or a fraction of the run; the end of the run is always shown.
        every_n_steps: steps of the first optimizer, instead of epochs.
        layers: whose outputs are drawn: names, patterns or classes; by default all that hold weights.
        probe: the sample to draw: its dataset index in a list, or a :class:`~lit_xai.network.probing.Probe`; default
            the first that a probe of one sample chooses.
        n: samples in the projector.
        module: the network inside the LightningModule, a dotted name; by default found by its call.
        batch_to_inputs: the model's inputs in a batch, as for :class:`~lit_xai.AttributionMonitor`.
        batch_to_target: the labels in a batch, likewise.
        output: the logits in its output, likewise.
        class_names: of the labels; default the data module's.
        mean: that normalization subtracted; default the data module's.
        std: that it divided by; default likewise.
        samples: what pictures and the projector may hold of samples: ``"show"``, ``"maps_only"`` (no pictures of
            samples), or ``"none"`` (the graph and the filters alone).
        name: of tags and of the folder.

    Raises:
        ValueError: an argument is out of range; before the first step, ``layers`` matches none.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ModelMonitor(projector=True)], logger=False)
    """

    _sample: Samples | None
    _many: Samples | None

    def __init__(
        self,
        *,
        graph: bool = True,
        filters: bool = True,
        activations: bool = True,
        projector: bool = False,
        every_n_epochs: Epochs = 1,
        every_n_steps: Steps | None = None,
        layers: Sequence[str | type] | str | None = None,
        probe: list[int] | Probe | None = None,
        n: int = 512,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: BatchToTarget = None,
        output: OutputSpec = None,
        class_names: list[str] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        samples: Literal["show", "maps_only", "none"] = "show",
        name: str = "model",
    ) -> None:
        given = Network(module, batch_to_inputs, output)
        super().__init__(name, every_n_epochs, given, batch_to_target, every_n_steps=every_n_steps)
        self.graph, self.filters, self.activations, self.projector = graph, filters, activations, projector
        self.layers = [layers] if isinstance(layers, (str, type)) else layers
        self.samples = check_choice("samples", samples, SAMPLES)
        self.probe = Probe(indices=probe) if isinstance(probe, list) else probe or Probe(n=1)
        self.n = check_integer("n", n)
        self.data_info = DataInfo(class_names, None, mean, std)

    def prepare(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Read the samples."""
        self._sample = probe_samples(self, trainer, pl_module, self.probe)
        if self.layers is not None:
            match_layers(self.network.of(pl_module), self.layers, "layers")
        if self.projector and self.samples != "none":
            self._many = probe_samples(self, trainer, pl_module, Probe(n=self.n, loader=self._sample.loader))
        self._known = known_about(trainer, self.data_info, self._sample)

    def begin(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Draw the graph."""
        if self.samples != "show":
            rank_zero_info(f"ModelMonitor: {LEFT_OUT[self.samples]}")
        if self.graph:
            self.attempt(trainer, "the graph", lambda: self._log_graph(trainer, pl_module))

    def observe(self, trainer: "Trainer", pl_module: "LightningModule", when: str, step: int) -> None:
        """Draw filters and layers."""
        shows_layers = self.activations and self.samples != "none"
        if shows_layers or self.filters:
            self._draw(trainer, pl_module, when, step, shows_layers)

    def finish(self, trainer: "Trainer", pl_module: "LightningModule", step: int) -> None:
        """Fill the projector."""
        if (many := self._many) is not None:
            self.attempt(trainer, "the projector", lambda: self._log_projector(trainer, pl_module, many, step))

    def release(self) -> None:
        """Drop the samples."""
        self._sample = self._many = None

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _draw(self, trainer: "Trainer", pl_module: "LightningModule", when: str, step: int, shows_layers: bool) -> None:
        from lit_xai.render.filters import filters_figure, layers_figure

        sample = self._sample
        assert sample is not None  # prepared before the first step
        network, place = self.network.of(pl_module), f"{when}, step {step}"
        image = _image(sample.inputs)
        outputs = layer_outputs(network, sample.inputs, output=self.network.output)
        filters = first_filters(network, image, outputs) if self.filters and image is not None else None
        if self.layers is not None:
            outputs = layer_outputs(network, sample.inputs, layers=self.layers, output=self.network.output)
        if filters is not None:
            figure = filters_figure(filters, title=f"Filters of the first layer\n{place}")
            self._keep(trainer, figure, "filters", when, step)
        if shows_layers and outputs:
            parts = [(one.name or one.kind, one.values[0]) for one in outputs if len(one.values)]
            picture = image[0] if image is not None and self.samples == "show" else None
            title = f"What the layers return for one sample\n{place}"
            figure = layers_figure(parts, picture=picture, title=title, mean=self._known.mean, std=self._known.std)
            self._keep(trainer, figure, "activations", when, step)

    def _keep(self, trainer: "Trainer", figure: Any, name: str, when: str, step: int) -> None:
        from lit_xai.render import figure_to_rgb, save_png

        pixels = figure_to_rgb(figure)
        png = save_png(pixels, self.folder / f"{name}-{when.replace(' ', '=')}.png")
        log_image(trainer, f"{self.name}/{name}", pixels, step, png)

    def _log_graph(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        assert self._sample is not None  # prepared
        boards = [logger for logger in trainer.loggers if is_a(logger, "TensorBoardLogger")]
        if not boards:
            return
        # A copy, since tracing leaves marks; one sample, since every size would do.
        copied = uncompiled_(copy_network(self.network.of(pl_module)))
        if is_a(copied, "LightningModule"):
            called_by: Any = copied
            called_by.trainer = trainer  # tracing reads every property, and without one this one raises
        called = _Positional(copied, self._sample.inputs, self.network.output)
        # What tracing warns of is how a trace generalizes, and this one is only looked at; a failure prints and raises.
        with untouched(called), torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for logger in boards:
                logger.experiment.add_graph(called, called.tensors)  # type: ignore[attr-defined]  # is_a narrows no type

    def _log_projector(self, trainer: "Trainer", pl_module: "LightningModule", many: Samples, step: int) -> None:
        network = self.network.of(pl_module)
        with without_log(pl_module):
            outputs = layer_outputs(network, many.inputs, output=self.network.output)
            with untouched(network), torch.no_grad():
                logits = call_network(network, many.inputs, output=self.network.output)
        points = _embedding(outputs, len(many.indices))
        rows = _rows(many, logits.detach().cpu(), self._known.class_names)
        pictures = self._pictures(many.inputs)
        for logger in trainer.loggers:
            if is_a(logger, "TensorBoardLogger"):
                board: Any = logger
                outlived(
                    logger,
                    lambda board=board: board.experiment.add_embedding(  # type: ignore[misc]  # bound at once
                        points, rows, pictures, step, f"{self.name}/embedding", ["index", "label", "prediction"]
                    ),
                )

    def _pictures(self, inputs: Inputs) -> Tensor | None:
        from lit_xai.render.pixels import to_pixels
        from lit_xai.render.shares import to_array

        image = _image(inputs)
        if image is None or self.samples != "show":
            return None
        pixels = to_pixels(to_array(image, "inputs"), self._known.mean, self._known.std)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


class _Positional(nn.Module):
    """A network that is called with tensors in order, as tracing needs it."""

    def __init__(self, network: nn.Module, inputs: Inputs, output: OutputSpec) -> None:
        super().__init__()
        self.network, self._output = network, output
        one = take(inputs, [0], _count(inputs))
        self._names = list(one) if isinstance(one, dict) else None
        self.tensors = tuple(one.values()) if isinstance(one, dict) else one if isinstance(one, tuple) else (one,)

    def forward(self, *tensors: Any) -> Any:
        """Return the logits."""
        given: Any = dict(zip(self._names, tensors, strict=True)) if self._names else tensors
        return call_network(self.network, given if self._names or len(tensors) > 1 else tensors[0], output=self._output)


def _count(inputs: Inputs) -> int:
    return SplitInputs(inputs, any_dtype=True).n


def _image(inputs: Inputs) -> Tensor | None:
    """Return the one input, where it is images ``(N, C, H, W)``."""
    given = SplitInputs(inputs, any_dtype=True)
    first = given.values[given.explained[0]] if len(given.explained) == 1 else None
    is_image = isinstance(first, Tensor) and first.dim() == 4 and first.shape[1] in (1, 3, 4)
    return first.detach().float().cpu() if is_image and first is not None else None


def _embedding(outputs: Sequence[LayerOutput], n: int) -> Tensor:
    """Return what enters the last layer that reads one row for each sample, ``(N, features)``."""
    entered = [one.inputs for one in outputs if one.inputs is not None and len(one.inputs) == n]
    if not entered:
        raise ValueError("no layer with weights reads one row for each sample")
    return entered[-1].flatten(1).float()


def _rows(samples: Samples, logits: Tensor, class_names: Sequence[str] | None) -> list[list[str]]:
    answers = answers_of(logits, samples.labels) if logits.dim() <= 2 else {}

    def words(name: str, row: int) -> str:
        values = answers.get(name)
        value = "" if values is None else values[row]
        if isinstance(value, Tensor) and value.dim() == 0 and class_names and not value.is_floating_point():
            return class_names[int(value)] if 0 <= int(value) < len(class_names) else str(int(value))
        return str(value.tolist()) if isinstance(value, Tensor) else value

    return [[str(index), words("labels", i), words("predictions", i)] for i, index in enumerate(samples.indices)]
