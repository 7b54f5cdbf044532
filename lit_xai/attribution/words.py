"""Words of several tokens, which methods that take inputs away take away whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.methods import attribute_parameters, resolve_method
from lit_xai.network.arguments import Inputs


@dataclass(frozen=True)
class ByWords:
    """A method of Captum that hides whole words.

    Args:
        method: of ``captum.attr``.
        attribute_args: for its ``attribute``, with a ``feature_mask`` for each sample.
        words: the number of the word that each token belongs to, ``(N, T)``, counted from 0 in each text.
    """

    method: str | type
    attribute_args: dict[str, Any]
    words: Tensor


def by_words(
    method: str | type,
    attribute_args: Mapping[str, Any] | None,
    inputs: Inputs,
    token_names: Sequence[str] | None,
    most: int | None = None,
) -> ByWords | None:
    """Return how a method hides words of texts instead of tokens, and ``None`` where it hides none, or by other groups.

    Methods that take a ``feature_mask`` get one for each sample. Occlusion takes none; with a window of one token, or
    none yet, it becomes FeatureAblation, which it is. Where a mask or a wider window is named, that is used.

    Args:
        method: a class of ``captum.attr``, its name or import path.
        attribute_args: for its ``attribute``.
        inputs: of the network.
        token_names: of the ids of text.
        most: words that are hidden one by one; of longer texts, neighbors are hidden together.

    Example:
        >>> names = ["[PAD]", "un", "##happy", "film"]
        >>> found = by_words("Occlusion", {"sliding_window_shapes": (1,)}, torch.tensor([[1, 2, 3, 3]]), names)
        >>> found.method, found.words
        ('FeatureAblation', tensor([[0, 0, 1, 2]]))
        >>> by_words("Saliency", None, torch.tensor([[1, 2, 3, 3]]), names) is None
        True
    """
    cls, args = resolve_method(method), dict(attribute_args or {})
    is_window = cls.__name__ == "Occlusion"
    if is_window:
        shapes = [args.pop(name, None) for name in ("sliding_window_shapes", "strides")]
        is_window = all(shape in (None, 1, (1,), [1]) for shape in shapes)
        if not is_window:
            return None
    # FeaturePermutation swaps places between samples, whose words differ.
    takes = "feature_mask" in attribute_parameters(cls) and "FeaturePermutation" not in cls.__name__
    if token_names is None or args.get("feature_mask") is not None or not (takes or is_window):
        return None
    arguments = SplitInputs(inputs, any_dtype=True)
    explained = [arguments.values[i] for i in arguments.explained]
    if len(explained) != 1 or explained[0].is_floating_point() or explained[0].dim() != 2:
        return None
    words = words_of(explained[0], token_names)
    groups = words if most is None else words // -(-(int(words.max()) + 1) // most)
    return ByWords("FeatureAblation" if is_window else method, args | {"feature_mask": groups}, words)


def words_of(ids: Tensor, token_names: Sequence[str]) -> Tensor:
    """Return the number of the word that each token belongs to, counted from 0 in each text; all padding is one word.

    Args:
        ids: of the tokens, ``(N, T)``.
        token_names: of the ids; :class:`~lit_xai.network.token_names.TokenNames` says what joins pieces.

    Example:
        >>> words_of(torch.tensor([[1, 2, 0, 0, 0]]), ["[PAD]", "good", "##ness"])
        tensor([[0, 0, 1, 1, 1]])
    """
    from lit_xai.network.token_names import TokenNames
    from lit_xai.render.pieces import word_numbers  # the figures', which join pieces likewise

    names = TokenNames(token_names)
    return torch.tensor([word_numbers(row, names) for row in ids.tolist()], dtype=torch.int64, device=ids.device)


def begins_word(words: Tensor) -> Tensor:
    """Return whether a token is the first of its word, ``(N, T)``: what counts each word once.

    Args:
        words: as :func:`words_of` returns them.

    Example:
        >>> begins_word(torch.tensor([[0, 0, 1]]))
        tensor([[ True, False,  True]])
    """
    return torch.diff(words, dim=1, prepend=words[:, :1] - 1) != 0
