"""The callback that draws what each feature of a table adds to the output, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.dependence import partial_dependence, score_of
from lit_xai.attribution.evaluation import DataInfo
from lit_xai.models.additive import NeuralAdditiveModel
from lit_xai.models.linear import LinearModel
from lit_xai.network.calling import BatchToInputs, OutputSpec, call_network
from lit_xai.network.check import check_integer, refusal
from lit_xai.network.saving import save_arrays
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.render.curves import Curve
from lit_xai.render.groups import group_columns, group_names
from lit_xai.render.tabular import feature_labels
from lit_xai.trainer.logging import log_image
from lit_xai.trainer.observer import Observer
from lit_xai.trainer.scheduling import Epochs

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class PartialDependence(Observer):
    """Draw the mean output along each feature of a table, after every so many epochs, leaving the training untouched.

    Each curve has mean zero over the samples. Of an additive model, such as
    :class:`~lit_xai.models.NeuralAdditiveModel`, they are its shape functions, and the figure says that they are exact.
    The figure and ``curves.npz`` go to the run's folder.

    Args:
        target: the class whose logit is meant; default the only output, or the log odds of the second of two classes.
        n: validation samples that the mean is over (training samples without validation data).
        points: of each curve, from the 1st to the 99th percentile of the samples.
        every_n_epochs: an integer, or a fraction of the run; the last epoch is always drawn.
        name: of tag and folder.
        module: the network inside the LightningModule; default the LightningModule itself.
        batch_to_inputs: the network's inputs in a batch; default those of the module's own step.
        output: the logits in its output.
        class_names: of the labels; default the data module's.
        feature_names: of the columns; default the data module's.
        seed: of the choice of samples.

    Raises:
        ValueError: an argument is out of range; or, before the first step, inputs are no table ``(N, features)``, or
            there are more than two classes and no ``target``.

    Example:
        >>> PartialDependence(every_n_epochs=5).name
        'dependence'
    """

    def __init__(
        self,
        target: int | None = None,
        n: int = 500,
        points: int = 40,
        every_n_epochs: Epochs = 1,
        name: str = "dependence",
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
        class_names: list[str] | None = None,
        feature_names: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, every_n_epochs, Network(module, batch_to_inputs, output), None, seed)
        self.target = target if target is None else check_integer("target", target, 0)
        self.n, self.points = check_integer("n", n, 2), check_integer("points", points, 2)
        self._info = DataInfo(class_names, feature_names)

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the samples, and refuse what has no curves."""
        has_validation = trainer.val_dataloaders is not None and trainer.val_dataloaders != []
        rows = self.read(trainer, pl_module, "val" if has_validation else "train", self.n)
        split = SplitInputs(rows.inputs, any_dtype=True)
        inputs = split.values[split.explained[0]]
        if len(split.explained) != 1 or inputs.dim() != 2 or not inputs.is_floating_point():
            what = f"{len(split.explained)} inputs, the first of shape {tuple(inputs.shape)}"
            raise refusal("inputs", "one table (N, features) of real numbers", what)
        network = self.network.of(pl_module)
        with untouched(network), torch.no_grad():
            logits = call_network(network, inputs[:2], "forward", self.network.output)
        score_of(logits, self.target)
        self._inputs, self._outputs = inputs, 1 if logits.dim() == 1 else logits.shape[1]
        info = self._info.completed_by(getattr(trainer, "datamodule", None))
        self._known, width = info, inputs.shape[1]
        self._names = feature_labels(info.feature_names, width)
        self._owners = [str(one) for one in info.feature_groups] if info.feature_groups is not None else self._names
        group_columns(self._owners, width)  # refuses another number of them

    def observe(self, trainer: Trainer, pl_module: LightningModule, when: str, step: int) -> None:
        """Draw the curves of this moment."""
        from lit_xai.render.curves import curves_figure
        from lit_xai.render.png import figure_to_rgb, save_png

        network = self.network.of(pl_module)
        features = zip(group_names(self._owners), group_columns(self._owners, len(self._names)), strict=True)
        curves = [self._curve(network, name, columns) for name, columns in features]
        is_additive = isinstance(network, (NeuralAdditiveModel, LinearModel)) or isinstance(
            getattr(network, "network", None), (NeuralAdditiveModel, LinearModel)
        )
        kind = "Shape functions of an additive model" if is_additive else "Partial dependence"
        summary = f"change of {self._what()} against the mean of {len(self._inputs)} samples"
        summary += ": their sum is the model" if is_additive else ", other features as they are in the data"
        figure = curves_figure(curves, f"{kind}\n{when}, step {step}", f"{summary}\ngray: how the values are spread")
        pixels, place = figure_to_rgb(figure), self.folder / when.replace(" ", "=")
        png = save_png(pixels, place / "figure.png")
        arrays = {f"{one.name}/effects": torch.from_numpy(one.effects) for one in curves}
        arrays |= {f"{one.name}/values": torch.from_numpy(one.values) for one in curves}
        save_arrays(place / "curves.npz", arrays)
        log_image(trainer, self.name, pixels, step, png)

    def _curve(self, network: torch.nn.Module, name: str, columns: list[int]) -> Curve:
        own = self._inputs[:, columns]
        if len(columns) > 1:
            return self._categories(network, name, columns, own)
        low, high = (torch.quantile(own[:, 0].float(), share) for share in (0.01, 0.99))
        grid = torch.linspace(float(low), float(high), self.points)[:, None]
        # The mean over the data, which the curve is held against, is that of the samples' own values on it.
        effects = partial_dependence(network, self._inputs, columns, grid, self.target, self.network.output)
        values, data = (self._before(one, columns[0]) for one in (grid[:, 0], own[:, 0]))
        center = np.interp(data, values, effects.double().numpy()).mean()
        return Curve(name, values, effects.double().numpy() - center, data)

    def _categories(self, network: torch.nn.Module, name: str, columns: list[int], own: Tensor) -> Curve:
        raw = np.stack([self._before(own[:, k], column) for k, column in enumerate(columns)], 1)
        grid = torch.eye(len(columns))
        mean, std = (self._number(one, columns) for one in (self._known.mean, self._known.std))
        grid = (grid - mean) / std if mean is not None and std is not None else grid
        effects = partial_dependence(network, self._inputs, columns, grid, self.target, self.network.output)
        shares = raw.mean(0)  # how often each category occurs
        found = effects.double().numpy()
        names = [self._names[column].removeprefix(f"{name}=") for column in columns]
        return Curve(name, np.arange(len(columns), dtype=float), found - float((found * shares).sum()), None, names)

    def _before(self, values: Tensor, column: int) -> np.ndarray:
        """Return a column's values as they were before normalization, where that is known."""
        mean, std = (self._number(one, [column]) for one in (self._known.mean, self._known.std))
        found = values.double().cpu()
        return (found if mean is None or std is None else found * std + mean).numpy()

    def _number(self, given: object, columns: list[int]) -> Tensor | None:
        if given is None:
            return None
        known = torch.as_tensor(given, dtype=torch.float64).reshape(-1)
        return known[columns] if len(known) == len(self._names) else None

    def _what(self) -> str:
        names, place = self._known.class_names, 1 if self._outputs == 2 and self.target is None else self.target
        if self._outputs == 1 or place is None:
            return "the output"
        name = names[place] if names is not None and place < len(names) else f"class {place}"
        return f"the log odds of {name}" if self.target is None else f"the logit of {name}"
