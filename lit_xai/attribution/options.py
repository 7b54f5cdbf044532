"""The arguments of Captum's call besides the inputs, for some of the samples: target, baselines, masks, bounds."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs, check_logits
from lit_xai.attribution.methods import (
    attribute_parameters,
    copies_per_sample,
    draws_baselines,
    patch_mask,
    returns_layer,
    runs_samples_singly,
    tuples,
)
from lit_xai.network.describing import describe

FORWARD_ONLY = 4
"""Factor by which more samples fit in a pass without gradients: it keeps the activations of two layers, not of all."""


class Options:
    """The options of one call of :func:`~lit_xai.functional.attribute`, checked, and cut to some of its samples.

    Args:
        method: the attribution class.
        arguments: what the network is called with.
        target: the class to explain, one for all or one per sample.
        baselines: structured like the inputs.
        attribute_args: for the method's ``attribute``.
        noise_tunnel: for ``NoiseTunnel.attribute``; ``None`` for no NoiseTunnel.
        internal_batch_size: most samples in one forward/backward pass.

    Raises:
        ValueError: one of them does not fit the method or the inputs.
    """

    def __init__(
        self,
        method: type,
        arguments: SplitInputs,
        target: Any = None,
        baselines: Any = None,
        attribute_args: Mapping[str, Any] | None = None,
        noise_tunnel: Mapping[str, Any] | None = None,
        internal_batch_size: int = 64,
    ) -> None:
        self.method, self.arguments = method, arguments
        self.takes = attribute_parameters(method)
        rows = arguments.rows(slice(None))
        self.values = [rows[i] for i in arguments.explained]
        self.target = as_target(target, self.values[0].device)
        self.baselines = self._find_baselines(baselines)
        self.own: dict[str, Any] = tuples(dict(attribute_args or {}))
        self.masks = self._find_masks(self.own.pop("feature_mask", None))
        self.noise_tunnel = None if noise_tunnel is None else dict(noise_tunnel)
        self.internal_batch_size = internal_batch_size
        drawn = len(self.baselines[0]) if self.baselines and draws_baselines(method) else 1
        self.copies = copies_per_sample(method, drawn, self.own.get("n_samples", 5))

    @property
    def has_delta(self) -> bool:
        """True if the method can return the difference between the sum of attributions and the output."""
        return "return_convergence_delta" in self.takes

    @property
    def samples_at_once(self) -> int:
        """The number of samples in one call for which the copies that the method makes stay within the bound."""
        if "FeaturePermutation" in self.method.__name__:  # it swaps values between samples, and needs all of them
            return self.arguments.n
        return max(1, self.internal_batch_size // self.copies)

    def of(self, rows: slice) -> dict[str, Any]:
        """Return the keyword arguments for these samples."""
        n = len(self.values[0][rows])
        options = {**self.own}
        if "target" in self.takes:
            # Of inputs explained as a whole, Captum gets one number.
            target = None if self.arguments.whole else self.target
            options["target"] = target[rows] if isinstance(target, Tensor) else target
        if self.baselines is not None:
            # A distribution belongs to no sample, and is passed whole to each piece.
            cut = self.baselines if draws_baselines(self.method) else self._cut(self.baselines, rows)
            options["layer_baselines" if "layer_baselines" in self.takes else "baselines"] = cut
        if self.masks is not None:
            options["feature_mask"] = self._cut(self.masks, rows)
        if "internal_batch_size" in self.takes:
            # Captum's default is one batch of all steps, which takes 2.7 times as long as passes of the given samples.
            options["internal_batch_size"] = self.internal_batch_size
        # Captum's default is 1; Occlusion is 8 times as fast with 16. LayerFeatureAblation fails with more than 1 and a
        # target per sample.
        if "perturbations_per_eval" in self.takes and not returns_layer(self.method):
            copies = 1 if runs_samples_singly(self.method) else n
            # Not FORWARD_ONLY times as many: 256 images at once, which leave the cache, take 1.2 times as long as 64.
            options.setdefault("perturbations_per_eval", max(1, self.internal_batch_size // copies))
        if self.noise_tunnel is not None:
            options |= self._noise(n)
        return options

    def checker(self) -> Callable[[Tensor, int], None] | None:
        """Return the check of the first logits: one row per sample, and the target among their classes."""
        if "target" not in self.takes:
            return None
        whole, n = self.arguments.whole, self.arguments.n
        return lambda logits, rows: check_target(self.target, logits, rows, rows if whole else n)

    def _cut(self, parts: tuple[Any, ...], rows: slice) -> tuple[Any, ...]:
        n = self.arguments.n
        return tuple(
            part[rows] if isinstance(part, Tensor) and part.dim() and len(part) == n else part for part in parts
        )

    def _noise(self, n: int) -> dict[str, Any]:
        options = {
            # NoiseTunnel runs this many noisy copies of each of the n samples in one pass.
            "nt_samples_batch_size": max(1, self.internal_batch_size // (n * self.copies)),
            "draw_baseline_from_distrib": "GradientShap" in self.method.__name__,
            **tuples(self.noise_tunnel),
        }
        stdevs = options.get("stdevs", 1.0)
        options["stdevs"] = float(stdevs) if isinstance(stdevs, int) else stdevs  # Captum asserts a float
        return options

    def _find_baselines(self, baselines: Any) -> tuple[Any, ...] | None:
        if "layer_baselines" in self.takes:
            return None if baselines is None else baselines if isinstance(baselines, tuple) else (baselines,)
        if "baselines" not in self.takes:
            if baselines is not None:
                raise ValueError(
                    f"baselines expected None, since {self.method.__name__} takes none, but got {describe(baselines)}."
                )
            return None
        draws = draws_baselines(self.method)
        parts = self.arguments.like_inputs(baselines, "baselines")
        if parts is None and draws:  # these methods require a distribution; Captum's default elsewhere is zero too
            parts = (0,) * len(self.values)
        if parts is None:
            return None
        checked = tuple(_baseline(part, value, draws) for part, value in zip(parts, self.values, strict=True))
        return tuple(map(_drawn, checked, self.values)) if draws else checked

    def _find_masks(self, mask: Any) -> tuple[Tensor, ...] | None:
        if mask is None:
            return None
        if isinstance(mask, (tuple, list)) and len(self.values) == 1 and not isinstance(mask[0], (int, Tensor)):
            mask = _as_tensor(mask, "feature_mask")  # nested lists
        masks: list[Tensor] = []
        for part, value in zip(self.arguments.like_inputs(mask, "feature_mask") or (), self.values, strict=True):
            if isinstance(part, int):
                # Equal numbers in two inputs would be one feature.
                first = max((int(other.max()) + 1 for other in masks), default=0)
                part = patch_mask(value.shape, part) + first
            masks.append(_as_tensor(part, "feature_mask").to(value.device))
        return tuple(masks)


def as_target(target: Any, device: torch.device) -> int | Tensor | None:
    """Return the target as Captum takes it: an integer, an int64 tensor ``(N,)`` on the device, or ``None``.

    Raises:
        ValueError: it is anything else.

    Example:
        >>> as_target([0, 2], torch.device("cpu"))
        tensor([0, 2])
    """
    if target is None:
        return None
    try:
        given = torch.as_tensor(target, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"target expected a class, or one per sample, but got {target!r}.") from None
    if given.is_floating_point() or given.is_complex() or given.dim() > 1:
        raise ValueError(f"target expected a class, or one per sample (N,), but got {describe(given)}.")
    # A copy: a tensor made in inference mode cannot be saved for backward.
    return given.detach().clone().long() if given.dim() else int(given)


def check_target(target: int | Tensor | None, logits: Tensor, rows: int, n: int) -> None:
    """Refuse a target that does not fit the logits.

    Args:
        target: from :func:`as_target`.
        logits: ``(rows, classes)`` or ``(rows,)``.
        rows: number of samples in them.
        n: number of samples that are explained.

    Raises:
        ValueError: names the classes that there are.

    Example:
        >>> check_target(3, torch.zeros(8, 3), 8, 8)
        Traceback (most recent call last):
        ...
        ValueError: target expected classes from 0 to 2, but got 3.
    """
    check_logits(logits, rows)
    classes = 1 if logits.dim() == 1 else logits.shape[1]
    if target is None:
        if classes > 1:
            raise ValueError(
                f"target expected a class from 0 to {classes - 1}, one for all or one per sample, but got None."
            )
        return
    if logits.dim() == 1:
        raise ValueError(f"target expected None, since the network returns one number per sample, but got {target}.")
    given = torch.as_tensor(target)
    if given.dim() and len(given) != n:
        raise ValueError(f"target expected {n} classes, one per sample, but got {len(given)}.")
    wrong = given[(given < 0) | (given >= classes)]
    if wrong.numel():
        raise ValueError(f"target expected classes from 0 to {classes - 1}, but got {int(wrong.flatten()[0])}.")


def _as_tensor(part: Any, argument: str) -> Tensor:
    try:
        return torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{argument} expected numbers or tensors, but got {part!r}.") from None


def _baseline(part: Any, value: Tensor, draws: bool) -> Any:
    if isinstance(part, (int, float)):
        return part
    # A copy: a tensor made in inference mode cannot be saved for backward.
    given = _as_tensor(part, "baselines").detach().clone().to(value)
    rows = len(given) if given.dim() == value.dim() else 1
    try:
        if rows not in (1, len(value)) and not draws:
            raise RuntimeError
        return given.expand(rows, *value.shape[1:])
    except RuntimeError:
        many = "any number" if draws else f"1 or {len(value)}"
        raise ValueError(
            f"baselines expected a number or a tensor of {many} x {tuple(value.shape[1:])} for inputs of shape"
            f" {tuple(value.shape)}, but got {tuple(given.shape)}."
        ) from None


def _drawn(baseline: Any, value: Tensor) -> Tensor:
    """Return a baseline as a distribution to draw from; Captum requires two members at least."""
    if not isinstance(baseline, Tensor):
        baseline = torch.full_like(value[:1], baseline)
    return baseline.expand(2, *baseline.shape[1:]) if len(baseline) == 1 else baseline
