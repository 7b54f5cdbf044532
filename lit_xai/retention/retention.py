"""How much of a reference's explanations a changed network retains, held against what would mean something."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec
from lit_xai.retention.explainer import Explainer, as_explainer
from lit_xai.retention.intervals import FEWEST, Interval, bootstrap, mean_interval, prediction_band, retention
from lit_xai.retention.reference import LADDER, NULLS, ReferenceExplanations

WIDE_NULL = 0.5
"""Where an untrained network may be as similar as this, retention says nothing, and the similarity stands alone."""


@dataclass(frozen=True)
class Null:
    """Untrained networks of the reference's architecture.

    Args:
        n: how many.
        similarity: their mean.
        band: where the mean of one more would lie in 95 of 100 cases; ``None`` for one.
    """

    n: int
    similarity: float
    band: Interval | None

    @property
    def is_wide(self) -> bool:
        """Whether an untrained network may be so similar that retention says nothing."""
        return self.band is not None and self.band.high > WIDE_NULL


@dataclass(frozen=True)
class Retention:
    """How much of a reference's explanations a network retains.

    Args:
        explainer: the method's name. Numbers of different methods do not compare.
        n: number of samples.
        similarity: the mean over samples.
        similarity_interval: of 95%; ``None`` below 30 samples.
        null: what untrained networks have; ``None`` if there are none.
        retention: 1 for the reference's explanations, 0 for those of an untrained network; ``None`` without untrained
            networks, or where these may be too similar for it to say anything.
        interval: of 95%, over the choice of samples and untrained networks, not over seeds of the training.
        agreeing: the mean similarity of samples with the same prediction; ``None`` if there are none.
        disagreeing: of the others.
        agreement: the share of equal predictions; ``None`` where there are no classes.
        zero_maps: samples in which one of the two explains nothing.
        references: retention of what is not the network (the similarity, where retention says nothing), by name.
        steps: along the path, of methods that have one.
        completeness_error: the median gap between attributions and the change of the output.
        parts: the same of the samples of a class or a group, by its name.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))
        >>> found = measure_retention(network, network, torch.randn(40, 20), nulls=5, ladder=(8,))
        >>> round(found.similarity, 6), sorted(found.references)
        (1.0, ['8 bits', 'another sample of the same class', 'the input itself'])
    """

    explainer: str
    n: int
    similarity: float
    similarity_interval: Interval | None
    null: Null | None
    retention: float | None
    interval: Interval | None
    agreeing: float | None = None
    disagreeing: float | None = None
    agreement: float | None = None
    zero_maps: int = 0
    references: dict[str, float] = field(default_factory=dict)
    steps: int | None = None
    completeness_error: float | None = None
    parts: dict[str, "Retention"] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return one paragraph."""
        return describe_retention(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class References:
    """What a reference's explanations are held against, measured once.

    Args:
        null: similarity of untrained networks, ``(R, N)``.
        others: similarity of what is not a network of anybody's, ``(N,)`` each, by name.
    """

    null: Tensor
    others: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, rows: Sequence[int] | slice) -> "References":
        """Return those of some of the samples."""
        return References(self.null[:, rows], {name: one[rows] for name, one in self.others.items()})


def measure_references(
    reference: ReferenceExplanations,
    nulls: int = NULLS,
    ladder: Sequence[int] = LADDER,
    others: dict[str, nn.Module] | None = None,
    step: Callable[[], object] = lambda: None,
) -> References:
    """Measure what retention is held against: untrained networks, other samples, and weights with fewer bits.

    Args:
        reference: its explanations.
        nulls: how many untrained networks.
        ladder: numbers of bits of the reference's own weights.
        others: further networks by name: of another seed, say, or after one more epoch.
        step: called after each network, by a progress bar.
    """
    null = reference.nulls(nulls, step)
    found: dict[str, Tensor | None] = {
        "another sample of the same class": reference.of_same_class(),
        "the input itself": reference.of_input(),
        "another draw of the explainer": reference.of_another_draw(),
    }
    if found["the input itself"] is None:  # text has no places that mean the same in every sample
        found["its own map in another order"] = reference.of_shuffled()
    named = {name: similar for name, similar in found.items() if similar is not None}
    for bits, similar in reference.ladder(ladder):
        named[f"{bits} bits"] = similar
        step()
    for name, network in (others or {}).items():
        named[name] = reference.compare(network).similarity
        step()
    return References(null, named)


def summarize(
    explainer: str,
    similarity: Tensor,
    references: References,
    *,
    agree: Tensor | None = None,
    zero_maps: int = 0,
    steps: int | None = None,
    completeness_error: float | None = None,
    seed: int = 0,
) -> Retention:
    """Return the retention of a network by its similarity to a reference.

    Args:
        explainer: the method's name.
        similarity: of each sample, ``(N,)``.
        references: what it is held against.
        agree: whether both predict the same, ``(N,)``; ``None`` where there are no classes.
        zero_maps: samples in which one of the two explains nothing.
        steps: along the path.
        completeness_error: of the reference.
        seed: of the bootstrap.
    """
    null = references.null
    known = Null(len(null), float(null.mean()), prediction_band(null.mean(1))) if len(null) else None
    mean = float(similarity.mean())
    speaks = known is not None and not known.is_wide
    base = known.similarity if known is not None and speaks else 0.0
    return Retention(
        explainer,
        len(similarity),
        mean,
        mean_interval(similarity),
        known,
        retention(mean, base) if speaks else None,
        bootstrap(similarity, null, seed) if speaks else None,
        agreeing=_mean(similarity, agree),
        disagreeing=_mean(similarity, None if agree is None else ~agree),
        agreement=None if agree is None else float(agree.double().mean()),
        zero_maps=zero_maps,
        references={name: retention(float(one.nanmean()), base) for name, one in references.others.items()},
        steps=steps,
        completeness_error=completeness_error,
    )


def _mean(values: Tensor, chosen: Tensor | None) -> float | None:
    return None if chosen is None or not bool(chosen.any()) else float(values[chosen].mean())


def measure_retention(
    reference: nn.Module,
    network: nn.Module,
    inputs: Inputs,
    *,
    explainer: str | type | Explainer = "IntegratedGradients",
    output: OutputSpec = None,
    baselines: Any = None,
    nulls: int = NULLS,
    ladder: Sequence[int] = LADDER,
    seed: int = 0,
) -> Retention:
    """Measure how much of a reference's explanations another network retains.

    Both are explained on the same samples, by the reference's predictions, with the same baseline and random numbers;
    :mod:`lit_xai.retention.similarity` compares the signed maps of each sample. An untrained network has 0, the
    reference itself 1. It says how much changed, not whether it got worse.

    Args:
        reference: usually the dense model; left unchanged, as the network.
        network: usually the compressed one, called like the reference.
        inputs: of samples that no gradient saw, ``(N, ...)``; 256 are ample, below 30 there is no interval.
        explainer: a method's name or an :class:`~lit_xai.retention.explainer.Explainer`.
        output: where the logits are in the output.
        baselines: in place of the explainer's, as tensors.
        nulls: how many untrained networks.
        ladder: numbers of bits of the reference's own weights.
        seed: of all that is drawn.

    Raises:
        ValueError: the networks do not fit each other or the samples; one sentence.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))
        >>> print(measure_retention(network, network, torch.randn(40, 20), nulls=5, ladder=(8,)))
        IntegratedGradients on 40 samples resembles the reference's with 1.00 [1.00, 1.00]. ...
    """
    explained = ReferenceExplanations(
        reference, inputs, as_explainer(explainer), output=output, baselines=baselines, seed=seed
    )
    compared = explained.compare(network)
    references = measure_references(explained, nulls, ladder)
    return summarize(
        explained.explainer.name,
        compared.similarity,
        references,
        agree=explained.agree(compared.logits),
        zero_maps=int(compared.is_zero.sum()),
        steps=explained.steps,
        completeness_error=explained.completeness_error,
        seed=seed,
    )


def describe_retention(
    found: Retention, samples: str = "samples", reference: str = "the reference's", predictions: str = ""
) -> str:
    """Return one paragraph that anybody can read.

    Args:
        found: the retention.
        samples: what was explained: ``"validation images"``.
        reference: whose explanations they are compared with: ``"the dense model's"``.
        predictions: a sentence about them; by default how many agree.
    """
    sentences = [f"{found.explainer} on {found.n} {samples} resembles {reference} with {_in_words(found)}."]
    held = _references(found)
    sentences += [f"{'; '.join(held)}."] if held else []
    if found.retention is None:
        why = (
            "an untrained network may be as similar"
            if found.null is not None
            else "it was held against no untrained network"
        )
        sentences.append(f"This is the similarity itself, as {why}.")
    if found.interval is None and found.n < FEWEST:
        sentences.append(f"Fewer than {FEWEST} samples give no interval.")
    if predictions or found.agreement is not None:
        sentences.append(predictions or f"Predictions agree on {found.agreement:.0%}.")
    if found.parts:
        told = [f"{name}: {_in_words(one)} on {one.n}" for name, one in found.parts.items()]
        sentences.append(f"Apart, {'; '.join(told)}.")
    sentences.append(LIMIT)
    return " ".join(sentences)


LIMIT = "This says how much changed, not whether it got worse."


def _in_words(found: Retention) -> str:
    """Return the retention, or the similarity where it says nothing, with its interval."""
    if found.retention is None:
        return f"{found.similarity:.2f}{_interval(found.similarity_interval)}"
    return f"{found.retention:.2f}{_interval(found.interval)}"


def _interval(interval: Interval | None) -> str:
    return f" [{interval.low:.2f}, {interval.high:.2f}]" if interval is not None else ""


def _references(found: Retention) -> list[str]:
    held = []
    if found.null is not None and found.null.band is not None:
        half = (found.null.band.high - found.null.band.low) / 2
        if found.retention is not None:
            held.append(f"An untrained network: 0.00 ± {half / (1 - found.null.similarity):.2f}")
        else:
            held.append(f"An untrained network: {found.null.similarity:.2f} ± {half:.2f}")
    for name, value in found.references.items():
        bits = name.removesuffix(" bits")
        held.append(f"{f'this network at {bits} bits' if bits != name else name}: {value:.2f}")
    return held


def rounding_level(found: Retention) -> str | None:
    """Return which line of the ladder a retention lies at: ``"about as much as rounding to 3 bits"``.

    Args:
        found: the retention, with a ladder among its references.

    Returns:
        ``None`` without a ladder.

    Example:
        >>> lines = {"8 bits": 0.99, "4 bits": 0.93, "3 bits": 0.82}
        >>> rounding_level(Retention("IntegratedGradients", 256, 0.9, None, None, 0.9, None, references=lines))
        'about as much as rounding to 4 bits'
    """
    value = found.similarity if found.retention is None else found.retention
    ladder = {int(n.removesuffix(" bits")): v for n, v in found.references.items() if n.endswith(" bits")}
    if not ladder:
        return None
    below = [bits for bits, level in ladder.items() if level < value]
    fewest = min(ladder)
    if not below:
        return f"more than rounding to {fewest} bits"
    nearest = min(ladder, key=lambda bits: abs(ladder[bits] - value))
    return f"about as much as rounding to {nearest} bits"
