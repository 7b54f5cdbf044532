"""The one number of a sample that is explained where the network answers for every pixel, token, cell or query.

Such outputs have more dimensions than ``(N, classes)``. Of each sample the place with the highest score is explained,
for a class map the best-scored place that has its own label there; ``output=`` picks or reduces instead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.arguments import named_leaves
from lit_xai.network.describing import describe
from lit_xai.network.outputs import Found, OutputSpec, find_logits, place_in_scales
from lit_xai.network.trees import leaves

CLASS_COUNTS = ("nc", "num_classes", "num_labels")
"""Attributes in which networks say how many classes they tell apart."""

BOX_NUMBERS = (4, 5, 64)
"""Channels for the box, with objectness or without, or distributions of its four sides, before those of the classes."""


@dataclass(frozen=True)
class Form:
    """How an output ``(N, ...)`` of more than two dimensions is put together.

    Args:
        place: the name of one of its places: ``"pixel"``, ``"position"``, ``"token"``, ``"cell"`` or ``"query"``.
        class_dim: the dimension of the classes, 1 or the last one.
        sizes: of the places, ``(H, W)``.
        classes: the first of the channels that are classes, and the one after the last.
        scales: of the maps where all places are beside each other.

    Example:
        >>> Form("pixel", 1, (4, 6), (0, 3)).in_words(torch.tensor([2, 1, 5]))
        'pixel (1, 5)'
    """

    place: str
    class_dim: int
    sizes: tuple[int, ...]
    classes: tuple[int, int]
    scales: tuple[tuple[int, ...], ...] = ()

    def in_words(self, index: Tensor) -> str:
        """Return the place of an element in words.

        Args:
            index: of the element in the output of its sample, ``(k,)``.
        """
        where = self._where(index)
        if self.scales:
            scale, where = self._in_scale(where[0])
            return f"{self.place} {_numbers(where)} of scale {scale}"
        return f"{self.place} {_numbers(where)}"

    def box(self, index: Tensor) -> tuple[float, float, float, float]:
        """Return where in the picture a place is: top, left, bottom and right edge, as shares of its height and width.

        Args:
            index: of the element in the output of its sample, ``(k,)``.
        """
        where, sizes = self._where(index), self.sizes
        if self.scales:
            scale, where = self._in_scale(where[0])
            sizes = self.scales[scale]
        # Of volumes and of cells with several anchors, the last two dimensions are the picture's.
        where, sizes = where[-2:], sizes[-2:]
        if len(sizes) == 1:
            return 0.0, where[0] / sizes[0], 1.0, (where[0] + 1) / sizes[0]
        (y, x), (height, width) = where, sizes
        return y / height, x / width, (y + 1) / height, (x + 1) / width

    def _where(self, index: Tensor) -> tuple[int, ...]:
        places = index[1:] if self.class_dim == 1 else index[:-1]
        return tuple(int(i) for i in places)

    def _in_scale(self, place: int) -> tuple[int, tuple[int, ...]]:
        scale, place = place_in_scales(self.scales, place)
        return scale, tuple(int(i) for i in torch.unravel_index(torch.tensor(place), self.scales[scale]))

    def by_place(self, logits: Tensor) -> Tensor:
        """Return logits ``(N, ...)`` of all classes as ``(N, places, classes)``."""
        first, after = self.classes
        return logits.movedim(self.class_dim, -1).flatten(1, -2)[..., first:after]

    def index(self, places: Tensor, classes: Tensor) -> Tensor:
        """Return the index ``(N, k)`` of the elements at ``places`` ``(N,)`` of :meth:`by_place` and ``classes``."""
        where = torch.stack(torch.unravel_index(places, self.sizes), 1)
        channel = (classes + self.classes[0])[:, None]
        return torch.cat([channel, where] if self.class_dim == 1 else [where, channel], 1)


@dataclass(frozen=True)
class Elements:
    """The explained element of each sample.

    Args:
        form: of the output.
        index: in the output of a sample, ``(N, k)``: ``(class, y, x)`` of maps, ``(token, class)`` of sequences.
        logits: of all classes at its place, ``(N, classes)``.
        labels: the class at its place ``(N,)``; -1 where there is none, ``None`` where there are no labels by place.
        boxes: where in the picture it is, ``(N, 4)``: top, left, bottom, right, as shares.
    """

    form: Form
    index: Tensor
    logits: Tensor
    labels: Tensor | None
    boxes: Tensor


def is_dense(logits: Tensor) -> bool:
    """Return whether logits hold more than one row per sample.

    Example:
        >>> is_dense(torch.zeros(2, 3)), is_dense(torch.zeros(2, 3, 8, 8))
        (False, True)
    """
    return logits.dim() > 2


def read_form(found: Found, result: Any, network: nn.Module, inputs: Any, labels: Tensor | None = None) -> Form:
    """Return how an output is put together, by what comes with it, the labels, the inputs and the network.

    Of ``(N, A, B)`` the classes are in the last dimension (tokens) or in the first (positions of a series): as the
    labels have one of these lengths, else a floating or an integer input, else as the network counts its classes, and
    otherwise the last.

    Args:
        found: the logits.
        result: what the network returned.
        network: that returned it.
        inputs: of these samples.
        labels: of these samples, if there are any.

    Example:
        >>> found = Found(torch.zeros(2, 5, 8, 8))
        >>> read_form(found, found.logits, nn.Identity(), torch.zeros(2, 3, 8, 8)).place
        'pixel'
    """
    logits, counts = found.logits, _class_counts(network)
    sizes = tuple(logits.shape[1:])
    if _boxes_of(result, logits) is not None:
        # The last class of detectors with queries is "no object".
        classes = sizes[1] if sizes[1] in counts else sizes[1] - 1
        return Form("query", -1, sizes[:1], (0, max(classes, 1)))
    if found.scales:
        return Form("cell", 1, sizes[1:], _class_channels(sizes[0], counts), found.scales)
    is_last = _classes_are_last(logits, inputs, labels, counts)
    channels, places = (sizes[-1], sizes[:-1]) if is_last else (sizes[0], sizes[1:])
    name = "pixel" if len(places) > 1 else "token" if is_last else "position"
    return Form(name, -1 if is_last else 1, places, _class_channels(channels, counts))


def choose_elements(
    found: Found,
    result: Any,
    network: nn.Module,
    inputs: Any,
    labels: Tensor | None = None,
    target: str | int = "label",
    index: Tensor | None = None,
) -> Elements:
    """Return the element to explain of each sample.

    Args:
        found: the logits ``(N, ...)``, more than two dimensions.
        result: what the network returned.
        network: that returned it.
        inputs: of these samples; tokens that an ``attention_mask`` leaves out are not chosen.
        labels: ``(N, places)`` classes, ``(N, classes, places)`` of zeros and ones, or ``(N,)`` classes. A map of
            classes may be larger than the output.
        target: ``"label"`` (the place whose own class has the highest score; the prediction where there are no such
            labels), ``"prediction"`` (the place with the highest score of any class), or a class.
        index: of elements that were chosen before, ``(N, k)``.

    Raises:
        ValueError: the target is no class of the output, or an element that was chosen before is not in it.

    Example:
        >>> logits = torch.zeros(1, 3, 4, 4)
        >>> logits[0, 2, 1, 3] = 5.0
        >>> choose_elements(Found(logits), logits, nn.Identity(), torch.zeros(1, 1, 4, 4)).index
        tensor([[2, 1, 3]])
    """
    logits = found.logits.detach()
    form = read_form(found, result, network, inputs, labels)
    rows, n = form.by_place(logits), len(logits)
    classes = _labels_by_place(labels, form, logits)
    each = torch.arange(n, device=logits.device)
    if index is None:
        places, chosen = _best(rows, form, classes, target, _padding(inputs, form, n))
        index = form.index(places, chosen)
    else:
        index = index.to(logits.device)
        flat_index(index, tuple(logits.shape[1:]))  # refuses what is not in this output
    where = index[:, 1:] if form.class_dim == 1 else index[:, :-1]
    place = _flat(where, form.sizes)
    boxes = _boxes_of(result, logits)
    return Elements(
        form,
        index,
        rows[each, place],
        None if classes is None else classes[each, place],
        (torch.tensor([form.box(one) for one in index]) if boxes is None else _edges(boxes[each, place])).to(
            each.device
        ),
    )


def _best(
    rows: Tensor,
    form: Form,
    classes: Tensor | None,
    target: str | int,
    padding: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return place and class with the highest score among those that may be chosen, of each sample."""
    # Cells have a score for each class by itself; elsewhere classes compete at a place.
    single = rows.shape[2] == 1 or form.place == "cell"
    scores = rows.float() if single else rows.float().log_softmax(2)
    if padding is not None:
        scores = scores.masked_fill(~padding[..., None], -math.inf)
    if isinstance(target, int):
        if target >= rows.shape[2]:
            raise ValueError(f"target expected classes from 0 to {rows.shape[2] - 1}, but got {target}.")
        return scores[..., target].argmax(1), torch.full_like(rows[:, 0, 0], target, dtype=torch.int64)
    allowed = _labeled(rows, classes) if target == "label" else None
    if allowed is not None:
        # A sample without a label of its own is explained at its prediction.
        allowed |= ~(allowed & scores.isfinite()).flatten(1).any(1)[:, None, None]
        scores = scores.masked_fill(~allowed, -math.inf)
    best = scores.flatten(1).argmax(1)
    return best // rows.shape[2], best % rows.shape[2]


def _labeled(rows: Tensor, classes: Tensor | None) -> Tensor | None:
    """Return which classes are labels at which places, ``(N, places, classes)``."""
    count = rows.shape[2]
    if classes is None:
        return None
    if count == 1:  # one output says whether a place is of the one class
        return classes[..., None] == 1
    return classes[..., None] == torch.arange(count, device=rows.device)


def _labels_by_place(labels: Tensor | None, form: Form, logits: Tensor) -> Tensor | None:
    """Return the class at each place, ``(N, places)``, -1 where there is none, or ``None``."""
    if labels is None or not labels.dim():
        return None
    n, labels = len(logits), labels.to(logits.device)
    if labels.numel() == n and not labels.is_floating_point():  # a class of the whole sample
        return labels.reshape(n, 1).expand(n, math.prod(form.sizes)).long()
    if labels.shape == logits.shape:  # zeros and ones of each class
        if not ((labels == 0) | (labels == 1)).all():
            return None
        marked = form.by_place(labels)
        return torch.where(marked.amax(2) > 0, marked.long().argmax(2), 0 if marked.shape[2] == 1 else -1) + (
            marked.long().amax(2) if marked.shape[2] == 1 else 0
        )
    if labels.dim() == logits.dim() and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_map = labels.shape[0] == n and labels.dim() == 1 + len(form.sizes) and not form.scales
    if not is_map or (labels.is_floating_point() and not ((labels == 0) | (labels == 1)).all()):
        return None
    for dim, size in enumerate(form.sizes, 1):
        if labels.shape[dim] % size:
            return None
        # A segmenter's map may be coarser than its labels: of each cell's labels the middle one.
        step = labels.shape[dim] // size
        labels = labels.index_select(dim, torch.arange(size, device=labels.device) * step + step // 2)
    return labels.flatten(1).long()


def _padding(inputs: Any, form: Form, n: int) -> Tensor | None:
    """Return which tokens are no padding, ``(N, T)``, where the inputs say so."""
    if form.place != "token":
        return None
    masks = [
        value
        for name, value in named_leaves(inputs)
        if name.endswith("attention_mask") and tuple(value.shape) == (n, form.sizes[0])
    ]
    return masks[-1] > 0 if masks else None


def _classes_are_last(logits: Tensor, inputs: Any, labels: Tensor | None, counts: set[int]) -> bool:
    """Decide from the evidence whether classes are in the last dimension rather than in dimension 1."""
    first, last = tuple(logits.shape[2:]), tuple(logits.shape[1:-1])  # the places, if classes are first, or last
    seen = [] if labels is None else [tuple(labels.shape[1:])]
    tensors = [value for _, value in leaves(inputs) if value.dim() > 1 and len(value) == len(logits)]
    for tensor in tensors:
        k = len(first)
        # Tokens (N, T); images and series (N, C, ...), or with their features last (N, ..., C).
        seen += [tuple(tensor.shape[1:])] if not tensor.is_floating_point() else []
        seen += [tuple(tensor.shape[2:]), tuple(tensor.shape[1:-1])] if tensor.dim() == k + 2 else []
    for sizes in seen:
        if sizes == first != last:
            return False
        if sizes == last != first:
            return True
    if (logits.shape[1] in counts) != (logits.shape[-1] in counts):
        return logits.shape[-1] in counts
    return logits.dim() == 3


def _class_counts(network: nn.Module) -> set[int]:
    """Return the numbers of classes that a network, its parts or its configuration say they have."""
    owners = [*network.modules(), getattr(network, "config", None)]
    found = {getattr(owner, name, None) for owner in owners if owner is not None for name in CLASS_COUNTS}
    return {count for count in found if isinstance(count, int) and count > 0}


def _class_channels(channels: int, counts: set[int]) -> tuple[int, int]:
    """Return which channels are classes: the last ones, behind the numbers of a box."""
    for count in counts:
        if channels - count in BOX_NUMBERS and channels not in counts:
            return channels - count, channels
    return 0, channels


def _boxes_of(result: Any, logits: Tensor) -> Tensor | None:
    """Return the boxes ``(N, Q, 4)`` that come with the logits of queries."""
    boxes = result.get("pred_boxes") if isinstance(result, Mapping) else getattr(result, "pred_boxes", None)
    fits = isinstance(boxes, Tensor) and logits.dim() == 3 and tuple(boxes.shape) == (*logits.shape[:2], 4)
    return boxes.detach() if fits and isinstance(boxes, Tensor) else None


def _edges(boxes: Tensor) -> Tensor:
    """Return top, left, bottom, right of boxes ``(N, 4)`` given as center x, y, width and height."""
    x, y, width, height = boxes.float().unbind(1)
    return torch.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], 1).clamp(0, 1)


def flat_index(index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the places ``(N,)`` in flattened outputs of elements ``(N, k)`` in outputs of a shape.

    Raises:
        ValueError: there is no such element.

    Example:
        >>> flat_index(torch.tensor([[2, 1, 3]]), (3, 4, 4))
        tensor([39])
    """
    if index.dim() != 2 or index.shape[1] != len(shape):
        raise ValueError(
            f"target expected an index of {len(shape)} numbers for each sample, of an output of shape {shape}, but got"
            f" {describe(index)}."
        )
    limits = torch.tensor(shape, device=index.device)
    wrong = index[((index < 0) | (index >= limits)).any(1)]
    if len(wrong):
        raise ValueError(f"target expected indices of an output of shape {shape}, but got {tuple(map(int, wrong[0]))}.")
    return _flat(index, shape)


def _flat(index: Tensor, shape: tuple[int, ...]) -> Tensor:
    found = torch.zeros(len(index), dtype=torch.int64, device=index.device)
    for dim, size in enumerate(shape):
        found = found * size + index[:, dim]
    return found


@dataclass(frozen=True)
class Flattened:
    """The ``output`` that gives one row per sample, ``(N, numbers)``, of logits with more dimensions.

    Args:
        output: where the logits are.

    Example:
        >>> Flattened(None)(torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 48])
    """

    output: OutputSpec

    def __call__(self, result: Any) -> Tensor:
        """Return the flattened logits in what a network returned."""
        return find_logits(result, self.output).flatten(1)


def _numbers(where: tuple[int, ...]) -> str:
    return str(where[0]) if len(where) == 1 else f"({', '.join(map(str, where))})"
