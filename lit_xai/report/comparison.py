"""A comparison of networks on samples that no gradient saw: everything that a verdict and a report are made of."""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.baselines import explained_tensors
from lit_xai.attribution.explanation import class_labels, is_multi_hot
from lit_xai.attribution.normalization import find_normalization
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, call_network, find_inputs, find_labels
from lit_xai.network.check import check_choice, check_flag, check_integer, refusal
from lit_xai.network.describing import describe
from lit_xai.network.profiling import count_macs, count_parameters, size_on_disk, with_batch_size
from lit_xai.network.untouched import untouched
from lit_xai.render.samples import SAMPLES
from lit_xai.report.explaining import Explaining, Maps
from lit_xai.report.facts import Table
from lit_xai.report.faithful import explained_target, with_faithfulness
from lit_xai.report.pictures import Look
from lit_xai.report.provenance import input_hashes, split_facts
from lit_xai.report.reasons import Reasons, reasons_table
from lit_xai.report.record import Array, Candidate, Explained, Record
from lit_xai.report.robustness import robustness_table
from lit_xai.report.shown import with_shown
from lit_xai.retention.choosing import pool_size, sample_bytes
from lit_xai.retention.explainer import Explainer, as_explainer
from lit_xai.retention.parts import class_number
from lit_xai.retention.reasons import FeatureGroups, Groups
from lit_xai.retention.reference import NULLS
from lit_xai.runtime.file_network import FileNetwork

ROUNDS, SECONDS = 21, 0.02
"""Rounds of a latency, and seconds for which each network runs in each."""


@dataclass(frozen=True)
class CompareOptions:
    """How networks are compared.

    Args:
        batch_to_inputs: the network's inputs in a batch: a key, an index, several, or a function.
        batch_to_target: the labels in a batch.
        output: the logits in the output.
        groups: the group of each sample in a batch: a key, an index or a function.
        clusters: likewise, of samples that belong together: a patient, a film.
        explainers: methods' names or :class:`~lit_xai.retention.explainer.Explainer` objects; by default Integrated
            Gradients and Occlusion; of files and of token ids Occlusion alone, as there are no gradients.
        n: how many samples are explained.
        nulls: untrained networks that retention is held against.
        baselines: of the explainers, a name, a number or a tensor; default black where the inputs are images whose
            ``mean`` and ``std`` are known, else zero.
        rounds: of the latency; 0 for none.
        batch_size: of the latency.
        threads: of the latency.
        seed: of all that is drawn.
        split: the name of the data.
        needs_labels: refuse data without labels in their first batch.
        feature_names: of the columns of a table.
        input_features: those of each input by its name, where there are several.
        token_names: of the ids of texts, whose words are written out with them.
        mean: the mean that normalization subtracted, one number per channel or feature.
        std: the standard deviation that it divided by.
        samples: what the report may hold of samples: ``"show"`` for pictures of them and of their explanations,
            ``"maps_only"`` for explanations without the inputs, ``"none"`` for neither. Outputs, labels and groups
            of every sample are kept in any case, as the numbers are made of them.
        corruption: whether networks are also compared on disturbed inputs, of up to 1,000 samples.
        faithfulness: whether explanations are also held to the network that they explain: deletion and insertion, of
            the samples that are explained.
        adverse_class: of a table, the class whose reasons are compared: its number, or its name.
        feature_groups: the columns of a table that are one feature (a one-hot encoding), by number or name; or the
            feature that each column belongs to.
        files: ONNX files of networks, by the networks' names: their latencies are measured instead of those of further
            exports.
    """

    batch_to_inputs: BatchToInputs = None
    batch_to_target: BatchToTarget = None
    output: OutputSpec = None
    groups: BatchToTarget = None
    clusters: BatchToTarget = None
    explainers: Sequence[str | Explainer] | None = None
    n: int = 256
    nulls: int = NULLS
    baselines: Any = None
    rounds: int = ROUNDS
    batch_size: int = 1
    threads: int = 1
    seed: int = 0
    split: str = "test"
    needs_labels: bool = False
    feature_names: Sequence[str] | None = None
    input_features: Mapping[str, Sequence[str]] | None = None
    token_names: Sequence[str] | None = None
    mean: Any = None
    std: Any = None
    samples: str = "show"
    corruption: bool = True
    faithfulness: bool = True
    adverse_class: int | str | None = None
    feature_groups: FeatureGroups | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integer("n", self.n, 2)
        check_integer("nulls", self.nulls, 0)
        check_integer("rounds", self.rounds, 0)
        check_integer("batch_size", self.batch_size, 1)
        check_choice("samples", self.samples, SAMPLES)
        check_flag("corruption", self.corruption)
        check_flag("faithfulness", self.faithfulness)


def compare_networks(
    networks: Mapping[str, nn.Module],
    batches: Iterable[Any],
    options: CompareOptions | None = None,
    *,
    class_names: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    step: Callable[[], object] = lambda: None,
) -> Record:
    """Compare networks on the same samples: predictions, explanations, size and latency.

    Args:
        networks: the reference first, and last the one that is judged; ONNX files as
            :class:`~lit_xai.runtime.file_network.FileNetwork`. They are left as they are.
        batches: of samples that no gradient saw, such as a test loader.
        options: how.
        class_names: for the reader.
        facts: for the reader, plain values.
        step: called after each part, by a progress bar.

    Raises:
        ValueError: fewer than two networks, no samples, or outputs that do not fit each other; one sentence.

    Example:
        >>> torch.manual_seed(0)
        <torch...>
        >>> dense = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> batches = [(torch.randn(20, 6), torch.randint(3, (20,))) for _ in range(3)]
        >>> options = CompareOptions(explainers=["IntegratedGradients"], nulls=3, rounds=0)
        >>> record = compare_networks({"dense": dense, "same": dense}, batches, options)
        >>> record.n, record.task, round(float(record.explained[0].similarity["same"].mean()), 6)
        (60, 'classes', 1.0)
    """
    options = options or CompareOptions()
    if len(networks) < 2:
        raise refusal("networks", "a reference and one network or more", list(networks))
    read = _read(networks, batches, options, step)
    outputs = {name: torch.cat(parts) for name, parts in read.outputs.items()}
    first = next(iter(outputs.values()))
    labels = torch.cat(read.labels) if read.labels else None
    _refuse_several_answers(first, labels)
    task = _task(first, labels)
    if task == "classes":
        outputs = {name: _as_logits(one) for name, one in outputs.items()}
        first = next(iter(outputs.values()))
    look = _look(batches, read.inputs, options)
    adverse = None
    if options.adverse_class is not None:
        count = None if task == "values" else max(2, first.shape[-1] if first.dim() > 1 else 1)
        adverse = class_number(options.adverse_class, list(class_names) or None, count)
    explaining = Explaining(
        networks,
        read.inputs,
        each_output=task == "values",
        output=options.output,
        baselines=options.baselines,
        data_info=look,
        seed=options.seed,
    )
    is_file = any(isinstance(one, FileNetwork) for one in networks.values())
    as_outputs = _as_logits if task == "classes" else _unchanged
    explained, drawn = _explain(explaining, first, task, is_file, options, as_outputs, step)
    latency, limits = _latency_or_limit(networks, read.inputs, options)
    step()
    (groups, group_names), (clusters, _) = _numbered(read.groups), _numbered(read.clusters)
    numbers = _as_labels(labels, first, task)
    splits = split_facts(options.split, np.concatenate(read.hashes), numbers, class_names, "the comparison")
    record = Record(
        tuple(
            Candidate(
                name,
                outputs[name].reshape(len(first), -1).numpy(),
                _costs(network, read.inputs, options),
                latency.get(name),
            )
            for name, network in networks.items()
        ),
        task,
        labels=numbers,
        groups=groups,
        clusters=clusters,
        explained=tuple(explained),
        group_names=group_names,
        class_names=tuple(class_names),
        facts={**_with_limits(facts or {}, limits), "data": {"splits": [splits]}},
    )
    measures = _measures(networks, read, look, adverse, drawn, options, as_outputs)
    shown = with_shown(record, networks, explaining, drawn, look, measures)
    return replace(record, facts=shown)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass
class _Read:
    """What was read of the batches.

    Args:
        outputs: of each network, by batch.
        labels: by batch; empty if there are none.
        groups: of each sample.
        clusters: of each sample.
        inputs: of the first samples, as many as may be explained.
        hashes: of the samples, by batch.
    """

    outputs: dict[str, list[Tensor]]
    labels: list[Tensor] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    clusters: list[Any] = field(default_factory=list)
    inputs: Inputs = ()
    hashes: list[Array] = field(default_factory=list)


def _read(
    networks: Mapping[str, nn.Module], batches: Iterable[Any], options: CompareOptions, step: Callable[[], object]
) -> _Read:
    reference = next(iter(networks.values()))
    read, held, parts = _Read({name: [] for name in networks}), 0, []
    for batch in batches:
        # An ONNX file says nothing of its arguments' names: a batch of two is taken for inputs and labels.
        module = nn.Identity() if isinstance(reference, FileNetwork) else reference
        inputs = find_inputs(batch, module, options.batch_to_inputs)
        labels = find_labels(batch, module, batch_to_target=options.batch_to_target)
        for name, network in networks.items():
            with untouched(network), torch.no_grad():
                found = call_network(network, inputs, "forward", options.output).detach().cpu()
            read.outputs[name].append(found)
            expected = read.outputs[next(iter(networks))][-1].shape
            if found.shape != expected:
                raise ValueError(
                    f"{name} gives {describe(found)} where the reference gives shape {tuple(expected)}: they expected"
                    " the same outputs, such as the same classes; name the logits with output=."
                )
            if not bool(found.isfinite().all()):
                raise ValueError(f"{name} gives NaN or infinity for a sample: it cannot be judged.")
        n = len(read.outputs[next(iter(networks))][-1])
        if options.needs_labels and (labels is None or len(labels) != n):
            raise ValueError(
                f"A requirement needs labels, but none were found in a batch of {describe(batch)}: name them with"
                " batch_to_target=."
            )
        if labels is not None and len(labels) == n:
            read.labels.append(labels.detach().cpu())
        for where, values in ((options.groups, read.groups), (options.clusters, read.clusters)):
            if where is not None:
                values += _named(batch, where, n)
        split = SplitInputs(inputs, any_dtype=True)
        read.hashes.append(input_hashes(split))
        if held < pool_size(options.n, None, sample_bytes(inputs, n)):
            parts.append(inputs)
            held += n
        step()
    if not parts:
        raise refusal("batches", "one batch or more", "none")
    if read.labels and sum(map(len, read.labels)) != sum(map(len, read.outputs[next(iter(networks))])):
        raise ValueError("Labels were found in some batches and not in others: name them with batch_to_target=.")
    read.inputs = _joined(parts)
    return read


def _named(batch: Any, where: Any, n: int) -> list[Any]:
    try:
        found = where(batch) if callable(where) else batch[where]
    except (LookupError, TypeError) as error:
        raise ValueError(f"{where!r} is not in a batch of {describe(batch)} ({type(error).__name__}).") from None
    values = found.tolist() if hasattr(found, "tolist") else list(found)
    if len(values) != n or not all(isinstance(one, (int, str)) for one in values):
        raise ValueError(f"{where!r} expected a whole number or a text for each sample, but got {describe(found)}.")
    return values


def _joined(parts: Sequence[Inputs]) -> Inputs:
    """Return the inputs of several batches as one; of texts each batch may be as long as its own longest."""
    if len(parts) == 1:
        return parts[0]
    split = [SplitInputs(one, any_dtype=True) for one in parts]
    columns = [list(column) for column in zip(*(one.values for one in split), strict=True)]
    masks = next((columns[i] for i, name in enumerate(split[0].names) if "attention_mask" in name), None)
    joined: Inputs = split[0].rebuild([torch.cat(_of_one_length(column, masks)) for column in columns])
    return joined


def _of_one_length(column: list[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
    """Return the tensors of several batches, the tokens of shorter texts filled up with what masked ones are."""
    if len({tuple(one.shape[1:]) for one in column}) == 1:
        return column
    if masks is None or any(one.shape != mask.shape for one, mask in zip(column, masks, strict=True)):
        shapes = ", ".join(dict.fromkeys(str(tuple(one.shape)) for one in column))
        raise ValueError(
            f"Samples expected one size in all batches, or an attention_mask, but got shapes {shapes}: have the loader"
            " fill them up to one size."
        )
    longest = max(one.shape[1] for one in column)
    masked = torch.cat([one[mask == 0] for one, mask in zip(column, masks, strict=True)])
    value = masked[0].item() if len(masked) else 0
    return [nn.functional.pad(one, (0, longest - one.shape[1]), value=value) for one in column]


def _look(batches: Iterable[Any], inputs: Inputs, options: CompareOptions) -> Look:
    """Return how samples are drawn: with the normalization of their dataset's transforms, unless another is given."""
    split, names = SplitInputs(inputs, any_dtype=True), options.feature_names
    explained = [split.values[i] for i in split.explained]
    mean, std = options.mean, options.std
    if len(explained) == 1 and mean is None and std is None:
        mean, std = find_normalization([getattr(batches, "dataset", None)], explained[0]) or (None, None)
    if len(explained) > 1:  # of which the first is drawn
        names = (options.input_features or {}).get(split.names[split.explained[0]])
    is_table = explained[0].dim() == 2 and explained[0].is_floating_point()
    if is_table and names is not None and len(names) != explained[0].shape[1]:
        raise refusal("feature_names", f"{explained[0].shape[1]} names, one per feature", len(names))
    if not is_table:
        return Look(options.samples, None, mean, std, token_names=options.token_names)
    owners = None
    if options.feature_groups is not None and len(explained) == 1:
        groups = Groups.of(explained[0].shape[1], names, options.feature_groups)
        owners = [groups.names[member] for member in groups.member]
    return Look(options.samples, names, mean, std, owners)


def _refuse_several_answers(outputs: Tensor, labels: Tensor | None) -> None:
    """Refuse what has no one answer for a sample: as one class of all pixels or tokens it would be a wrong number."""
    if outputs.dim() > 2:
        raise ValueError(
            f"The networks expected one answer for each sample, but give {describe(outputs)}, as for each pixel or"
            " token: reduce it to (N, classes) with output=."
        )
    is_wide = labels is not None and outputs.dim() == 2 and outputs.shape[1] > 1 and labels.shape == outputs.shape
    if labels is not None and is_wide and is_multi_hot(labels) and not bool((labels.sum(1) == 1).all()):
        raise ValueError(
            "labels expected one class for each sample, but got several for some: compare one output at a time with"
            " output= and batch_to_target=."
        )


def _as_logits(outputs: Tensor) -> Tensor:
    """Return logits: of probabilities, as pipelines of scikit-learn give, their logarithm."""
    if not outputs.is_floating_point():
        return outputs
    are_probabilities = bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-4).all())
    return outputs.clamp(min=1e-12).log() if are_probabilities else outputs


def _measures(
    networks: Mapping[str, nn.Module],
    read: _Read,
    look: Look,
    adverse: int | None,
    drawn: tuple[Explainer, Maps] | None,
    options: CompareOptions,
    as_outputs: Callable[[Tensor], Tensor],
) -> list[Callable[[Record], Table | None]]:
    """Return what is measured beside outputs and explanations."""
    found: list[Callable[[Record], Table | None]] = []
    size = len(next(iter(read.outputs.values()))[0])
    if options.corruption:
        found.append(
            partial(
                robustness_table,
                networks=networks,
                inputs=read.inputs,
                look=look,
                output=options.output,
                batch_size=size,
                as_outputs=as_outputs,
            )
        )
    if adverse is not None:
        names = look.feature_names
        asked = Reasons(adverse, names, options.feature_groups, options.output, as_outputs, options.seed)
        explainer = drawn[0] if drawn else Explainer("Occlusion")
        found.append(partial(reasons_table, networks=networks, inputs=read.inputs, explainer=explainer, asked=asked))
    return found


def _unchanged(outputs: Tensor) -> Tensor:
    return outputs


def _task(outputs: Tensor, labels: Tensor | None) -> str:
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        return "binary" if labels is not None and is_multi_hot(labels) else "values"
    has_values = (
        labels is not None and labels.is_floating_point() and class_labels(labels, tuple(outputs.shape)) is None
    )
    return "values" if has_values else "classes"


def _as_labels(labels: Tensor | None, outputs: Tensor, task: str) -> Array | None:
    if labels is None:
        return None
    if task == "values":
        fits = labels.numel() == outputs.numel()
        return labels.double().reshape(len(outputs), -1).numpy() if fits else None
    found = labels.flatten() if task == "binary" else class_labels(labels, tuple(outputs.shape))
    return None if found is None else found.long().numpy()


def _numbered(values: Sequence[Any]) -> tuple[Array | None, tuple[str, ...]]:
    if not values:
        return None, ()
    names = sorted(set(values), key=lambda one: (isinstance(one, str), one))
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[one] for one in values]), tuple(map(str, names))


# --- explanations, costs and latency ----------------------------------------------------------------------------------


def _explain(
    explaining: Explaining,
    outputs: Tensor,
    task: str,
    is_file: bool,
    options: CompareOptions,
    as_outputs: Callable[[Tensor], Tensor],
    step: Callable[[], object],
) -> tuple[list[Explained], tuple[Explainer, Maps] | None]:
    """Return what is recorded of the explanations, and the first explainer with its maps, for pictures."""
    places = explaining.choose(outputs.argmax(1) if task == "classes" else None, options.n)
    has_gradients = not is_file and all(one.is_floating_point() for one in explained_tensors(explaining.inputs))
    default = ["IntegratedGradients", "Occlusion"] if has_gradients else ["Occlusion"]
    target = explained_target(outputs[places], task == "values")
    found: list[Explained] = []
    drawn = None
    for given in default if options.explainers is None else options.explainers:
        explainer = as_explainer(given, "explainers")
        explained, maps = explaining.explain(explainer, places, options.nulls, step)
        if options.faithfulness:
            explained = with_faithfulness(explained, maps, explaining, explainer, target, as_outputs)
        found.append(explained)
        drawn = drawn or (explainer, maps)
        step()
    return found, drawn


def _costs(network: nn.Module, inputs: Inputs, options: CompareOptions) -> dict[str, float]:
    if isinstance(network, FileNetwork):
        return {"size kB": network.path.stat().st_size / 1000}
    one = with_batch_size(inputs, 1)
    found = {"size kB": size_on_disk(network) / 1000, "parameters": float(count_parameters(network))}
    try:
        return found | {"MACs": float(count_macs(network, one, output=options.output))}
    except ValueError:  # of a network whose operations torch cannot count
        return found


def _latency_or_limit(
    networks: Mapping[str, nn.Module], inputs: Inputs, options: CompareOptions
) -> tuple[dict[str, Array], list[str]]:
    """Return the latencies, or in one sentence why there are none: what else was measured holds without them."""
    try:
        return _latency(networks, inputs, options) if options.rounds else {}, []
    except (ValueError, RuntimeError, ImportError) as error:  # what cannot be exported, or nothing to run it with
        reason = " ".join(str(error).split()).rstrip(".")
        return {}, [f"No latency could be measured: {reason}."]


def _with_limits(facts: Mapping[str, Any], limits: Sequence[str]) -> dict[str, Any]:
    return {**facts, "limits": [*facts.get("limits", []), *limits]} if limits else dict(facts)


def _latency(networks: Mapping[str, nn.Module], inputs: Inputs, options: CompareOptions) -> dict[str, Array]:
    """Return milliseconds of a call in each round, in which all networks run one after the other, in ONNX Runtime.

    Interleaved, as the machine's other work comes and goes: it then slows all of them down alike.
    """
    from lit_xai.runtime.onnx import export_onnx

    given = with_batch_size(inputs, options.batch_size)
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        files: dict[str, FileNetwork] = {}
        for name, network in networks.items():
            known = network.path if isinstance(network, FileNetwork) else options.files.get(name)
            path = known or Path(folder, f"{len(files)}.onnx")
            if known is None:
                export_onnx(network, given, path, "forward", options.output, dynamic_batch=False)
            files[name] = FileNetwork(path, options.threads)
        found: dict[str, list[float]] = {name: [] for name in files}
        for network in files.values():
            _milliseconds(network, given)  # warm up
        for _ in range(options.rounds):
            for name, network in files.items():
                found[name].append(_milliseconds(network, given))
    return {name: np.array(values) for name, values in found.items()}


def _milliseconds(network: nn.Module, inputs: Inputs) -> float:
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        call_network(network, inputs, "forward", None)
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times))
