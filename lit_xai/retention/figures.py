"""Explanations before and after as figures of a run: the same samples at every evaluation, and a gallery at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.evaluation import DataInfo, answers_of
from lit_xai.attribution.explanation import by_name
from lit_xai.attribution.words import begins_word
from lit_xai.network.arguments import Inputs
from lit_xai.retention.pool import are_values
from lit_xai.trainer.logging import log_image

MOST = 8
"""Samples on a figure."""


@dataclass(frozen=True)
class BothMaps:
    """The explanations of all samples, by the reference and now.

    Args:
        inputs: what the network is called with.
        reference: the reference's attributions by input, ``(N, ...)``.
        present: those of the network now.
        similarity: of each sample, ``(N,)``.
        reference_logits: of the same samples.
        logits: of the network now.
        labels: if there are any.
        words: the number of the word that each token of a text belongs to, ``(N, T)``, where words are explained whole.
    """

    inputs: Inputs
    reference: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    similarity: Tensor
    reference_logits: Tensor
    logits: Tensor
    labels: Tensor | None
    words: Tensor | None = None

    @property
    def has_classes(self) -> bool:
        """Whether predictions are classes."""
        shape = tuple(self.logits.shape)
        return len(shape) == 2 and shape[1] > 1 and not are_values(self.labels, shape)

    @property
    def flipped(self) -> Tensor:
        """Whether the prediction is another one now, ``(N,)``; nowhere where there are no classes."""
        if not self.has_classes:
            return torch.zeros(len(self.similarity), dtype=torch.bool)
        return self.logits.argmax(1).cpu() != self.reference_logits.argmax(1).cpu()

    def answers(self, logits: Tensor, rows: list[int]) -> dict[str, Tensor | None]:
        """Return labels and predictions of some samples, as captions take them.

        Args:
            logits: of the reference or the network now.
            rows: the samples.
        """
        are_many = logits.dim() > 2  # of pixels or tokens, and so are labels
        several = logits.dim() == 2 and logits.shape[1] > 1
        if are_many or (several and are_values(self.labels, tuple(logits.shape))):
            return dict.fromkeys(("labels", "predictions", "probabilities"))
        has_rows = self.labels is not None and self.labels.shape in (logits.shape, logits.shape[:1], (len(logits), 1))
        return answers_of(logits[rows], self.labels[rows] if has_rows and self.labels is not None else None)

    def groups(self) -> dict[str, list[int]]:
        """Return the places of the samples of a gallery, by the words that name them.

        Those whose prediction flipped, and apart from them those whose explanation changed most: the second group is
        not the first one over again.
        """
        order, flipped = self.similarity.argsort().tolist(), self.flipped.tolist()
        found = {True: [i for i in order if flipped[i]], False: [i for i in order if not flipped[i]]}
        equal = "equal prediction" if self.has_classes else "sample"
        return {
            f"flipped: {_counted(found[True], 'flipped prediction')}": found[True][:MOST],
            f"changed: {_counted(found[False], equal)}, most changed": found[False][:MOST],
        }


def _counted(places: Sequence[int], kind: str) -> str:
    count = f"{MOST} of {len(places)}" if len(places) > MOST else str(len(places))
    return f"{count} {kind}{'s' * (len(places) != 1)}"


class Figures:
    """Draws a run's figures, all on the color scale of the first.

    Args:
        title: of each: explainer and reference.
        folder: for the PNG files.
        data_info: names and normalization of the data.
        shows_inputs: whether the inputs themselves are drawn.

    Attributes:
        seconds: that the last one took.
    """

    def __init__(self, title: str, folder: Path, data_info: DataInfo, shows_inputs: bool = True) -> None:
        self._title, self._folder, self._data_info = title, folder, data_info
        self._shows_inputs = shows_inputs
        self._limits: dict[str, float] = {}
        self.seconds = 0.0

    def evaluation(self, trainer: Any, maps: BothMaps, when: str, step: int) -> None:
        """Draw the first samples (of a table all), and log the figure.

        Args:
            trainer: whose loggers to log to.
            maps: of all samples.
            when: ``"epoch 3"``.
            step: its place on the x-axis.
        """
        began = time.monotonic()
        self._draw(trainer, maps, "", when, when.replace(" ", "="), step, list(range(MOST)))
        self.seconds = time.monotonic() - began

    def gallery(self, trainer: Any, maps: BothMaps, step: int) -> None:
        """Draw the samples whose prediction flipped, and those whose explanation changed most.

        Args:
            trainer: whose loggers to log to.
            maps: of all samples.
            step: its place on the x-axis.
        """
        for words, places in maps.groups().items():
            name, _, what = words.partition(": ")
            if places:
                self._draw(trainer, maps, f"/{name}", what, name, step, places)

    def _draw(
        self, trainer: Any, maps: BothMaps, tag: str, words: str, file: str, step: int, places: Sequence[int]
    ) -> None:
        from lit_xai.render import color_limit, figure_to_rgb, retention_figure, save_png
        from lit_xai.render.captions import ends_of

        arguments = SplitInputs(maps.inputs, any_dtype=True)
        inputs = by_name(maps.inputs)
        first = arguments.values[arguments.explained[0]]  # a layer's maps belong to the first input
        for name, reference in maps.reference.items():
            shown, present = inputs.get(name, first), maps.present[name]
            if reference.dim() == 1:
                shown, reference, present = (value.reshape(-1, 1) for value in (shown, reference, present))
            if shown.dim() == 1:  # ids, whose embeddings are tables of factors
                shown = torch.zeros_like(reference)
            by_word = maps.words is not None and maps.words.shape == reference.shape
            if by_word and maps.words is not None:  # a word of several tokens counts once
                reference, present = (value * begins_word(maps.words) for value in (reference, present))
            info = self._data_info.of_input(name)
            if reference.shape != shown.shape:  # a layer's channels are no features of the table
                info = replace(info, feature_names=None, feature_groups=None)
            if name not in self._limits and reference.any():
                self._limits[name] = color_limit(reference, shown, feature_groups=info.feature_groups)
            is_table = reference.dim() == 2 and shown.is_floating_point() and not tag
            rows = [i for i in places if i < len(reference)] if not is_table else list(range(len(reference)))
            before, now = (maps.answers(logits, rows) for logits in (maps.reference_logits, maps.logits))
            figure = retention_figure(
                shown[rows],
                reference[rows],
                present[rows],
                similarity=maps.similarity[rows],
                title=f"{self._title}{f', input: {name}' if len(maps.reference) > 1 else ''}\n{words}",
                labels=now["labels"],
                reference_predictions=before["predictions"],
                predictions=now["predictions"],
                class_names=info.class_names,
                feature_names=info.feature_names,
                feature_groups=info.feature_groups,
                mean=info.mean,
                std=info.std,
                limit=self._limits.get(name),
                ends=ends_of([reference, present], before["probabilities"] is not None),
                shows_inputs=self._shows_inputs,
                sample_rate=self._data_info.sample_rate,
                token_names=info.token_names,
                by_word=by_word,
            )
            several = f"-{name}" if len(maps.reference) > 1 else ""
            pixels = figure_to_rgb(figure)
            png = save_png(pixels, self._folder / f"{file}{several}.png")
            log_image(trainer, f"retention/maps{tag}{several.replace('-', '/', 1)}", pixels, step, png)
