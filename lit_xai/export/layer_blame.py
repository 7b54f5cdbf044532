"""What the layers of an int8 file cost, as a table, a sentence, and the argument that leaves the worst in float."""

import math
from dataclasses import dataclass
from typing import Any

from lit_xai.quantization.float_layers import FloatLayers, ignored_line
from lit_xai.render.summary import markdown_table

SECONDS = 30.0
"""How long to measure the metric with layers in float, at most but for the measurement that runs then."""


@dataclass(frozen=True)
class BlamedLayer:
    """One layer that computes in integers.

    Args:
        name: of the layer.
        snr: the signal-to-noise ratio of its output in dB, int8 in the runtime against float: its own noise, and that
            of the layers before it; ``None`` where the file has no such layer.
        alone: that of the logits in dB if it alone computes in integers; ``None`` where that is unknown.
        value: the metric with it alone in float; ``None`` where that was not measured.
    """

    name: str
    snr: float | None = None
    alone: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class LayerBlame:
    """The layers of an int8 file and the noise of each, see :func:`blame_layers`.

    Args:
        layers: in the order in which they run.
        metric: the metric's name.
        reference: its value in float; ``None`` without a metric.
        quantized: its value in integers.
        chance: the largest difference of the two that may be chance.
        samples: the number of samples that noise was measured on.
        fewest: the layers to leave in float for a loss of no more than that; ``None`` where nothing is lost.
        higher_is_better: whether a higher value of the metric is a better one; ``None`` where that is unknown.
        seconds: the time that the metric was measured for, at most.
    """

    layers: tuple[BlamedLayer, ...]
    metric: str = "accuracy"
    reference: float | None = None
    quantized: float | None = None
    chance: float = 0.0
    samples: int = 0
    fewest: FloatLayers | None = None
    higher_is_better: bool | None = True
    seconds: float = SECONDS

    @property
    def ranked(self) -> list[BlamedLayer]:
        """The layers, the one that costs most first."""
        # By the noise that each adds alone: in its own output a layer also has that of all before it.
        return sorted(self.layers, key=lambda one: _or(one.alone, _or(one.snr, math.inf)))

    @property
    def is_lossless(self) -> bool:
        """Whether no more of the metric is lost than may be chance."""
        return self.reference is not None and self.quantized is not None and self._loss() <= self.chance

    def _loss(self) -> float:
        assert self.reference is not None
        assert self.quantized is not None
        drop = self.reference - self.quantized
        return abs(drop) if self.higher_is_better is None else drop if self.higher_is_better else -drop

    def __str__(self) -> str:
        sentences = [self._first(), *([self._remedy()] if self._names_a_remedy() else [])]
        return " ".join(sentences)

    def _names_a_remedy(self) -> bool:
        return not self.is_lossless and bool(self.layers)

    def _first(self) -> str:
        if not self.layers:
            return "No layer of the int8 file computes in integers."
        worst = self.ranked[0]
        ratio = "a signal-to-noise ratio of"
        noise = f"{worst.name!r}: with it alone in integers the logits have {ratio} {_decibels(worst.alone)}"
        if worst.alone is None:
            noise = f"{worst.name!r}, whose output has {ratio} {_decibels(worst.snr)}"
        if self.reference is None or self.quantized is None:
            return f"The noisiest layer in integers is {noise}; without a metric nobody knows whether that matters."
        values = f"{self.metric} {self.quantized:.4g} in int8, {self.reference:.4g} in float"
        if self.is_lossless:
            return f"No layer costs {self.metric} ({values}: equal but for chance). The noisiest is {noise}."
        return f"Integers cost {self.metric} ({values}). The worst layer is {noise}."

    def _remedy(self) -> str:
        if self.fewest is None:
            return f"To leave it in float: {ignored_line([self.ranked[0].name])}."
        reached = f"{self.metric} {self.fewest.value:.4g}"
        if not self.fewest.layers:
            return f"With no layer in float that was tried is it better than {reached}."
        how = "" if self.fewest.is_reached else ", the best that was found"
        how += "" if self.fewest.is_complete else f" within {self.seconds:.0f} s"
        is_worst = self.fewest.layers == (self.ranked[0].name,)
        which = "it" if is_worst else "this one" if len(self.fewest.layers) == 1 else "these"
        return f"To leave {which} in float, which reaches {reached}{how}: {ignored_line(self.fewest.layers)}."

    def table(self, most: int | None = None) -> str:
        """Return the layers as a Markdown table, the worst first.

        Args:
            most: the number of rows, at most.
        """
        shown = self.ranked[:most]
        columns = {
            "logits, it alone in int8 (dB)": [_decibels(one.alone, "") for one in shown],
            "its output, all in int8 (dB)": [_decibels(one.snr, "") for one in shown],
            f"{self.metric}, it alone in float": ["-" if one.value is None else f"{one.value:.4f}" for one in shown],
        }
        # Where integers cost nothing, nothing was searched for.
        known = {title: column for title, column in columns.items() if {*column} != {"-"}}
        rows = [*zip([one.name for one in shown], *known.values(), strict=True)]
        return markdown_table(["layer", *known], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, which JSON can hold."""
        return {
            "layers": [{key: _finite(value) for key, value in vars(one).items()} for one in self.layers],
            "metric": self.metric,
            "float": self.reference,
            "int8": self.quantized,
            "chance": self.chance,
            "samples": self.samples,
            "ignored_layers": [] if self.fewest is None else [*self.fewest.layers],
            "reached": None if self.fewest is None else self.fewest.value,
            "summary": str(self),
        }


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _decibels(value: float | None, unit: str = " dB") -> str:
    if value is None:
        return "-"
    return f"{value:.1f}{unit}" if math.isfinite(value) else ("no noise" if value > 0 else "no signal")
