"""What each network achieves on disturbed inputs: noise, blur, shift of images, noise and missing values of tables."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.untouched import untouched
from lit_xai.report import words
from lit_xai.report.drawings import letter
from lit_xai.report.facts import Plain, Table
from lit_xai.report.networks import network_row
from lit_xai.report.pictures import Look
from lit_xai.report.record import Candidate, Record

MOST = 1000
"""Samples that are disturbed."""

IMAGES, OTHERS = ("noise", "blur", "shift"), ("noise", "missing")


def robustness_table(
    record: Record,
    networks: Mapping[str, nn.Module],
    inputs: Inputs,
    look: Look,
    output: OutputSpec,
    batch_size: int,
    as_outputs: Callable[[Tensor], Tensor],
) -> Table | None:
    """Return each network's metric on disturbed inputs; ``None`` where the inputs are not one tensor of numbers.

    Args:
        record: what was measured, of the same samples first.
        networks: by name.
        inputs: of the first samples.
        look: the mean and std of images.
        output: the logits in the output.
        batch_size: of a pass.
        as_outputs: makes what the record holds of outputs.
    """
    split = SplitInputs(inputs, any_dtype=True)
    n = min(MOST, split.n)
    explained = [split.values[i] for i in split.explained]
    if len(explained) != 1 or not explained[0].is_floating_point() or n < 2:
        return None
    given = explained[0][:n]
    disturbed = {"none": given} | {name: change(given) for name, change in _disturbances(given, look).items()}
    rows: list[list[Plain]] = []
    for what, values in disturbed.items():
        outputs = {
            name: _outputs(network, split, values, output, batch_size, as_outputs) for name, network in networks.items()
        }
        if not all(np.isfinite(one).all() for one in outputs.values()):
            continue
        rows.append([what, *_cells(_first(record, outputs, n))])
    first = record.networks[0]
    metric = network_row(record, first)["metric"]["name"]
    heads = [f"{letter(place)}: {one.name}" for place, one in enumerate(record.networks)]
    drops = [f"{'rise' if record.task == 'values' else 'drop'}, {head}" for head in heads[1:]]
    return {
        "title": f"The {metric} on disturbed inputs",
        "columns": ["disturbance", *heads, *drops],
        "rows": rows,
        "note": f"{_words(given)} The first {n:,} test samples, the same disturbance for all networks; in brackets"
        f" one-sided bounds of 95%; the drop is from {first.name}, on the same samples."
        + ("" if record.labels is not None else " Without labels, of the predictions of the reference."),
        "section": "robustness",
    }


def _disturbances(values: Tensor, look: Look) -> dict[str, Callable[[Tensor], Tensor]]:
    from lit_xai.data.corruption import CORRUPTIONS, corrupt_rows

    if not _are_images(values):
        return {name: partial(corrupt_rows, name=name) for name in OTHERS}
    mean, std = _scale(values, look)
    return {name: partial(_in_pixels, CORRUPTIONS[name], mean, std) for name in IMAGES}


def _in_pixels(change: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, values: Tensor) -> Tensor:
    return (change(values * std + mean) - mean) / std


def _are_images(values: Tensor) -> bool:
    return values.dim() == 4 and values.shape[1] in (1, 3, 4)


def _scale(values: Tensor, look: Look) -> tuple[Tensor, Tensor]:
    """Return the mean and std that take images to 0 to 1: those of their normalization, or of their own range."""
    if look.mean is not None and look.std is not None:
        mean, std = (torch.as_tensor(one, dtype=values.dtype).reshape(-1, 1, 1) for one in (look.mean, look.std))
        if {len(mean), len(std)} <= {1, values.shape[1]}:
            return mean, std
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    span = (high - low) or 1.0
    return torch.full((1, 1, 1), -low / span), torch.full((1, 1, 1), 1 / span)


def _words(values: Tensor) -> str:
    if _are_images(values):
        return "Noise of a fifth of the range of pixels, a blur over 5 by 5 of them, a shift by a ninth of each side."
    return (
        "Noise of a fifth of each feature's standard deviation; a tenth of the values missing, the mean in their place."
    )


def _outputs(
    network: nn.Module,
    split: SplitInputs,
    values: Tensor,
    output: OutputSpec,
    batch_size: int,
    as_outputs: Callable[[Tensor], Tensor],
) -> Any:
    (place,) = split.explained
    found = []
    for start in range(0, len(values), batch_size):
        end = min(start + batch_size, len(values))
        tensors = split.rows(slice(start, end))
        tensors[place] = values[start:end].to(tensors[place].dtype)
        with untouched(network), torch.no_grad():
            found.append(call_network(network, split.rebuild(tensors), "forward", output).detach().cpu())
    outputs = as_outputs(torch.cat(found))
    return outputs.reshape(len(outputs), -1).numpy()


def _first(record: Record, outputs: Mapping[str, Any], n: int) -> Record:
    """Return the record of the first samples, with other outputs."""
    return replace(
        record,
        networks=tuple(Candidate(one.name, outputs[one.name]) for one in record.networks),
        labels=None if record.labels is None else record.labels[:n],
        groups=None,
        clusters=None if record.clusters is None else record.clusters[:n],
        explained=(),
    )


def _cells(record: Record) -> list[str]:
    rows = [network_row(record, one) for one in record.networks]
    drops = [words.interval(row["changes"]["loss"]) for row in rows[1:]]
    return [*(words.interval(row["metric"]) for row in rows), *drops]
