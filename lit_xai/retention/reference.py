"""The explanations of a reference, and what other networks' are held against."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.explanation import Explanation
from lit_xai.attribution.methods import resolve_method
from lit_xai.attribution.promises import promises
from lit_xai.attribution.words import begins_word
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.describing import describe
from lit_xai.network.untouched import untouched
from lit_xai.retention.changed_networks import rounded_copy, untrained_copy
from lit_xai.retention.explainer import Explainer, completeness_error, explain_fully, of_elements
from lit_xai.retention.similarity import SIMILARITIES, is_zero, maps_of

NULLS = 10
"""Untrained networks that a reference is held against."""

LADDER = (8, 6, 4, 3)
"""Bits of the reference's own weights."""


@dataclass(frozen=True)
class Compared:
    """A network's explanations beside those of the reference.

    Args:
        similarity: of each sample, ``(N,)``.
        maps: ``(N, D)``.
        logits: of the network, ``(N, classes)`` or ``(N,)``.
        attributions: by input, shaped like it.
        is_zero: whether the network or the reference explains nothing, ``(N,)``.
    """

    similarity: Tensor
    maps: Tensor
    logits: Tensor
    attributions: dict[str, Tensor]
    is_zero: Tensor


class ReferenceExplanations:
    """The explanations of a reference on fixed samples.

    Other networks are explained by the same outputs (the reference's predictions, or its highest pixel, token or box),
    with the same baseline, steps and random numbers.

    Args:
        network: the reference, left unchanged.
        inputs: what it is called with, ``(N, ...)``.
        explainer: of both.
        output: where the logits are in its output.
        baselines: in place of the explainer's, as tensors structured like the inputs.
        similarity: ``"cosine"`` or ``"rank"``, both signed.
        mask: ``(N, D)``, False where there is nothing to explain; default the inputs' ``attention_mask``, if they have
            one of the maps' shape.
        each_output: explain every output on its own, as of a regression of several values, rather than the highest.
        steps: along the path; default as many as attributions need to add up.
        logits: of the reference for these inputs, ``(N, ...)``, if they are known: it is not run for them again.
        seed: of explainers that draw, and of all networks and orders that are drawn here.

    Attributes:
        measured: the similarity of networks that are measured once, ``(N,)``, by name.

    Raises:
        ValueError: as for :func:`~lit_xai.functional.attribute`.

    Example:
        >>> network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> reference = ReferenceExplanations(network, torch.randn(40, 6), Explainer())
        >>> round(float(reference.compare(network).similarity.mean()), 6)
        1.0
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Inputs,
        explainer: Explainer,
        *,
        output: OutputSpec = None,
        baselines: Any = None,
        similarity: str = "cosine",
        mask: Tensor | None = None,
        each_output: bool = False,
        steps: int | None = None,
        logits: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.network, self.inputs, self.explainer, self.seed = network, inputs, explainer, seed
        self._output, self._kind, self._similar = output, similarity, SIMILARITIES[similarity]
        self._baselines = explainer.baselines if baselines is None else baselines
        self._steps = steps
        self._each = each_output
        self.measured: dict[str, Tensor] = {}
        first, self.steps = self._explain(network, {"target": "prediction"}, known=_known(logits))
        self.explanations = [first]
        self._steps = self.steps
        n = first.logits.shape[1] if first.logits.dim() == 2 else 1
        if each_output and n > 1:
            self.explanations = self._explain_each(network, [{"target": k} for k in range(n)], known=_known(first))
        self.maps = self._maps(self.explanations)
        self._mask = self._left_out() if mask is None else mask

    @property
    def n(self) -> int:
        """The number of samples; 1 where they cannot be told apart."""
        return len(self.maps)

    @property
    def logits(self) -> Tensor:
        """Of the reference."""
        return self.explanations[0].logits

    @property
    def attributions(self) -> dict[str, Tensor]:
        """Of the reference, by input."""
        return self.explanations[0].attributions

    @cached_property
    def predictions(self) -> Tensor | None:
        """The class that the reference predicts for each sample; ``None`` where there are no classes."""
        logits = self.logits
        return logits.argmax(1) if logits.dim() == 2 and logits.shape[1] > 1 and not self._each else None

    @cached_property
    def completeness_error(self) -> float | None:
        """The median gap between attributions and the change of the output; ``None`` for methods without."""
        return completeness_error(self.explanations[0])

    @cached_property
    def hash(self) -> str:
        """A checksum of the reference's weights, the samples and the explainer."""
        digest = hashlib.sha256(repr((self.explainer, self.steps, self.seed, self._each, self._kind)).encode())
        if self._mask is not None:
            digest.update(self._mask.cpu().bool().numpy().tobytes())
        for name, value in self.network.state_dict().items():
            if isinstance(value, Tensor):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(self.maps.numpy().tobytes())
        return digest.hexdigest()[:32]

    def agree(self, logits: Tensor) -> Tensor | None:
        """Return for which samples another network predicts the same, ``(N,)``; ``None`` where there are no classes."""
        return None if self.predictions is None else logits.argmax(1).cpu() == self.predictions.cpu()

    def compare(self, network: nn.Module, seed: int | None = None, logits: Tensor | None = None) -> Compared:
        """Explain another network by the same outputs.

        Args:
            network: left unchanged.
            seed: of an explainer that draws; default the reference's.
            logits: of the network for these inputs, if they are known.

        Raises:
            ValueError: its output has another form.
        """
        given = [of_elements(one) for one in self.explanations]
        if self._each and len(self.explanations) > 1:
            given = [{"target": k} for k in range(len(self.explanations))]
        found = self._explain_each(network, given, seed, _known(logits))
        if found[0].logits.shape[1:] != self.logits.shape[1:]:
            raise ValueError(
                f"The reference gives {describe(self.logits)}, but the network {describe(found[0].logits)}: they"
                " expected the same outputs, such as the same classes."
            )
        maps = self._maps(found)
        if maps.shape != self.maps.shape:
            raise ValueError(
                f"{self.explainer.name} gives maps of {tuple(maps.shape[1:])} for the network, but of"
                f" {tuple(self.maps.shape[1:])} for the reference: explain a layer whose width stays, or the input."
            )
        nothing = is_zero(maps) | is_zero(self.maps)
        return Compared(self._similarity(maps), maps, found[0].logits, found[0].attributions, nothing)

    # --- references -----------------------------------------------------------------------------------------------

    def nulls(self, n: int = NULLS, step: Callable[[], object] = lambda: None) -> Tensor:
        """Return the similarity of untrained networks of the reference's architecture, ``(n, N)``.

        Args:
            n: how many.
            step: called after each, by a progress bar.
        """
        rows = []
        for name, make in self.networks(n, ()).items():
            rows.append(self.similarity_of(name, make))
            step()
        return torch.stack(rows) if rows else torch.empty(0, self.n, dtype=torch.float64)

    def untrained(self, number: int) -> nn.Module:
        """Return one untrained network of the reference's architecture.

        Args:
            number: each has weights of its own.
        """
        return untrained_copy(self.network, self.seed + 1000 + number, self._run)

    def ladder(self, bits: Iterable[int] = LADDER) -> Iterator[tuple[int, Tensor]]:
        """Yield numbers of bits, and the similarity of the reference with weights of so many bits, ``(N,)``."""
        for number in bits:
            ((name, make),) = self.networks(0, [number]).items()
            yield number, self.similarity_of(name, make)

    def networks(self, nulls: int = NULLS, ladder: Iterable[int] = LADDER) -> Mapping[str, Callable[[], nn.Module]]:
        """Return what makes the untrained networks and those of fewer bits, by name.

        Args:
            nulls: how many untrained networks.
            ladder: numbers of bits.
        """
        untrained = {f"untrained {number}": partial(self.untrained, number) for number in range(nulls)}
        return untrained | {f"{bits} bits": partial(rounded_copy, self.network, bits) for bits in ladder}

    def similarity_of(self, name: str, make: Callable[[], nn.Module]) -> Tensor:
        """Return the similarity of a network, ``(N,)``, which is made and explained once.

        Args:
            name: of the network.
            make: returns it.
        """
        if name not in self.measured:
            self.measured[name] = self.compare(make()).similarity
        return self.measured[name]

    def of_same_class(self) -> Tensor | None:
        """Return the similarity of each sample's map to that of another sample with the same prediction, ``(N,)``.

        NaN for a sample whose class no other has; ``None`` where there are no classes.
        """
        if self.predictions is None:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        partner = torch.arange(self.n)
        for one in self.predictions.unique():
            places = (self.predictions.cpu() == one.cpu()).nonzero().flatten()
            order = places[torch.randperm(len(places), generator=generator)]
            partner[order] = order.roll(1)
        similar = self._similarity(self.maps[partner])
        return torch.where(partner == torch.arange(self.n), torch.nan, similar)

    def of_input(self) -> Tensor | None:
        """Return the similarity of each sample's map to the sample itself, less its baseline, ``(N,)``.

        ``None`` where the maps are not of the input, or the input is made of tokens, whose numbers are names.
        """
        if self.explainer.is_layer or self.explanations[0].whole:
            return None
        arguments = SplitInputs(self.inputs, any_dtype=True)
        if not all(arguments.values[i].is_floating_point() for i in arguments.explained):
            return None
        parts = arguments.like_inputs(self._given_baselines(), "baselines") or (0,) * len(arguments.explained)
        values = {
            arguments.names[i]: arguments.values[i] - part for i, part in zip(arguments.explained, parts, strict=True)
        }
        maps = maps_of(values).repeat(1, len(self.explanations))  # for each output
        return self._similarity(maps) if maps.shape == self.maps.shape else None

    def of_shuffled(self) -> Tensor:
        """Return the similarity of each map to itself in another order, ``(N,)``: for text, say, which has no places
        that mean the same in every sample."""
        generator = torch.Generator().manual_seed(self.seed)
        orders = torch.stack([torch.randperm(self.maps.shape[1], generator=generator) for _ in range(self.n)])
        return self._similarity(self.maps.gather(1, orders))

    def of_another_draw(self) -> Tensor | None:
        """Return the similarity of the reference to itself with other random numbers; ``None`` if none are drawn."""
        draws = promises(resolve_method(self.explainer.method)).draws or self.explainer.noise_tunnel is not None
        return self.compare(self.network, self.seed + 1).similarity if draws else None

    # --- parts ----------------------------------------------------------------------------------------------------

    def _explain_each(
        self,
        network: nn.Module,
        given: list[dict[str, Any]],
        seed: int | None = None,
        known: Explanation | None = None,
    ) -> list[Explanation]:
        """Explain several outputs, whose logits are those of one pass."""
        found: list[Explanation] = []
        for one in given:
            found.append(self._explain(network, one, seed, known)[0])
            known = _known(found[0]) if known is None else known
        return found

    def _explain(
        self,
        network: nn.Module,
        given: dict[str, Any],
        seed: int | None = None,
        known: Explanation | None = None,
    ) -> tuple[Explanation, int | None]:
        return explain_fully(
            network,
            self.inputs,
            self.explainer,
            self._steps,
            output=self._output,
            baselines=self._given_baselines(),
            seed=self.seed if seed is None else seed,
            known=known,
            **given,
        )

    def _given_baselines(self) -> Any:
        return None if self._baselines == "zero" else self._baselines

    def _maps(self, explanations: list[Explanation]) -> Tensor:
        # Outputs side by side: the similarity below is the mean over them.
        maps = [maps_of(one.attributions, self.explainer.is_layer, one.whole) for one in explanations]
        self._width = maps[0].shape[1]
        return torch.cat(maps, 1)

    def _similarity(self, maps: Tensor) -> Tensor:
        pairs = zip(self.maps.split(self._width, 1), maps.split(self._width, 1), strict=True)
        return torch.stack([self._similar(one, other, self._mask) for one, other in pairs]).mean(0)

    def _left_out(self) -> Tensor | None:
        """Return False where a map holds padding, or a word once more, ``(N, D)``."""
        padding, found = self._padding(), self.explainer.by_words(self.inputs)
        if found is None:
            return padding
        firsts = begins_word(found.words).cpu()
        return firsts if padding is None else firsts & padding.bool()

    def _padding(self) -> Tensor | None:
        arguments = SplitInputs(self.inputs, any_dtype=True)
        masks = [v for name, v in zip(arguments.names, arguments.values, strict=True) if "attention_mask" in name]
        fits = [mask.cpu() for mask in masks if mask.shape == (self.n, self._width)]
        return fits[0] if fits else None

    def _run(self, network: nn.Module) -> None:
        arguments = SplitInputs(self.inputs, any_dtype=True)
        at_once = self.explainer.internal_batch_size
        with torch.no_grad():
            for start in range(0, arguments.n, at_once):
                part = arguments.rebuild(arguments.rows(slice(start, start + at_once)))
                call_network(network, part, "forward", self._output)


def _known(given: Tensor | Explanation | None) -> Explanation | None:
    """Return what is known before a network is explained; ``None`` where it answers for several places."""
    if isinstance(given, Explanation):
        return given if given.form is None and not given.whole else None
    return None if given is None or given.dim() > 2 else Explanation(given, None)


def predict(network: nn.Module, inputs: Inputs, output: OutputSpec = None, at_most: int = 256) -> Tensor:
    """Return a network's logits, in evaluation mode, on the CPU.

    Args:
        network: left unchanged.
        inputs: of samples, ``(N, ...)``.
        output: where the logits are.
        at_most: samples in one pass.
    """
    with untouched(network), torch.no_grad():
        arguments = SplitInputs(inputs, any_dtype=True)
        rows = range(0, arguments.n, at_most)
        parts = [arguments.rebuild(arguments.rows(slice(start, start + at_most))) for start in rows]
        return torch.cat([call_network(network, part, "forward", output).detach().cpu() for part in parts])
