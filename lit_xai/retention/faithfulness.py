"""Faithfulness: whether the elements that an explanation names are those that the network's own prediction rests on.

Elements are removed in the order of their attributions, and the network is asked again and again. It is held to its own
prediction, on a scale from its baseline to the sample, and to random orders of the same sample: raw probabilities would
reward confidence, and a score without a null says nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_xai.attribution.adapter import Forward, check_rows, split_inputs
from lit_xai.attribution.elements import Flattened, flat_index
from lit_xai.attribution.options import FORWARD_ONLY
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec, call_network, find_network
from lit_xai.network.check import check_choice, check_integer, refusal
from lit_xai.network.describing import describe
from lit_xai.network.untouched import untouched
from lit_xai.retention.imputation import impute

METRICS = ("deletion", "insertion", "road", "sparseness")
"""Names of the metrics, in the order in which they are described."""

SMALLEST_CHANGE = 0.05
"""Change of the prediction from baseline to sample below which a sample is counted out: there is nothing to explain."""

Fill: TypeAlias = Callable[[Tensor, Tensor], list[Tensor]]
"""Puts something in the place of elements: of samples ``(P,)``, those that are gone ``(P, S, D)``."""

_NOISE = 0.01  # of filled pixels, as in the paper
_SHARES = 10  # ROAD removes one to nine tenths


def faithfulness(
    network: nn.Module,
    inputs: Inputs,
    attributions: Any,
    target: int | Tensor | None = None,
    *,
    baselines: Any = None,
    metrics: Sequence[str] | str = ("deletion", "insertion", "sparseness"),
    steps: int = 10,
    orders: int = 10,
    seed: int = 0,
    call: str = "forward",
    output: OutputSpec = None,
    internal_batch_size: int = 64,
) -> dict[str, Tensor]:
    r"""Measure how faithful explanations are to the network that they explain, sample by sample.

    Elements are ordered by *signed* attribution, those that speak for the class first. The network's score with some of
    them removed is :math:`(p - p_b) / (p_x - p_b)`, where :math:`p` is its probability of the explained class,
    :math:`p_x` that of the sample and :math:`p_b` that of the baseline; the output itself where there is one per sample
    or the target is an element of a larger output.

    - ``"deletion"``: area under the score while elements are set to the baseline, the highest first, minus the mean
      area of random orders. Below 0 is better than random.
    - ``"insertion"``: area under the score while elements are put back on the baseline, the highest first, minus that
      of random orders. Above 0 is better than random. V. Petsiuk et al. 2018, RISE, https://arxiv.org/abs/1806.07421.
    - ``"road"``: mean score of images of which 10% to 90% of the pixels, the highest first, are filled from their
      neighbours (:func:`~lit_xai.retention.imputation.impute`), minus that of random orders. Below 0 is better.
    - ``"sparseness"``: the Gini index of absolute attributions, 0 where all are equal, towards 1 where one element has
      everything. It does not ask the network. P. Chalasani et al. 2020, https://arxiv.org/abs/1810.06583.

    An element of an image is a pixel with all its channels, whose attributions are added up; of token ids a token; else
    each number. Equal attributions are taken in random order, so that a constant map is as good as random. A single
    output that is below its baseline's counts the other way round: what lowers it comes first.

    Samples and baselines run once for all metrics, and deletion and insertion share their random orders: an order
    deletes what its reverse inserts.

    Args:
        network: what was explained; left as it is.
        inputs: what it is called with, ``(N, ...)`` each.
        attributions: shaped like the inputs and structured like them, or by their names; of images also maps of another
            size, which are scaled, and of token ids embeddings, which are added up.
        target: as for :func:`~lit_xai.functional.attribute`: the explained class, one for all or one per sample
            ``(N,)``; ``None`` where samples have one output; the index of the explained number ``(N, k)`` in outputs
            with more dimensions.
        baselines: what stands for a removed element: a number, or tensors ``(1, ...)`` or ``(N, ...)`` structured like
            the inputs; default 0. The one that the explanation used is the fair choice.
        metrics: which to compute, one name or several.
        steps: points of a curve from the sample to its baseline.
        orders: random orders for each sample; with 0 nothing is subtracted.
        seed: of the random orders and ROAD's noise.
        call: the network's method that is called.
        output: where the logits are, see :func:`~lit_xai.functional.find_logits`.
        internal_batch_size: a quarter of the most samples in one forward pass, as for
            :func:`~lit_xai.functional.attribute`.

    Returns:
        ``(N,)`` for each metric by its name. NaN where the sample is counted out: where :math:`p_x - p_b` is below
        0.05, or a single output changes by less than 5% of the larger one of the two.

    Raises:
        ValueError: an unknown metric, inputs without a row per sample, ROAD of anything but images, or attributions, a
            target or baselines that do not fit.

    Example:
        >>> network = nn.Linear(20, 1)
        >>> x = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
        >>> found = faithfulness(network, x, network.weight.detach() * x)
        >>> bool((found["deletion"].nanmean() < 0) & (found["insertion"].nanmean() > 0))
        True
    """
    names = check_metrics(metrics)
    check_integer("steps", steps, 2)
    check_integer("orders", orders, 0)
    check_integer("internal_batch_size", internal_batch_size)
    network = find_network(network)
    with untouched(network, seed), torch.no_grad():
        samples = _Samples(network, inputs, attributions, baselines, call, output)
        found = {"sparseness": gini(samples.values)} if "sparseness" in names else {}
        if set(names) - {"sparseness"}:
            if "road" in names:
                samples.check_images()
            predict = _Prediction(network, samples, target, call, output, FORWARD_ONLY * internal_batch_size)
            found |= _measure(samples, predict, names, steps, orders, seed)
    return {name: found[name] for name in names}


def prediction_change(
    network: nn.Module,
    inputs: Inputs,
    target: int | Tensor | None = None,
    *,
    baselines: Any = None,
    seed: int = 0,
    call: str = "forward",
    output: OutputSpec = None,
    internal_batch_size: int = 64,
) -> Tensor:
    r"""Return the change of the prediction from baselines to samples, :math:`p_x - p_b`, which scores are shares of.

    As weights of a mean these take away the say of samples that their baseline predicts nearly as well, whose scores
    are of any size.

    Args:
        network: left as it is.
        inputs: what it is called with, ``(N, ...)`` each.
        target: as for :func:`faithfulness`.
        baselines: likewise.
        seed: of a network that draws.
        call: the network's method that is called.
        output: where the logits are.
        internal_batch_size: a quarter of the most samples in one forward pass.

    Returns:
        ``(N,)``.

    Raises:
        ValueError: as for :func:`faithfulness`.

    Example:
        >>> prediction_change(nn.Flatten(0), torch.tensor([[3.0], [-1.0]]))
        tensor([ 3., -1.])
    """
    network = find_network(network)
    with untouched(network, seed), torch.no_grad():
        samples = _Samples(network, inputs, None, baselines, call, output)
        base, shown = _Prediction(
            network,
            samples,
            target,
            call,
            output,
            FORWARD_ONLY * check_integer("internal_batch_size", internal_batch_size),
        ).ends()
    return shown - base


def gini(values: Tensor) -> Tensor:
    """Return the Gini index of absolute values, ``(N, D)`` to ``(N,)``; 0 where all of them are 0.

    Example:
        >>> gini(torch.tensor([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
        tensor([0.0000, 0.7500, 0.0000])
    """
    sizes = values.abs().sort(1).values
    count = sizes.shape[1]
    places = torch.arange(1, count + 1, device=sizes.device, dtype=sizes.dtype)
    total = sizes.sum(1)
    index = (sizes * (2 * places - count - 1)).sum(1) / (count * total)
    return torch.where(total > 0, index, torch.zeros_like(total))


def check_metrics(metrics: Sequence[str] | str) -> tuple[str, ...]:
    """Return names of metrics as a tuple, and refuse unknown ones.

    Raises:
        ValueError: suggests the nearest name.

    Example:
        >>> check_metrics("insertoin")
        Traceback (most recent call last):
        ...
        ValueError: metrics expected one of deletion, insertion, road, sparseness, but got 'insertoin'. Did you mean ...
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for name in names or ("",):
        check_choice("metrics", name, METRICS)
    return tuple(dict.fromkeys(names))


class _Samples:
    """Inputs, baselines and attributions by element; without attributions where none are needed.

    Attributes:
        values: attributions of all explained inputs side by side, ``(N, D)``.
    """

    def __init__(
        self, network: nn.Module, inputs: Inputs, attributions: Any, baselines: Any, call: str, output: OutputSpec
    ) -> None:
        self.arguments = split_inputs(network, inputs, call, output, any_dtype=True)
        if self.arguments.whole:
            raise ValueError(
                f"faithfulness expected inputs with one row per sample, but got {describe(inputs)}, which the network"
                " takes as a whole: measure each of its samples in a call of its own."
            )
        rows = self.arguments.rows(slice(None))
        self.inputs = [rows[i] for i in self.arguments.explained]
        self.along = [rows[i] for i in self.arguments.along]
        given = self.arguments.like_inputs(0 if baselines is None else baselines, "baselines") or ()
        self.baselines = [_expanded(part, value) for part, value in zip(given, self.inputs, strict=True)]
        # It is one pass then: expanded tensors have a stride of 0.
        self.has_one_baseline = not self.along and all(part.stride(0) == 0 for part in self.baselines)
        if attributions is None:
            self.values = self.inputs[0].new_zeros((self.arguments.n, 0))
            return
        maps = self._maps(attributions)
        self.values = torch.cat([_by_element(part, value) for part, value in zip(maps, self.inputs, strict=True)], 1)

    def _maps(self, attributions: Any) -> tuple[Any, ...]:
        """Return the attributions of each explained input, given as explanations hold them: by name, or in order."""
        if not isinstance(attributions, Mapping):
            return self.arguments.like_inputs(attributions, "attributions") or ()
        by_name = {str(name): part for name, part in attributions.items()}
        names = [self.arguments.names[i] for i in self.arguments.explained]
        if missing := [name for name in names if name not in by_name]:
            raise ValueError(
                f"attributions expected one part for each explained input ({', '.join(map(repr, names))}), but got none"
                f" of {missing[0]!r}."
            )
        return tuple(by_name[name] for name in names)

    def check_images(self) -> None:
        """Refuse what ROAD cannot fill from its neighbours."""
        if len(self.inputs) != 1 or self.inputs[0].dim() != 4 or not self.inputs[0].is_floating_point():
            raise ValueError(
                "metrics: road fills pixels of images from their neighbours and expected one input (N, C, H, W) of"
                f" floats, but got {describe(self.arguments.inputs)}: leave it out, deletion and insertion measure any"
                " input."
            )

    def replaced(self, rows: Tensor, gone: Tensor) -> list[Tensor]:
        """Return samples with elements set to their baselines.

        Args:
            rows: which samples, ``(P,)``.
            gone: which elements, ``(P, S, D)``.

        Returns:
            For each explained input ``(P * S, ...)``.
        """
        sizes = [_elements(value).numel() for value in self.inputs]
        return [
            torch.where(_as_mask(part, value), baseline[rows, None], value[rows, None]).flatten(0, 1)
            for value, baseline, part in zip(self.inputs, self.baselines, gone.split(sizes, 2), strict=True)
        ]

    def imputed(self, noise: Tensor, rows: Tensor, gone: Tensor) -> list[Tensor]:
        """Return images with pixels filled from their neighbours, and noise ``(N, C, H, W)``; as :meth:`replaced`."""
        images = self.inputs[0]
        shape = (len(rows), *images.shape[2:])
        # Step by step: the more is gone, the longer it takes.
        filled = [impute(images[rows], part.reshape(shape), noise[rows]) for part in gone.unbind(1)]
        return [torch.stack(filled, 1).flatten(0, 1)]


def _elements(value: Tensor) -> Tensor:
    """Return one sample's elements in their shape: pixels of images and volumes, else each number."""
    return value[0, 0] if value.dim() > 3 and value.is_floating_point() else value[0]


def _as_mask(gone: Tensor, value: Tensor) -> Tensor:
    """Return ``(P, S, D)`` as a mask that broadcasts to ``(P, S, *value.shape[1:])``."""
    shape = _elements(value).shape
    channel = (1,) * (value.dim() - 1 - len(shape))
    return gone.reshape(*gone.shape[:2], *channel, *shape)


def _expanded(baseline: Any, value: Tensor) -> Tensor:
    try:
        return torch.as_tensor(baseline).to(value).expand_as(value)
    except (TypeError, ValueError, RuntimeError):
        got = describe(baseline) if isinstance(baseline, Tensor) else repr(baseline)
        raise ValueError(
            f"baselines expected a number or a tensor of shape {(1, *value.shape[1:])} or {tuple(value.shape)}, but"
            f" got {got}."
        ) from None


def _by_element(attributions: Tensor, value: Tensor) -> Tensor:
    """Return attributions by element, ``(N, D)``."""
    maps = attributions.detach().to(value.device)
    maps = maps if maps.dtype == torch.float64 else maps.float()
    if value.dim() > 3 and value.is_floating_point() and maps.dim() == value.dim() and len(maps) == len(value):
        maps = maps.sum(1)
        if value.dim() == 4 and maps.shape[1:] != value.shape[2:]:  # of a layer
            maps = F.interpolate(maps[:, None], size=value.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        if maps.shape[1:] == value.shape[2:]:
            return maps.flatten(1)
    elif maps.shape[: value.dim()] == value.shape:
        return maps.reshape(*value.shape, -1).sum(-1).flatten(1)
    raise ValueError(
        f"attributions expected the shape of the inputs, {tuple(value.shape)}, but got {tuple(attributions.shape)}:"
        " explain the inputs rather than a layer."
    )


class _Prediction:
    """The network's prediction of what is explained, of samples or of what is left of them.

    Attributes:
        is_probability: whether it is the probability of a class, known after the first call.
    """

    def __init__(
        self, network: nn.Module, samples: _Samples, target: Any, call: str, output: OutputSpec, at_most: int
    ) -> None:
        self._samples = samples
        arguments, device = samples.arguments, samples.inputs[0].device
        self._target = None if target is None else torch.as_tensor(target, device=device)
        self._is_element = self._target is not None and self._target.dim() == 2
        if self._target is not None and self._is_element:
            first = call_network(network, arguments.rebuild(arguments.rows(slice(0, 1))), call, output)
            self._target, output = flat_index(self._target, tuple(first.shape[1:])), Flattened(output)
        elif self._target is not None:
            self._target = self._target.reshape(-1).expand(arguments.n)
        self._forward = Forward(network, arguments, call, output, at_most=at_most, check=self._check)
        self.at_most, self.is_probability = at_most, False

    def _check(self, logits: Tensor, rows: int) -> None:
        check_rows(logits, rows)
        classes = logits.shape[1] if logits.dim() == 2 else 1
        if logits.dim() > 2 or (classes > 1 and self._target is None):
            raise refusal(
                "target", f"the explained class of each sample, of an output of shape {tuple(logits.shape)}", None
            )
        if self._target is not None and classes > 1:
            low, high = self._target.min().item(), self._target.max().item()
            if low < 0 or high >= classes:
                raise refusal("target", f"classes from 0 to {classes - 1}", low if low < 0 else high)
        self.is_probability = classes > 1 and not self._is_element

    def __call__(self, tensors: list[Tensor], rows: Tensor) -> Tensor:
        """Return predictions ``(R,)`` for explained inputs ``(R, ...)`` that stand for these samples ``(R,)``."""
        return self._pick(self._forward(*tensors, *(value[rows] for value in self._samples.along)), rows)

    def _pick(self, logits: Tensor, rows: Tensor) -> Tensor:
        if self._target is None or logits.dim() == 1 or logits.shape[1] == 1:
            return logits.reshape(len(rows))
        scores = logits.softmax(1) if self.is_probability else logits
        return scores.gather(1, self._target[rows, None])[:, 0]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the predictions for baselines and for samples, ``(N,)`` each."""
        samples, every = self._samples, torch.arange(self._samples.arguments.n, device=self._samples.values.device)
        shown = self(samples.inputs, every)
        if not samples.has_one_baseline:
            return self(samples.baselines, every), shown
        logits = self._forward(*(value[:1] for value in samples.baselines))
        return self._pick(logits.expand(len(every), *logits.shape[1:]), every), shown


def _measure(
    samples: _Samples, predict: _Prediction, names: Sequence[str], steps: int, orders: int, seed: int
) -> dict[str, Tensor]:
    """Return the metrics that ask the network, ``(N,)`` each."""
    base, shown = predict.ends()
    change = shown - base
    if predict.is_probability:
        is_counted = change >= SMALLEST_CHANGE
    else:  # an output has no scale of its own
        is_counted = change.abs() > SMALLEST_CHANGE * torch.maximum(shown.abs(), base.abs())
    # What lowers an output that is below its baseline's speaks for it.
    values = samples.values * change.sign()[:, None]
    generator, noise_generator = (torch.Generator(values.device).manual_seed(seed) for _ in range(2))
    found = {name: torch.full_like(change, torch.nan) for name in names if name != "sparseness"}
    curved = [i for i, name in enumerate(("deletion", "insertion")) if name in names]
    count, image = values.shape[1], samples.inputs[0]
    if "road" in names:
        # The same for all orders and steps of a sample.
        noise = _NOISE * torch.randn(image.shape, generator=noise_generator, dtype=image.dtype, device=image.device)
    at_once = max(1, predict.at_most // (orders + 2))
    for rows in is_counted.nonzero()[:, 0].split(at_once):
        if not len(rows):
            break
        ranks = torch.stack([_ranks(values[row], orders, generator) for row in rows])
        start, span = base[rows, None, None], change[rows, None, None]
        if curved:
            counts = _counts(count, steps, values.device)
            curves = (_curves(predict, samples.replaced, rows, _with_random(ranks, curved), counts) - start) / span
            areas = _beyond_random(_areas(curves, counts / count), orders)
            for place, i in enumerate(curved):
                found[("deletion", "insertion")[i]][rows] = areas[:, place]
        if "road" in names:
            counts = _counts(count, _SHARES, values.device)
            curves = (
                _curves(predict, partial(samples.imputed, noise), rows, _with_random(ranks, [0]), counts) - start
            ) / span
            found["road"][rows] = _beyond_random(curves.mean(2), orders)[:, 0]
    return found


def _ranks(values: Tensor, orders: int, generator: torch.Generator) -> Tensor:
    """Return the place of each element ``(D,)`` in the descending, the ascending and random orders, ``(2 + R, D)``."""
    count, device = len(values), values.device
    # Not by sorting random numbers, which takes longer than the rest.
    shuffled, *random = [torch.randperm(count, generator=generator, device=device) for _ in range(1 + orders)]
    descending = shuffled[values[shuffled].argsort(descending=True, stable=True)]  # equal values in random order
    places = torch.empty_like(descending).scatter_(0, descending, torch.arange(count, device=device))
    return torch.stack([places, count - 1 - places, *random])


def _with_random(ranks: Tensor, chosen: list[int]) -> Tensor:
    """Keep some of the two orders by attribution, and all random ones."""
    return torch.cat([ranks[:, chosen], ranks[:, 2:]], 1)


def _counts(count: int, steps: int, device: torch.device) -> Tensor:
    """Return how many of ``count`` elements are removed at the steps between none and all of them."""
    counts = dict.fromkeys(step * count // steps for step in range(1, steps))
    return torch.tensor([number for number in counts if number], device=device, dtype=torch.int64)


def _curves(predict: _Prediction, fill: Fill, rows: Tensor, ranks: Tensor, counts: Tensor) -> Tensor:
    """Return predictions with elements removed, ``(P, K, S)``.

    Args:
        predict: the network's prediction.
        fill: what stands for removed elements.
        rows: which samples, ``(P,)``.
        ranks: places of their elements in several orders, ``(P, K, D)``.
        counts: how many are removed, ``(S,)``.
    """
    if not len(counts):
        return ranks.new_zeros((*ranks.shape[:2], 0), dtype=torch.float32)
    own, curves = rows.repeat_interleave(ranks.shape[1]), []
    at_once = max(1, predict.at_most // len(counts))
    for some, of in zip(ranks.flatten(0, 1).split(at_once), own.split(at_once), strict=True):
        tensors = fill(of, some[:, None] < counts[:, None])
        curves.append(predict(tensors, of.repeat_interleave(len(counts))))
    return torch.cat(curves).reshape(*ranks.shape[:2], -1)


def _areas(curves: Tensor, shares: Tensor) -> Tensor:
    """Return areas under curves ``(P, K, S)`` that begin at 1, where nothing is removed, and end at 0, ``(P, K)``.

    Insertion along an order is removal along its reverse, read backwards: it has the same area.
    """
    return torch.trapezoid(
        F.pad(F.pad(curves, (1, 0), value=1.0), (0, 1)), F.pad(F.pad(shares, (1, 0)), (0, 1), value=1.0)
    )


def _beyond_random(scores: Tensor, orders: int) -> Tensor:
    """Subtract the mean of the last ``orders`` scores of each sample from the others, ``(P, K)``."""
    kept = scores.shape[1] - orders
    return scores[:, :kept] - (scores[:, kept:].mean(1, keepdim=True) if orders else 0.0)
