"""One evaluation of a probe, written to files and logged as figures and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.explanation import Explanation, by_name, is_multi_hot
from lit_xai.attribution.normalization import find_normalization
from lit_xai.attribution.samples import MADE_OF_SAMPLES, Samples, baseline_arrays, kept_labels
from lit_xai.attribution.words import begins_word
from lit_xai.network.arguments import Inputs
from lit_xai.network.saving import save_arrays
from lit_xai.trainer.batches import datasets
from lit_xai.trainer.logging import log_image, log_scalars

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DataInfo:
    """Facts about the data that figures show.

    Args:
        class_names: of the labels.
        feature_names: of tabular inputs, or of the channels of series.
        input_features: those of each input by its name, where there are several.
        mean: the mean that normalization subtracted, one number per channel or feature.
        std: the standard deviation that it divided by.
        kind: of figure.
        token_names: of the ids of text, one per id.
        feature_groups: the feature that each column of a table belongs to, one per column: a category's columns
            are one feature.
        sample_rate: positions of a series per second.
    """

    class_names: list[str] | None = None
    feature_names: list[str] | None = None
    mean: Any = None
    std: Any = None
    kind: Any = None
    token_names: Sequence[str] | None = None
    feature_groups: Sequence[str] | None = None
    sample_rate: float | None = None
    input_features: Mapping[str, list[str]] | None = None

    def of_input(self, name: str) -> DataInfo:
        """Return the facts about one of several inputs.

        Args:
            name: the input's.

        Example:
            >>> DataInfo(input_features={"genres": ["Drama", "War"]}).of_input("genres").feature_names
            ['Drama', 'War']
        """
        names = (self.input_features or {}).get(name)
        return self if names is None else replace(self, feature_names=names)

    def check_classes(self, logits: Tensor) -> None:
        """Refuse fewer class names than there are outputs ``(N, classes)``: captions would mix names and indices.

        Raises:
            ValueError: says how many were expected.
        """
        outputs = logits.shape[1] if logits.dim() == 2 else 1
        if self.class_names is not None and len(self.class_names) < outputs:
            raise ValueError(f"class_names expected {outputs} names, one per output, but got {len(self.class_names)}.")

    def completed_by(self, datamodule: Any) -> DataInfo:
        """Fill in missing facts from the data module's attributes of the same names."""
        names = tuple(name for name in self.__dataclass_fields__ if name != "kind")
        attributes = {name: getattr(datamodule, name, None) for name in names if getattr(self, name) is None}
        return replace(self, **{name: value for name, value in attributes.items() if not callable(value)})


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation, ready to be reported.

    Args:
        name: the monitor's.
        title: of its figures: method, target, baseline.
        when: ``"epoch 3"``, ``"step 500"``, ``"before training"``, ``"validate"`` or ``"test"``.
        weights: the checkpoint that was loaded for it, if any.
        step: its place on the x-axis.
        samples: the whole probe.
        explanation: of the whole probe.
        metrics: numbers about the explanation's quality, by name.
        has_target: whether the method explains an output; LayerActivation's maps speak for no class.
        shown: what files and figures may hold of samples, one of :data:`~lit_xai.render.samples.SAMPLES`.
    """

    name: str
    title: str
    when: str
    weights: str
    step: int
    samples: Samples
    explanation: Explanation
    metrics: Mapping[str, float] = field(default_factory=dict)
    has_target: bool = True
    shown: str = "show"

    @property
    def tag(self) -> str:
        """The loggers' tag: one for all epochs of a fit, one for ``validate`` and one for ``test``."""
        return f"attribution/{self.name}" + ("" if self.is_training else f"/{self.when}")

    @property
    def is_training(self) -> bool:
        """True if it belongs to a fit; a run's folder holds one fit, but maybe several runs of ``validate``."""
        return self.when not in ("validate", "test")

    @property
    def folder(self) -> str:
        """The name of its folder, ``epoch=3``, ``step=500`` or ``validate-step=120``."""
        return self.when.replace(" ", "=" if self.when.startswith(("epoch", "step")) else "-") + (
            "" if self.is_training else f"-step={self.step}"
        )


def report(
    trainer: Trainer, evaluation: Evaluation, data_info: DataInfo, limits: dict[str, float], folder: Path
) -> None:
    """Write ``attributions.npz`` and ``figure.png``, and log the figure and the numbers, as far as they may be shown.

    Of texts, ``figure.html`` stands beside the figure.

    Args:
        trainer: whose loggers to log to.
        evaluation: the result to report.
        data_info: names and normalization of the data.
        limits: the color limits of the run by input; missing ones are set by this evaluation.
        folder: the monitor's, inside the run's.
    """
    # Imported here: matplotlib is slow to import, and importing a monitor should not need it.
    from lit_xai.render import figure_to_rgb, save_png

    explanation, place = evaluation.explanation, folder / evaluation.folder
    save_arrays(place / "attributions.npz", arrays_of(evaluation))
    numbers = {f"{evaluation.tag}/total": _mean_total(explanation)}
    if explanation.delta is not None:
        numbers[f"{evaluation.tag}/convergence_delta"] = explanation.delta.abs().mean().item()
    numbers |= {f"{evaluation.tag}/{name}": value for name, value in evaluation.metrics.items()}
    log_scalars(trainer, numbers, evaluation.step)
    for name, figure in draw(evaluation, data_info, limits) if evaluation.shown != "none" else ():
        pixels = figure_to_rgb(figure)
        png = place / (f"figure-{name}.png" if name else "figure.png")
        save_png(pixels, png)
        log_image(trainer, f"{evaluation.tag}/{name}" if name else evaluation.tag, pixels, evaluation.step, png)
    # A file alone: TensorBoard's texts escape colors.
    for name, page in pages(evaluation, data_info, limits) if evaluation.shown == "show" else ():
        (place / (f"figure-{name}.html" if name else "figure.html")).write_text(page, encoding="utf-8")


def arrays_of(evaluation: Evaluation) -> dict[str, Tensor]:
    """Return the arrays of ``attributions.npz``.

    Their names follow from network, method and metrics, and not from how a batch is put together: a single explained
    input has no name, and without labels their array is empty. What must not be shown is left out.
    """
    explanation, samples = evaluation.explanation, evaluation.samples
    maps, baselines = explanation.attributions, baseline_arrays(samples)
    named = replace(explanation, attributions=maps if len(maps) > 1 else {"": next(iter(maps.values()))})
    if evaluation.shown == "none":
        named = replace(named, attributions={})
    if evaluation.shown == "none" or (evaluation.shown != "show" and samples.compared in MADE_OF_SAMPLES):
        baselines = {}
    arrays = named.tensors() | {"sample_ids": torch.as_tensor(samples.indices)}
    labels = kept_labels(samples, evaluation.shown)
    arrays |= {"labels": torch.empty(0) if labels is None else labels}
    arrays |= {f"baseline.{name}" if len(baselines) > 1 else "baseline": value for name, value in baselines.items()}
    # A run without a logger keeps them nowhere else.
    return arrays | {
        f"metrics/{name}": torch.tensor(value, dtype=torch.float64) for name, value in evaluation.metrics.items()
    }


def known_about(trainer: Trainer, data_info: DataInfo, samples: Samples) -> DataInfo:
    """Fill in missing facts from the data module, and the normalization from the dataset's transforms.

    Args:
        trainer: inside a stage.
        data_info: what the user gave, which comes first.
        samples: the probe, which a normalization has to suit.
    """
    data_info = data_info.completed_by(getattr(trainer, "datamodule", None))
    explained = SplitInputs(samples.inputs, any_dtype=True)
    if data_info.mean is not None or data_info.std is not None or len(explained.explained) != 1:
        return data_info
    found = find_normalization(datasets(trainer), explained.values[explained.explained[0]])
    return data_info if found is None else replace(data_info, mean=found[0], std=found[1])


def draw(evaluation: Evaluation, data_info: DataInfo, limits: dict[str, float]) -> Iterator[tuple[str, Figure]]:
    """Yield the name of each explained input (``""`` for a single one) and the figure of its attributions.

    Args:
        evaluation: the result to draw.
        data_info: names and normalization of the data.
        limits: the color limits of the run by input; missing ones are set by this evaluation.
    """
    from lit_xai.render import attribution_figure

    for name, inputs, maps, options in _drawings(evaluation, data_info, limits):
        yield name, attribution_figure(inputs, maps, **options)


def pages(evaluation: Evaluation, data_info: DataInfo, limits: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Yield the name of each explained input that has a page of HTML, and the page; arguments as of :func:`draw`."""
    from lit_xai.render import attribution_html

    for name, inputs, maps, options in _drawings(evaluation, data_info, limits):
        page = attribution_html(inputs, maps, **options)
        if page:
            yield name, page


def _drawings(
    evaluation: Evaluation, data_info: DataInfo, limits: dict[str, float]
) -> Iterator[tuple[str, Tensor, Tensor, dict[str, Any]]]:
    """Yield name, input, maps and the rest of what a figure takes, for each explained input."""
    from lit_xai.render import color_limit

    explanation = evaluation.explanation
    answers: dict[str, Any] = {**answers_of(explanation.logits, explanation.labels)}
    if explanation.whole:  # the rows of a figure are not samples
        answers = dict.fromkeys(answers)
    for name, maps in explanation.attributions.items():
        shown = _input_of(evaluation.samples.inputs, name, maps)
        if maps.dim() == 1:  # one number per sample is a table of one column
            shown, maps = shown.reshape(-1, 1), maps.reshape(-1, 1)
        if shown.dim() == 1:  # ids, whose embeddings are tables of factors
            shown = torch.zeros_like(maps)
        if explanation.whole and maps.dim() == 3:  # an image, or one of a list
            shown, maps = shown[None], maps[None]
        shows_inputs = evaluation.shown == "show"
        shown = shown if shows_inputs else torch.zeros_like(shown)  # also for a renderer that asks what suits them
        # A layer's maps have channels, which are no features of the table.
        named = data_info.of_input(name)
        if maps.shape != shown.shape:
            named = replace(named, feature_names=None, feature_groups=None)
        by_word = explanation.words is not None and explanation.words.shape == maps.shape
        if by_word and explanation.words is not None:  # a word of several tokens counts once
            maps = maps * begins_word(explanation.words)
        if maps.any():  # the first map that is not blank sets the color limit of the run
            limits.setdefault(name, color_limit(maps, shown, named.kind, named.feature_groups))
        several = len(explanation.attributions) > 1
        # Inputs with the same names, such as what a user rated and how, are told apart by the title alone.
        title = f"{evaluation.title}, input: {name}" if several else evaluation.title
        yield (
            name if several else "",
            shown,
            maps,
            {
                "title": f"{title}\n{_place(evaluation)}{evaluation.weights}",
                "class_names": data_info.class_names,
                "feature_names": named.feature_names,
                "mean": data_info.mean,
                "std": data_info.std,
                "token_names": data_info.token_names,
                "feature_groups": named.feature_groups,
                "sample_rate": data_info.sample_rate,
                "by_word": by_word,
                "limit": limits.get(name),
                "kind": data_info.kind,
                "ends": _ends(maps, answers, evaluation.has_target),
                "places": () if explanation.whole else explanation.places(),
                "boxes": None if explanation.whole else _boxes(explanation, shown),
                "shows_inputs": shows_inputs,
                **answers,
            },
        )


def _input_of(inputs: Inputs, name: str, maps: Tensor) -> Tensor:
    """Return the input that maps belong to; those of a layer to the tokens, or else to the first input."""
    known, arguments = by_name(inputs), SplitInputs(inputs, any_dtype=True)
    tokens = known.get("input_ids")
    if name not in known and tokens is not None and tokens.shape == maps.shape[:2]:
        return tokens
    return known.get(name, arguments.values[arguments.explained[0]])


def _boxes(explanation: Explanation, shown: Tensor) -> Tensor | None:
    """Return the frames of what was explained, where they are places of this input."""
    if explanation.form is None or explanation.boxes is None:
        return None
    if len(explanation.form.sizes) == 1 and explanation.form.place in ("token", "position"):
        # Tokens of an answer need not be those that were read.
        length = shown.shape[1] if explanation.form.place == "token" else shown.shape[-1]
        return explanation.boxes if length == explanation.form.sizes[0] else None
    return explanation.boxes if shown.dim() > 2 else None


def answers_of(logits: Tensor, labels: Tensor | None) -> dict[str, Tensor | None]:
    """Return labels, predictions and probabilities for a figure's captions, by the shapes of logits and labels.

    Example:
        >>> answers_of(torch.tensor([2.0, -2.0]), torch.tensor([1, 1]))["predictions"]
        tensor([1, 0])
    """
    if logits.dim() == 2 and logits.shape[1] > 1:
        return _answers_of_several_outputs(logits, labels)
    values = logits.reshape(len(logits)).float()
    labels = labels.reshape(-1) if labels is not None and labels.numel() == len(values) else None
    if labels is None or labels.is_floating_point():
        return {"labels": labels, "predictions": values, "probabilities": None}
    # One output and integer labels: the logit of class 1.
    chance = values.sigmoid()
    return {
        "labels": labels,
        "predictions": (chance > 0.5).long(),
        "probabilities": torch.where(chance > 0.5, chance, 1 - chance),  # of the predicted class
    }


def _answers_of_several_outputs(logits: Tensor, labels: Tensor | None) -> dict[str, Tensor | None]:
    if labels is not None and labels.shape == logits.shape:
        # Rows that sum to 1 are class probabilities, as of mixup or one-hot labels, not several labels per sample.
        is_distribution = bool(torch.allclose(labels.float().sum(1), torch.ones(len(labels)), atol=1e-3))
        if not is_distribution and is_multi_hot(labels):
            return {"labels": labels, "predictions": (logits > 0).long(), "probabilities": logits.sigmoid()}
        if not is_distribution:  # the values of several outputs
            return {"labels": None, "predictions": None, "probabilities": None}
        labels = labels.argmax(1)
    chances = logits.float().softmax(1)
    classes = labels if labels is not None and labels.shape == logits.shape[:1] else None
    return {"labels": classes, "predictions": chances.argmax(1), "probabilities": chances.amax(1)}


def _place(evaluation: Evaluation) -> str:
    return evaluation.when if evaluation.when.startswith("step") else f"{evaluation.when}, step {evaluation.step}"


def _ends(maps: Tensor, answers: dict[str, Tensor | None], has_target: bool) -> tuple[str, str]:
    """Name the two ends of the color scale: some methods have no sign or target, and a regression has no class."""
    if not has_target:
        return ("negative" if (maps < 0).any() else "", "positive activation")
    # Grad-CAM, for example, keeps positive evidence alone.
    if not (maps < 0).any():
        return "", "how much it counts"
    return ("against", "for the class") if answers["probabilities"] is not None else ("lowers", "raises value")


def _mean_total(explanation: Explanation) -> float:
    maps = explanation.attributions.values()
    return sum(value.abs().reshape(len(value), -1).sum(1).mean().item() for value in maps)
