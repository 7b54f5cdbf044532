"""The drop of a metric when a single layer is pruned, for several ratios."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lit_xai.network.calling import BatchToInputs, OutputSpec, find_inputs, module_names
from lit_xai.network.layers import channels
from lit_xai.network.metric import LoaderMetric, Metric, metric_name, resolve_direction
from lit_xai.network.sensitivity import SensitivityTable, select_rows
from lit_xai.pruning.culprits import in_words
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.targets import check_ratio


class Sensitivity(SensitivityTable):
    """The result of :func:`layer_sensitivity`: rows are layers whose channels can only be removed together."""

    columns_title = "channels removed from the layer"

    @property
    def column_labels(self) -> list[str]:
        """The ratios in percent."""
        return [f"{100 * ratio:.3g}%" for ratio in self.ratios]

    @property
    def ratios(self) -> tuple[float, ...]:
        """The share of channels that each column removes."""
        return self.columns

    def to_ratios(self, max_drop: float) -> dict[str, float]:
        """Return for each layer the largest ratio that costs at most ``max_drop``, 0 if there is none.

        The costs of single layers do not add up: pruned together they cost more. Coupled layers come with the same
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
        return {name: max(ratios, default=0.0) for name, ratios in self.affordable_columns(max_drop)}


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
    """Measure a metric with each layer alone pruned at each ratio, without fine-tuning.

    Layers whose channels can only be removed together (around a residual sum, say) are pruned together and share a row.
    The network, the metric and every random generator are left unchanged; each measurement runs in eval mode, starts
    from the same seed and sees the same batches.

    It takes ``rows * ratios + 1`` passes over the loader, fewer where ratios round to the same number of channels: give
    a loader of a few hundred samples.

    Args:
        network: the module to prune.
        loader: yields batches, in the same order each time, on any device. One batch is traced with.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function that takes a network and
            returns a number.
        ratios: shares of channels to remove, each in [0, 1).
        layers: names of the layers to measure; default all that can be pruned.
        importance: see :func:`~lit_xai.pruning.pruning.prune_step`.
        round_to: as above.
        ignored_layers: as above.
        higher_is_better: of the metric, where it has no attribute of that name.
        batch_to_inputs: see :func:`~lit_xai.network.calling.find_inputs`.
        call: the network's method that is called.
        output: see :func:`~lit_xai.network.outputs.find_logits`.
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
    upwards = resolve_direction(metric, higher_is_better)
    run = LoaderMetric(loader, metric, batch_to_inputs, call, output)
    example = find_inputs(run.first_batch(network), network, batch_to_inputs, call)
    options = {"importance": importance, "round_to": round_to, "ignored_layers": ignored_layers}
    prunable = Prunable.copy_of(network, example, **options, call=call, output=output)
    # What cannot be cut is left out here, before the first pass over the loader.
    prunable.take(prunable.halved, exact=True)
    prunable.take(lambda: prunable.due(max(ratios)))
    if prunable.kept_whole:
        warnings.warn(
            f"layer_sensitivity leaves out layers that cannot lose channels: {in_words(prunable.kept_whole)}.",
            UserWarning,
            stacklevel=2,
        )
    rows = select_rows(_all_rows(prunable), layers, type(prunable.network).__name__, "pruned")
    # float64, so that a metric that is a Python float is kept as it is.
    values = torch.empty(len(rows), len(ratios), dtype=torch.float64)
    with tqdm(total=values.numel() + 1, desc="layer sensitivity", disable=not progress, leave=False) as bar:
        # The same copy as in every cell, so that cells differ from the reference by their channels alone.
        with prunable.pruned([]) as whole:
            dense = run(whole, "the dense network")
        bar.update()
        for i, (names, places) in enumerate(rows.items()):
            bar.set_postfix_str(names[0])
            for j, value in enumerate(_row(prunable, names, places, ratios, run, dense)):
                values[i, j] = value
                bar.update()
    return Sensitivity(tuple(rows), ratios, values, dense, upwards, metric_name(metric))


def _checked_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    if not len(ratios):
        raise ValueError("ratios expected one or more shares of channels to remove, but got none.")
    for ratio in ratios:
        check_ratio(ratio, "ratios")
    return tuple(float(ratio) for ratio in ratios)


def _all_rows(prunable: Prunable) -> dict[tuple[str, ...], set[int]]:
    """Return the rows' layers, in the order of the network, and the places of their groups."""
    order = {name: i for i, name in enumerate(module_names(prunable.network))}
    wide = channels(prunable.network)
    found: dict[tuple[str, ...], set[int]] = {}
    for place, group in enumerate(prunable.groups):
        # A normalization is cut with its layer and cannot be chosen by itself; bare parameters have no name at all.
        names = [name for name in group.layers if name in wide] or group.layers
        if names:
            found.setdefault(tuple(sorted(names, key=order.__getitem__)), set()).add(place)
    return dict(sorted(found.items(), key=lambda row: [order[name] for name in row[0]]))


def _row(
    prunable: Prunable,
    names: Sequence[str],
    places: set[int],
    ratios: Sequence[float],
    run: LoaderMetric,
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
