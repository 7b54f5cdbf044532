"""What each token that an encoder-decoder writes owes to each token that it has read."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.explanation import explain
from lit_xai.attribution.tokens import METHOD, embedding_instead
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec
from lit_xai.network.rows import take

WRITTEN = "decoder_input_ids"


def source_matrix(
    network: nn.Module,
    inputs: dict[str, Any],
    tokens: Tensor,
    *,
    source: str = "input_ids",
    output: OutputSpec = None,
    internal_batch_size: int = 64,
    seed: int = 0,
    **options: Any,
) -> list[Tensor]:
    """Return a matrix of attributions for each sample: a row for each written token, a column for each one read.

    A cell is what the token read adds to the logit of the token written, given all tokens before that: by default the
    Integrated Gradients of its embedding from that of padding, summed over the embedding.

    Args:
        network: an encoder-decoder, left as it is.
        inputs: of ``N`` samples, with ``decoder_input_ids`` ``(N, T)``: what the decoder has read when it writes.
        tokens: that are written, ``(N, T)``; rows end before the first negative one.
        source: the name of what was read, ``(N, S)``.
        output: where the logits ``(N, T, vocab)`` are.
        internal_batch_size: most samples in one forward/backward pass.
        seed: of methods that draw.
        options: ``method``, ``layer``, ``baselines``, ``attribute_args`` as for
            :func:`~lit_xai.functional.attribute`; the method is one for layers.

    Returns:
        ``(T_i, S_i)`` for each sample, without padding where there is an ``attention_mask``.

    Raises:
        ValueError: no tokens of ``source`` enter an embedding; as :func:`~lit_xai.functional.attribute`.
    """
    if "method" not in options:
        found = embedding_instead(network, inputs, output=output)
        if found is None:
            raise ValueError(
                f"source_matrix expected tokens that enter an embedding, but {type(network).__name__} has none: name a"
                " method for layers, and its layer."
            )
        options = {"method": METHOD, "layer": found.layer, "baselines": found.padding} | options
    n = len(tokens)
    lengths = [_length(row) for row in tokens]
    maps = [
        _rows(network, take(inputs, [i] * length, n), tokens[i, :length], output, internal_batch_size, seed, options)
        if length
        else torch.zeros(0, inputs[source].shape[1])
        for i, length in enumerate(lengths)
    ]
    mask = inputs.get("attention_mask")
    widths = [inputs[source].shape[1]] * n if mask is None else mask.sum(1).tolist()
    return [one[:, :width] for one, width in zip(maps, widths, strict=True)]


def _rows(
    network: nn.Module,
    repeated: Inputs,
    written: Tensor,
    output: OutputSpec,
    size: int,
    seed: int,
    options: dict[str, Any],
) -> Tensor:
    """Return the attributions ``(T, S)`` of one sample, of which each row explains another token."""
    places = torch.arange(len(written), device=written.device)
    elements = torch.stack([places, written], 1)
    found = explain(
        network, repeated, None, elements=elements, output=output, internal_batch_size=size, seed=seed, **options
    )
    (maps,) = found.attributions.values()
    return (maps.sum(-1) if maps.dim() == 3 else maps).detach().float().cpu()


def _length(row: Sequence[int] | Tensor) -> int:
    """Return how many tokens come before the first negative one."""
    negative = (torch.as_tensor(row) < 0).nonzero()
    return int(negative[0]) if len(negative) else len(row)
