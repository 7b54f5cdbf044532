"""Reason codes: the features that speak most for an adverse decision, and whether compression changed them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.baselines import takes_baseline
from lit_xai.attribution.methods import explains_layer, resolve_method
from lit_xai.network.arguments import Arguments, Inputs
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.rows import take
from lit_xai.network.untouched import untouched
from lit_xai.report import words
from lit_xai.report.estimates import share
from lit_xai.report.facts import Plain, Table
from lit_xai.report.measured import classes
from lit_xai.report.record import Record
from lit_xai.retention.changed_networks import rounded_copy
from lit_xai.retention.explainer import Explainer, explain_fully
from lit_xai.retention.reasons import FeatureGroups, Groups, K, changed_reasons
from lit_xai.runtime.file_network import FileNetwork

Array = NDArray[np.float64]

MOST = 1000
"""Samples that are explained, at most."""

NOISE = 0.95
"""The share of contributions that the explainer, run again, moves by less than the noise."""


class LogOdds(nn.Module):
    """A network that returns the log odds of the adverse class against all others, ``(N,)``.

    Its attributions speak for the decision: those of the class's own logit alone say nothing of what speaks for the
    others.

    Args:
        network: returns logits, or probabilities as some files do.
        adverse: the number of the class; of one output 1 for its sign, 0 against it.
        output: the logits in its output.
        as_logits: makes logits of what it returns.
    """

    def __init__(
        self, network: nn.Module, adverse: int, output: OutputSpec, as_logits: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.network, self._adverse, self._output, self._as_logits = network, adverse, output, as_logits

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the log odds."""
        logits = call_network(self.network, Arguments(args, kwargs), "forward", self._output)
        if logits.dim() == 1 or logits.shape[1] == 1:
            return logits.flatten() if self._adverse == 1 else -logits.flatten()
        logits = self._as_logits(logits)
        others = torch.cat([logits[:, : self._adverse], logits[:, self._adverse + 1 :]], 1)
        return logits[:, self._adverse] - others.logsumexp(1)


@dataclass(frozen=True)
class Reasons:
    """How reasons are asked for.

    Args:
        adverse: the number of the adverse class.
        feature_names: of the columns.
        groups: the columns of each one-hot group, by number or name, or the feature of each column.
        output: the logits in the output.
        as_logits: makes logits of outputs.
        seed: of what is drawn.
    """

    adverse: int
    feature_names: Sequence[str] | None
    groups: FeatureGroups | None
    output: OutputSpec
    as_logits: Callable[[Tensor], Tensor]
    seed: int = 0


def reasons_table(
    record: Record, networks: Mapping[str, nn.Module], inputs: Inputs, explainer: Explainer, asked: Reasons
) -> Table | None:
    """Return in how many adverse decisions the reasons changed; ``None`` where the inputs are no table.

    Args:
        record: what was measured.
        networks: by name.
        inputs: of the first samples.
        explainer: of all networks; Occlusion in place of one that compares with no reference population.
        asked: how.
    """
    split = SplitInputs(inputs, any_dtype=True)
    if len(split.explained) != 1 or split.values[split.explained[0]].dim() != 2:
        return None
    rows = split.values[split.explained[0]]
    if not rows.is_floating_point():
        return None
    contributions = _Contributions(inputs, rows, _usable(explainer, networks), asked)
    n = min(MOST, split.n)
    adverse = {one.name: classes(record, one.outputs[:n]) == asked.adverse for one in record.networks}
    first, network = next(iter(networks.items()))
    population, again = rows.mean(0, keepdim=True), contributions.drawn_anew()
    compared: dict[str, tuple[nn.Module, Tensor, Any]] = {
        name: (one, population, adverse[name]) for name, one in list(networks.items())[1:]
    }
    if not isinstance(network, FileNetwork):
        compared[f"{first} with weights of 8 bits"] = rounded_copy(network, 8), population, None
    compared["the explainer run again"] = network, again, adverse[first]
    places = np.flatnonzero(adverse[first])
    name = record.class_names[asked.adverse] if asked.adverse < len(record.class_names) else str(asked.adverse)
    title = f"Reasons for {name}, as {first} gives them"
    if len(places) < 2:
        return {"title": title, "note": f"{len(places)} samples are {name} by {first}.", "section": "reasons"}
    before = contributions.of(network, population, places)
    rerun = contributions.of(network, again, places)
    noise = float(np.quantile(np.abs(rerun - before), NOISE))
    found: list[list[Plain]] = []
    for what, (one, baseline, is_adverse) in compared.items():
        after = rerun if baseline is again else contributions.of(one, baseline, places)
        kept = contributions.are_adverse(one, places) if is_adverse is None else is_adverse[places]
        clusters = None if record.clusters is None else record.clusters[places][kept]
        in_set, in_order = changed_reasons(before[kept], after[kept], noise)
        cells = [words.interval(share(each, clusters)) if len(each) else words.NOTHING for each in (in_set, in_order)]
        found.append([what, str(int(kept.sum())), *cells])
    note = (
        f"By {contributions.explainer.name}, contributions to the log odds of {name} against the mean of the"
        f" {len(rows):,} samples that were compared on, the reference population; {len(contributions.groups.names)}"
        f" features{' and one-hot groups' if asked.groups else ''}, the {K} that contribute most. Only samples that are"
        f" {name} by both. Contributions closer than {words.number(noise)} count as equal: the explainer, run again"
        f" with a reference population drawn anew, moves {100 * NOISE:.0f}% of them by less. In brackets: one-sided"
        " bounds of 95%."
    )
    columns = ["by", "n", f"share with another set of {K} reasons", "share with another order"]
    return {"title": title, "columns": columns, "rows": found, "note": note, "section": "reasons"}


class _Contributions:
    """The contributions of features to the log odds of the adverse class."""

    def __init__(self, inputs: Inputs, rows: Tensor, explainer: Explainer, asked: Reasons) -> None:
        self.inputs, self.rows, self.explainer, self._asked = inputs, rows, explainer, asked
        self.groups = Groups.of(rows.shape[1], asked.feature_names, asked.groups)

    def of(self, network: nn.Module, population: Tensor, places: NDArray[np.int64]) -> Array:
        """Return those of some samples, ``(n, groups)``."""
        log_odds, inputs = self._log_odds(network), take(self.inputs, places.tolist(), len(self.rows))
        found, _ = explain_fully(log_odds, inputs, self.explainer, baselines=population)
        (maps,) = found.attributions.values()
        return self.groups.sums(maps.double().cpu().numpy())

    def are_adverse(self, network: nn.Module, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which samples get the adverse class, ``(n,)``."""
        inputs = take(self.inputs, places.tolist(), len(self.rows))
        with untouched(network), torch.no_grad():
            logits = call_network(network, inputs, "forward", self._asked.output).cpu()
        one = logits.dim() == 1 or logits.shape[1] == 1
        predicted = (logits.flatten() > 0).long() if one else logits.argmax(1)
        found: NDArray[np.bool_] = (predicted == self._asked.adverse).numpy()
        return found

    def drawn_anew(self) -> Tensor:
        """Return the mean of the reference population, drawn anew with replacement."""
        generator = torch.Generator().manual_seed(self._asked.seed)
        chosen = torch.randint(len(self.rows), (len(self.rows),), generator=generator)
        return self.rows[chosen].mean(0, keepdim=True)

    def _log_odds(self, network: nn.Module) -> LogOdds:
        return LogOdds(network, self._asked.adverse, self._asked.output, self._asked.as_logits).eval()


def _usable(explainer: Explainer, networks: Mapping[str, nn.Module]) -> Explainer:
    """Return the explainer if its maps are of the inputs, against a baseline; else Occlusion."""
    method = resolve_method(explainer.method)
    fits = takes_baseline(method) and not explains_layer(method) and explainer.noise_tunnel is None
    if fits and not any(isinstance(one, FileNetwork) for one in networks.values()):
        return replace(explainer, baselines=None)
    return Explainer("Occlusion")
