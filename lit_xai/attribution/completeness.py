"""How far the attributions of path methods are from adding up to the change of the output, in as few passes as can be.

Captum takes two passes of all samples for it: of the samples, whose logits are known where a network was run before it
was explained, and of the baselines, which are most often the same for all samples.
"""

from typing import Any

import torch
from torch import Tensor

from lit_xai.attribution.adapter import Forward
from lit_xai.attribution.methods import draws_baselines
from lit_xai.attribution.options import FORWARD_ONLY, Options


def has_plain_gap(options: Options) -> bool:
    """Return whether a method follows one path for each sample, from a baseline that is not drawn.

    Args:
        options: of the call.
    """
    from captum.attr import GradientAttribution

    plain = getattr(options.method, "compute_convergence_delta", None) is GradientAttribution.compute_convergence_delta
    has_path = "n_steps" in options.takes and options.has_delta and not draws_baselines(options.method)
    return plain and has_path and options.noise_tunnel is None and not options.arguments.whole


def gap(attributions: Any, change: Tensor) -> Tensor:
    """Return the sum of each sample's attributions minus the change of its output, ``(N,)``.

    Args:
        attributions: ``(N, ...)``, one tensor or several.
        change: from :func:`output_change`.

    Raises:
        ValueError: attributions of a layer do not hold a row for each sample.

    Example:
        >>> gap((torch.ones(2, 3), torch.ones(2, 1)), torch.tensor([4.0, 3.0]))
        tensor([0., 1.])
    """
    parts = attributions if isinstance(attributions, tuple) else (attributions,)
    for part in parts:
        if len(part) != len(change):
            raise ValueError(f"layer expected a row for each of {len(change)} samples, but its output has {len(part)}.")
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0) - change


def output_change(forward: Forward, options: Options, logits: Tensor | None = None) -> Tensor:
    """Return f(x) - f(baseline) of the output that is explained, ``(N,)``.

    Args:
        forward: the network.
        options: of the call.
        logits: f(x), if it is known.
    """
    if logits is None:
        logits = _run(forward, options, options.values)
    return _explained(logits, options) - _explained(_of_baselines(forward, options), options)


def _of_baselines(forward: Forward, options: Options) -> Tensor:
    """Return f(baseline) for each sample, from as many rows as differ."""
    given = options.baselines or (0,) * len(options.values)
    parts = [torch.as_tensor(part).to(value) for part, value in zip(given, options.values, strict=True)]
    if options.arguments.along or any(part.dim() and len(part) > 1 for part in parts):
        return _run(
            forward, options, [part.expand_as(value) for part, value in zip(parts, options.values, strict=True)]
        )
    # Two rows: a network may drop the dimension of a single one.
    few = [part.expand(2, *value.shape[1:]) for part, value in zip(parts, options.values, strict=True)]
    one = _run(forward, options, few)[:1]
    return one.expand(options.arguments.n, *one.shape[1:])


def _run(forward: Forward, options: Options, tensors: list[Tensor]) -> Tensor:
    rows = options.arguments.rows(slice(None))
    every = [*tensors, *(rows[i] for i in options.arguments.along)]
    pieces = zip(*(part.split(FORWARD_ONLY * options.internal_batch_size) for part in every), strict=True)
    with torch.no_grad():
        return torch.cat([forward(*piece) for piece in pieces])


def _explained(logits: Tensor, options: Options) -> Tensor:
    """Return the output that is explained of each sample, ``(N,)``."""
    target = options.target
    if target is None or logits.dim() == 1:
        return logits.detach().reshape(len(logits))
    return logits.detach().gather(1, torch.as_tensor(target, device=logits.device).expand(len(logits))[:, None])[:, 0]
