"""The explanations of a comparison: each network's of the same samples, and what a picture takes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.baselines import choose_baseline, explained_tensors
from lit_xai.attribution.methods import resolve_method
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec
from lit_xai.network.rows import take
from lit_xai.report.record import Explained
from lit_xai.retention.choosing import choose_places
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.reference import LADDER, ReferenceExplanations
from lit_xai.retention.retention import measure_references
from lit_xai.runtime.file_network import FileNetwork

BACKGROUND = 64
"""Samples that the baselines ``"mean"`` and ``"training"`` are made of."""


@dataclass(frozen=True)
class Maps:
    """Some samples with their explanations by several networks.

    Args:
        explainer: the method's name.
        baseline: its name; empty where the method has none.
        places: of the samples among all, ``(n,)``.
        inputs: what the networks are called with.
        by_network: attributions by input, by network.
        similarity: to the reference's, of every other network, ``(n,)``.
    """

    explainer: str
    baseline: str
    places: Sequence[int]
    inputs: Inputs
    by_network: Mapping[str, Mapping[str, Tensor]]
    similarity: Mapping[str, Tensor]


class Explaining:
    """Explains networks on the samples of a pool.

    Args:
        networks: the reference first.
        inputs: of the pool.
        each_output: whether outputs are values, each explained on its own, rather than scores of classes.
        output: the logits in the output.
        baselines: in place of the explainers' own.
        data_info: the ``mean`` and ``std`` of images, where known.
        seed: of what is drawn.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        inputs: Inputs,
        *,
        each_output: bool,
        output: OutputSpec,
        baselines: Any,
        data_info: Any,
        seed: int,
    ) -> None:
        self.networks, self.inputs = networks, inputs
        self._each, self.output, self.seed = each_output, output, seed
        self._baselines, self._data_info = baselines, data_info
        self._steps: dict[str, int | None] = {}
        self.held = SplitInputs(inputs, any_dtype=True).n

    def choose(self, predictions: Tensor | None, n: int) -> list[int]:
        """Return the places of the samples to explain.

        Args:
            predictions: the class that the reference predicts of each sample; ``None`` where there are none.
            n: how many.
        """
        return choose_places(None if predictions is None else predictions[: self.held], self.held, n)

    def explain(
        self, explainer: Explainer, places: Sequence[int], nulls: int, step: Callable[[], object]
    ) -> tuple[Explained, Maps]:
        """Return what the explanations of all networks have in common with the reference's, and themselves.

        Args:
            explainer: of all networks.
            places: of the samples.
            nulls: untrained networks; of a file's weights none can be drawn.
            step: called after each, by a progress bar.
        """
        reference, maps = self._compared(explainer, places)
        self._steps[explainer.name] = reference.steps
        is_file = isinstance(reference.network, FileNetwork)
        held_against = measure_references(reference, 0 if is_file else nulls, () if is_file else LADDER, step=step)
        arguments = {
            "reference": next(iter(self.networks)),
            "baseline": maps.baseline or "none, as the method takes none",
            "steps": reference.steps,
            "completeness_error": reference.completeness_error,
            "references": {name: float(one.nanmean()) for name, one in held_against.others.items()},
        }
        similarity = {name: one.numpy() for name, one in maps.similarity.items()}
        found = Explained(explainer.name, np.array(places), similarity, held_against.null.numpy(), arguments)
        return found, maps

    def maps(self, explainer: Explainer, places: Sequence[int], names: Sequence[str]) -> Maps:
        """Return the explanations of further samples, with as many steps along a path as those before.

        Args:
            explainer: of all networks.
            places: of the samples.
            names: of networks beside the reference.
        """
        return self._compared(explainer, places, names, self._steps.get(explainer.name))[1]

    def baseline(self, explainer: Explainer, places: Sequence[int]) -> tuple[Any, str]:
        """Return an explainer's baseline for some samples, and its name."""
        given = explainer.baselines if self._baselines is None else self._baselines
        method, inputs = resolve_method(explainer.method), take(self.inputs, list(places), self.held)
        return choose_baseline(inputs, method, given, self._data_info, self._background)

    def removed(self, explainer: Explainer, places: Sequence[int]) -> tuple[Any, str]:
        """Return what stands for removed elements of some samples, and its name: an explainer's baseline, if any.

        Args:
            explainer: of the networks.
            places: of the samples.
        """
        given = explainer.baselines if self._baselines is None else self._baselines
        inputs = take(self.inputs, list(places), self.held)
        # Of one sample for each, where the explainer draws from many; and also where it takes none.
        return choose_baseline(inputs, resolve_method("Occlusion"), given, self._data_info, self._background)

    def _background(self) -> list[Tensor]:
        # There are no training samples: what the networks are compared on stands for them.
        return explained_tensors(take(self.inputs, list(range(min(BACKGROUND, self.held))), self.held))

    def _compared(
        self,
        explainer: Explainer,
        places: Sequence[int],
        names: Sequence[str] | None = None,
        steps: int | None = None,
    ) -> tuple[ReferenceExplanations, Maps]:
        (first, network), *others = self.networks.items()
        baseline, words = self.baseline(explainer, places)
        inputs: Inputs = take(self.inputs, list(places), self.held)
        explain = partial(ReferenceExplanations, network, inputs, explainer, output=self.output)
        reference = explain(baselines=baseline, each_output=self._each, seed=self.seed, steps=steps)
        compared = {name: reference.compare(one) for name, one in others if names is None or name in names}
        by_network = {first: reference.attributions} | {name: one.attributions for name, one in compared.items()}
        similarity = {name: one.similarity for name, one in compared.items()}
        return reference, Maps(explainer.name, words, places, inputs, by_network, similarity)
