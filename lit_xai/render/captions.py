"""The caption of each sample: its true label, the prediction with its probability, and whether they agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

PerSample: TypeAlias = torch.Tensor | NDArray[Any] | Sequence[Any] | None


@dataclass(frozen=True)
class Caption:
    """The words of one sample; ``correct`` is None where right and wrong have no meaning (a regression).

    ``place`` is what was explained where the network answers for many places: ``"pixel (12, 30)"``.
    """

    true: str = ""
    predicted: str = ""
    probability: float | None = None
    correct: bool | None = None
    place: str = ""

    @property
    def verdict(self) -> str:
        """Return what follows the prediction: its probability and a mark that does not depend on color.

        Example:
            >>> Caption("cat", "dog", 0.8, correct=False).verdict
            ' (80%) ✗'
        """
        mark = {True: " ✓", False: " ✗", None: ""}[self.correct]
        return (f" ({100 * self.probability:.0f}%)" if self.probability is not None else "") + mark


def make_captions(
    n: int,
    labels: PerSample,
    predictions: PerSample,
    probabilities: PerSample,
    class_names: Sequence[str] | None,
    places: Sequence[str] = (),
) -> list[Caption]:
    """Return one caption per sample from those of labels, predictions and probabilities that are known.

    Args:
        n: how many samples.
        labels: class indices ``(N,)``, names, values of a regression, or multi-hot ``(N, K)``.
        predictions: in the form of ``labels``; default the most probable class where ``probabilities`` is ``(N, K)``.
        probabilities: of the predicted class ``(N,)``, or of every class ``(N, K)``.
        class_names: the name of each class index.
        places: of what was explained in each sample, in words; empty where there is one.

    Raises:
        ValueError: one of them does not hold ``n`` samples.

    Example:
        >>> make_captions(1, [0], None, np.array([[0.2, 0.8]]), ["cat", "dog"])
        [Caption(true='cat', predicted='dog', probability=0.8, correct=False, place='')]
    """
    given = {"labels": labels, "predictions": predictions, "probabilities": probabilities}
    known = {name: _per_sample(values, name, n) for name, values in given.items() if values is not None}
    chances = known.get("probabilities")
    if len(places) not in (0, n):
        raise ValueError(f"places expected one entry for each of the {n} samples, but got {len(places)}.")
    if chances is not None and chances.ndim == 2:
        if "predictions" not in known:
            known["predictions"] = chances.argmax(axis=1)
        # Of all classes, the probability of the predicted one is shown.
        chances = _chances_of(known["predictions"], chances)
    true = _names(known.get("labels"), n, class_names)
    predicted = _names(known.get("predictions"), n, class_names)
    return [
        Caption(t, p, None if chances is None else float(chances[i]), c, places[i] if places else "")
        for i, (t, p, c) in enumerate(zip(true, predicted, _correct(known, true, predicted), strict=True))
    ]


def _per_sample(values: Any, name: str, n: int) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    array = np.asarray(values)
    if array.ndim == 0 or len(array) != n or array.ndim > 2:
        raise ValueError(f"{name} expected one entry for each of the {n} samples, but got shape {array.shape}.")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def are_classes(predictions: PerSample, n: int) -> bool:
    """Return whether there are predictions, and these are classes: of two values, no two are ever equal.

    Example:
        >>> are_classes([0, 1], 2), are_classes([3.5, 4.0], 2), are_classes(None, 2)
        (True, False, False)
    """
    return predictions is not None and _per_sample(predictions, "predictions", n).dtype.kind != "f"


def _chances_of(predictions: NDArray[Any], chances: NDArray[Any]) -> NDArray[Any] | None:
    if predictions.ndim != 1 or predictions.dtype.kind not in "iub" or predictions.max(initial=0) >= chances.shape[1]:
        return None
    return np.take_along_axis(chances, predictions.astype(np.int64)[:, None], axis=1)[:, 0]


def _correct(known: dict[str, NDArray[Any]], true: list[str], predicted: list[str]) -> list[bool | None]:
    labels, predictions = known.get("labels"), known.get("predictions")
    # Kinds of NumPy's dtypes: f floats, the values of a regression; U text, names of classes.
    if labels is None or predictions is None or "f" in labels.dtype.kind + predictions.dtype.kind:
        return [None] * len(true)
    if labels.shape == predictions.shape and "U" not in labels.dtype.kind + predictions.dtype.kind:
        return [bool(np.all(label == prediction)) for label, prediction in zip(labels, predictions, strict=True)]
    return [t == p for t, p in zip(true, predicted, strict=True)]


def _names(values: NDArray[Any] | None, n: int, class_names: Sequence[str] | None) -> list[str]:
    if values is None:
        return [""] * n
    if values.ndim == 2:
        return [", ".join(_name(k, class_names) for k in np.flatnonzero(row)) or "none" for row in values]
    return [_name(value, class_names) for value in values]


def _name(value: Any, class_names: Sequence[str] | None) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.3g}"
    if isinstance(value, (int, np.integer)) and class_names is not None and 0 <= value < len(class_names):
        value = class_names[int(value)]
    return " ".join(str(value).split())


def lines_of(captions: Sequence[Caption]) -> int:
    """Return how many lines the captions of a figure take.

    Example:
        >>> lines_of([Caption("cat")]), lines_of([Caption("cat", "dog")])
        (1, 2)
    """
    return 2 if any(caption.predicted or caption.place for caption in captions) else 1


def ends_of(maps: Sequence[torch.Tensor], has_classes: bool) -> tuple[str, str]:
    """Return the effects of negative and positive values of maps, in words.

    Args:
        maps: of each network.
        has_classes: whether it is a class that they speak for, rather than a value.

    Example:
        >>> ends_of([torch.tensor([-1.0, 2.0])], has_classes=True)
        ('against', 'for the class')
    """
    if not any(bool((one < 0).any()) for one in maps):
        return "less", "counts more"  # of the difference, which has a sign
    return ("against", "for the class") if has_classes else ("lowers", "raises value")
