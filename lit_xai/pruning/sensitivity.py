"""How much a metric suffers when one layer alone is pruned: which layers can give channels, and which cannot."""

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from lit_xai.network.calling import BatchToInputs, OutputSpec, call_network, find_inputs, find_labels, module_names
from lit_xai.network.copying import copy_network
from lit_xai.network.describing import describe
from lit_xai.network.layers import channels
from lit_xai.network.probing import to_device
from lit_xai.network.spelling import nearest
from lit_xai.network.untouched import fork_rng, untouched
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import check_ratio

Metric: TypeAlias = Any
"""A ``torchmetrics.Metric`` that takes logits and labels, or a function of the network that returns a number."""

_Row = TypeVar("_Row")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a metric was with one layer at a time changed.

    Args:
        layers: the names of each row's layers: those that can only be changed together.
        columns: by how much each column changes them.
        values: the metric, ``(layers, columns)``, float64.
        dense: the metric before anything is changed.
        higher_is_better: whether a higher value is a better one.
        metric: what the metric is called.
    """

    layers: tuple[tuple[str, ...], ...]
    columns: tuple[Any, ...]
    values: Tensor
    dense: float
    higher_is_better: bool = True
    metric: str = "metric"

    @property
    def drop(self) -> Tensor:
        """How much worse than dense each value is, like ``values``; negative where it is better."""
        return self.dense - self.values if self.higher_is_better else self.values - self.dense

    def affordable(self, max_drop: float) -> Tensor:
        """Return which cells cost at most ``max_drop``, in the metric's own unit.

        Raises:
            ValueError: it is negative or no number.
        """
        if not max_drop >= 0:
            raise ValueError(f"max_drop expected a number of at least 0, but got {max_drop}.")
        # 0.90 - 0.88 is a little more than 0.02 in floating point.
        return self.drop <= max_drop + 1e-9 * max(1.0, abs(self.dense))

    def _affordable_columns(self, max_drop: float) -> Iterator[tuple[str, list[Any]]]:
        """Yield each layer and the columns that cost at most ``max_drop``."""
        for names, row in zip(self.layers, self.affordable(max_drop).tolist(), strict=True):
            columns = [column for column, ok in zip(self.columns, row, strict=True) if ok]
            yield from ((name, columns) for name in names)


class Sensitivity(Measured):
    """What :func:`layer_sensitivity` measured: rows are layers whose channels can only go together."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """The share of channels that each column removes."""
        return self.columns

    def to_ratios(self, max_drop: float) -> dict[str, float]:
        """Return for each layer the largest ratio that costs at most ``max_drop``, 0 if there is none.

        What layers cost one by one does not add up: pruned together they cost more. Coupled layers come with the same
        ratio each, as :func:`~lit_xai.pruning.pruning.prune_step` takes them for ``pruning_ratio_dict``.

        Args:
            max_drop: in the metric's own unit.

        Raises:
            ValueError: it is negative or no number.

        Example:
            >>> values = torch.tensor([[0.90, 0.80], [0.89, 0.89], [0.5, 0.4]])
            >>> Sensitivity((("a",), ("b", "c"), ("d",)), (0.3, 0.5), values, 0.9).to_ratios(0.02)
            {'a': 0.3, 'b': 0.5, 'c': 0.5, 'd': 0.0}
        """
        return {name: max(ratios, default=0.0) for name, ratios in self._affordable_columns(max_drop)}


def layer_sensitivity(
    network: nn.Module,
    loader: Iterable[Any],
    metric: Metric,
    ratios: Sequence[float] = (0.1, 0.3, 0.5, 0.7),
    *,
    layers: Iterable[str] | None = None,
    importance: Any = None,
    round_to: int | None = None,
    ignored_layers: Iterable[str | type] = (),
    higher_is_better: bool | None = None,
    batch_to_inputs: BatchToInputs = None,
    call: str = "forward",
    output: OutputSpec = None,
    progress: bool = True,
) -> Sensitivity:
    """Prune each layer alone at each ratio, without fine-tuning, and measure what that does to a metric.

    Layers whose channels can only go together (around a residual sum, say) are pruned together and share a row. The
    network, the metric and every random generator are left as they were; each measurement runs in eval mode, starts
    from the same seed and sees the same batches.

    It takes ``rows * ratios + 1`` passes over the loader, fewer where ratios round to the same number of channels: give
    a loader of a few hundred samples.

    Args:
        network: the module to prune.
        loader: yields batches, in the same order each time, on any device. One batch is traced with.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that takes a network and
            returns a number.
        ratios: shares of channels to remove, each in [0, 1).
        layers: which layers to look at, by name; default all that can be pruned.
        importance: see :func:`~lit_xai.pruning.pruning.prune_step`.
        round_to: likewise.
        ignored_layers: likewise.
        higher_is_better: what the metric does not say itself (its ``higher_is_better``).
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        call: the network's method that is called.
        output: see :func:`~lit_xai.network.calling.find_logits`.
        progress: whether to show a progress bar.

    Raises:
        ValueError: the loader is empty, can be read only once or has no labels, there is no ratio or one is outside
            [0, 1), a name is no layer that can be pruned, the network does not run when pruned, or the
            metric is not one finite number.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> loader = [(torch.randn(16, 4), torch.randint(3, (16,)))]
        >>> weights = lambda network: sum(p.numel() for p in network.parameters())
        >>> found = layer_sensitivity(network, loader, weights, (0.25, 0.5), higher_is_better=False, progress=False)
        >>> found.layers, found.dense, found.values.tolist()
        ((('0',),), 67.0, [[51.0, 35.0]])
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

    ratios = _checked_ratios(ratios)
    upwards = _direction(metric, higher_is_better)
    run = _Evaluation(loader, metric, batch_to_inputs, call, output)
    example = find_inputs(run.first_batch(network), network, batch_to_inputs, call)
    options = {"importance": importance, "round_to": round_to, "ignored_layers": ignored_layers}
    prunable = Prunable(copy_network(network), example, **options, call=call, output=output)
    rows = _chosen(_all_rows(prunable), layers, type(prunable.network).__name__, "pruned")
    places = set().union(*rows.values())
    prunable.step([move for move in prunable.due(max(ratios)) if move.group in places])  # refuses what would not run
    values = torch.empty(len(rows), len(ratios), dtype=torch.float64)
    with tqdm(total=values.numel() + 1, desc="layer sensitivity", disable=not progress, leave=False) as bar:
        with prunable.pruned([]) as whole:
            dense = run(whole, "the dense network")
        bar.update()
        for i, (names, places) in enumerate(rows.items()):
            bar.set_postfix_str(names[0])
            for j, value in enumerate(_row(prunable, names, places, ratios, run, dense)):
                values[i, j] = value
                bar.update()
    return Sensitivity(tuple(rows), ratios, values, dense, upwards, _name(metric))


def _checked_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    if not len(ratios):
        raise ValueError("ratios expected one or more shares of channels to remove, but got none.")
    for ratio in ratios:
        check_ratio(ratio, "ratios")
    return tuple(float(ratio) for ratio in ratios)


def _direction(metric: Metric, given: bool | None) -> bool:
    if isinstance(metric, type) or not callable(metric):
        fix = f": make one, {metric.__name__}(...)" if isinstance(metric, type) else ""
        raise ValueError(f"metric expected a torchmetrics.Metric or a function, but got {metric!r}{fix}.")
    found = given if given is not None else getattr(metric, "higher_is_better", None)
    if found is None:
        raise ValueError(
            f"higher_is_better expected True or False, as {_name(metric)} does not say it, but got None: give it."
        )
    return bool(found)


def _name(metric: Metric) -> str:
    name = getattr(metric, "__name__", type(metric).__name__)
    return "metric" if name in ("<lambda>", "partial", "function", "method") else name


def _chosen(
    rows: dict[tuple[str, ...], _Row], layers: Iterable[str] | None, network: str, changed: str
) -> dict[tuple[str, ...], _Row]:
    """Return the rows of the layers that were asked for, all by default, in the order of the network."""
    if not rows:
        raise ValueError(f"{network} has no layer that can be {changed}.")
    if layers is None:
        return rows
    wanted, known = list(layers), [name for names in rows for name in names]
    if not wanted:
        raise ValueError("layers expected one or more names of layers, but got none.")
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise ValueError(f"layers: {unknown!r} is no layer that can be {changed}.{nearest(unknown, known)}")
    return {names: row for names, row in rows.items() if set(names) & set(wanted)}


def _all_rows(prunable: Prunable) -> dict[tuple[str, ...], set[int]]:
    """Return the rows' layers, in the order of the network, and the places of their groups."""
    order = {name: i for i, name in enumerate(module_names(prunable.network))}
    wide = channels(prunable.network)
    found: dict[tuple[str, ...], set[int]] = {}
    for place, group in enumerate(prunable.groups):
        # A normalization goes along with its layer, and is none to ask for; bare parameters have no name at all.
        names = [name for name in group.layers if name in wide] or group.layers
        if names:
            found.setdefault(tuple(sorted(names, key=order.__getitem__)), set()).add(place)
    return dict(sorted(found.items(), key=lambda row: [order[name] for name in row[0]]))


def _row(
    prunable: Prunable,
    names: Sequence[str],
    places: set[int],
    ratios: Sequence[float],
    run: "_Evaluation",
    dense: float,
) -> Iterator[float]:
    """Yield the metric with one row's layers pruned at each ratio; equal numbers of channels are measured once."""
    known = {0: dense}
    for ratio in ratios:
        # Planned to the end, every channel goes: a share of the plan is that share of each layer's channels.
        moves = [move for move in prunable.due(ratio) if move.group in places]
        if len(moves) not in known:
            with prunable.pruned(moves) as pruned:
                known[len(moves)] = run(pruned, f"{names[0]} pruned by {ratio:g}")
        yield known[len(moves)]


class _Evaluation:
    """One pass over a loader: a network in, the metric out, and nothing else moved."""

    def __init__(
        self, loader: Iterable[Any], metric: Metric, batch_to_inputs: BatchToInputs, call: str, output: OutputSpec
    ) -> None:
        if hasattr(loader, "__next__"):
            raise ValueError(
                "loader expected batches that can be read again for every layer and ratio, but got an iterator: give a"
                " DataLoader or a list."
            )
        self.loader, self.metric = loader, metric
        self.batch_to_inputs, self.call, self.output = batch_to_inputs, call, output

    def first_batch(self, network: nn.Module) -> Any:
        """Return the first batch, on the network's device."""
        with fork_rng(0), _same_order(self.loader):
            batch = next(iter(self.loader), None)
        if batch is None:
            raise ValueError("loader expected one or more batches, but got none.")
        return to_device(batch, _device(network))

    def __call__(self, network: nn.Module, what: str) -> float:
        """Return the metric of a network; ``what`` it is goes into the error."""
        with untouched(network), _same_order(self.loader):
            # A function may write to what it is given, or keep it.
            value = self._of_batches(network) if hasattr(self.metric, "update") else self.metric(copy_network(network))
        return _number(value, f" for {what}")

    def _of_batches(self, network: nn.Module) -> Any:
        device = _device(network)
        metric = copy.deepcopy(self.metric).to(device)  # whatever the user's has counted so far stays
        metric.reset()
        with torch.no_grad():
            for batch in self.loader:
                batch = to_device(batch, device)
                inputs = find_inputs(batch, network, self.batch_to_inputs, self.call)
                labels = find_labels(batch, network, self.call)
                if labels is None:
                    raise ValueError(
                        f"loader expected labels in each batch, but got {describe(batch)}: give metric= a function of"
                        " the network instead."
                    )
                metric.update(call_network(network, inputs, self.call, self.output), labels)
        return metric.compute()


@contextlib.contextmanager
def _same_order(loader: Any) -> Iterator[None]:
    """Give a loader's own generator back as it was: every pass then shuffles alike, and the run goes on as if none."""
    generator = getattr(loader, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    try:
        yield
    finally:
        if state is not None:
            generator.set_state(state)  # type: ignore[union-attr]  # a state comes from a generator


def _number(value: Any, of_what: str = "") -> float:
    """Return a metric's value, and refuse what is not one finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"metric expected one number{of_what}, but got {describe(value)}.") from None
    if not math.isfinite(number):
        raise ValueError(f"metric expected a finite number{of_what}, but got {number}.")
    return number


def _device(network: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))
