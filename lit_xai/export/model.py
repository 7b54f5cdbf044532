"""Export of a trained network to a folder for others to run: ONNX in float and int8, a program, a script, a report."""

import os
import warnings as python_warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_xai.export.blame import blame_export, first_calls
from lit_xai.export.comparison import candidates_of, make_runtime_rows
from lit_xai.export.deployments import PTE, Deployment, find_deployments, installed_runtimes
from lit_xai.export.files import FixedSamplesError, take_onnx, write_onnx
from lit_xai.export.folder import FILES, check_folder, staged
from lit_xai.export.inference import check_normalization, write_inference
from lit_xai.export.layer_blame import LayerBlame
from lit_xai.export.metadata import check_plain, read_metadata, write_metadata
from lit_xai.export.parity import ParityResult, Predictor, Rounding, measure_parity
from lit_xai.export.program import export_program
from lit_xai.export.report import ExportReport, Row, count_integers, slower_warnings, write_report
from lit_xai.export.timing import alternate_latencies, check_batch_sizes
from lit_xai.export.variants import (
    DENSE,
    DENSE_ROW,
    FLOAT,
    FLOAT_ROW,
    INT8,
    INT8_ROW,
    PTQ_ROW,
    UNROUNDED,
    Variants,
    agreements_of,
    check_parities,
    int8_parity,
    make_rows,
    paths_of,
)
from lit_xai.export.versions import find_versions
from lit_xai.export.wholes import Examples, Fitting, Sizes, describe_sizes, read_examples
from lit_xai.network.calling import BatchToInputs, BatchToTarget, Inputs, OutputSpec, call_network
from lit_xai.network.check import check_integer, check_positive
from lit_xai.network.draws import MeanDraws
from lit_xai.network.metric import check_rereadable
from lit_xai.network.profiling import batch_size
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.inspection import inspect_onnx
from lit_xai.runtime.onnx import FIXED_NUMBERS, check_opset
from lit_xai.runtime.runtimes import Runtime, check_runtimes

INT8_TOLERANCE = 0.05
"""Tolerance of an int8 file's own check on other machines, where no larger difference was measured here."""

A_POINT = 0.01
"""The difference of a metric from 0 to 1 above which a warning says that float and int8 weights differ in quality."""


def export_model(
    network: nn.Module,
    loader: Iterable[Any],
    dirpath: str | os.PathLike[str],
    *,
    quantized: nn.Module | None = None,
    ptq: nn.Module | None = None,
    dense: nn.Module | None = None,
    is_dense_known: bool = True,
    epochs: Mapping[str, int | None] | None = None,
    float_file: str | os.PathLike[str] | None = None,
    metric: Any = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    recipe: Mapping[str, Any] | None = None,
    source: str = "",
    float_source: str = "",
    ptq_source: str = "",
    batch_to_inputs: BatchToInputs = None,
    batch_to_target: BatchToTarget = None,
    output: OutputSpec = None,
    overwrite: bool = False,
    threads: int = 1,
    latency_batches: Sequence[int] | None = None,
    tolerance: float = 1e-3,
    opset: int | None = None,
    program: bool = True,
    progress: bool = True,
    runtimes: Sequence[str] = ("onnxruntime",),
    batch_sizes: Sequence[int] = (1, 64),
    blame: bool = True,
    notes: Sequence[str] = (),
) -> ExportReport:
    """Export a network to files, and measure on data that the files compute what was trained.

    The folder then holds ``model.onnx``; ``model.int8.onnx`` where a quantized network is given; ``model.pt2``, a
    program of ``torch.export``; ``infer.py``, which needs only onnxruntime and numpy; ``report.md`` and
    ``report.json``; with an int8 file ``layers.md`` and ``layers.png``, the noise of its layers. Either all
    files are written or none. Networks, loader and metric are left unchanged.

    Every output over the whole loader is compared with torch's, on the CPU and in float32. The float file may differ
    by ``tolerance`` of the largest output. The int8 file has to agree with the quantized network in 99% of the
    predictions; with fewer than 100 predictions, or none, outputs may differ by 2% of the largest one on average.
    Single outputs may differ by more: an activation halfway between two integers is rounded to either. A file beyond
    these limits is written with a warning if it is as near to the network without rounding as the quantized one is.

    Args:
        network: the module in float.
        loader: yields batches, and can be read twice.
        dirpath: the folder to write to.
        quantized: the network with fake-quantize modules, from :func:`~lit_xai.quantization.quantization.quantize` or
            from quantization-aware training.
        ptq: the network quantized without training; where ``quantized`` is given too, only for its row of the table.
        dense: the network before it was pruned, only for its row of the table.
        is_dense_known: whether ``dense`` has the weights it had then. Without, its row has no metric, and a note says
            so.
        epochs: the last epoch in which networks were trained, by the names of their arguments (``"network"``,
            ``"quantized"``, ``"ptq"``, ``"dense"``), for the table; -1 for weights from before the first.
        float_file: an ONNX file to take as ``model.onnx``, such as one of the weights before quantization-aware
            training; it may differ from ``network``, which then is only written as the program.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function of all logits and labels
            that returns a number; default the accuracy where labels are integers, else none.
        classes: names of the classes.
        mean: the mean of each channel, subtracted from inputs from 0 to 1.
        std: the standard deviation of each channel, by which they are divided then.
        recipe: the structural steps behind the network, plain values; written to the files' metadata.
        source: where the weights come from, in words.
        float_source: where the weights of ``network`` come from, if ``quantized`` was trained on from them.
        ptq_source: where those of ``ptq`` come from, if ``quantized`` was trained on from them.
        batch_to_inputs: the network's inputs in a batch.
        batch_to_target: the labels in a batch, for the metric: a key, an index, a function or its import path; default
            the usual places.
        output: the logits in its output.
        overwrite: whether an earlier export in the folder may be replaced.
        threads: the number of threads for ONNX Runtime, and for the other runtimes beside all that there are.
        latency_batches: the former name of ``batch_sizes``.
        tolerance: see above.
        opset: version of ONNX's operators, 18 or newer; default torch's.
        program: whether to write ``model.pt2``; if the network cannot be exported that way, a warning is given.
        progress: whether to show a progress bar.
        runtimes: to compare: ``"onnxruntime"``, ``"openvino"``, ``"executorch"``, for which ``model.pte`` is written.
            Of more than one the report has a table of the files in each, on ``threads`` and on all threads, and a
            sentence which file to run where. Every file has to agree with its network in each of them. What is not
            installed is left out, with a note.
        batch_sizes: the batch sizes to measure latencies at.
        blame: whether to find out which layers of the int8 file cost most, see
            :func:`~lit_xai.export.blame.blame_layers`; if that fails, a warning is given.
        notes: sentences for the report.

    Raises:
        ValueError: an argument is wrong, files would be overwritten or cannot be written, the network cannot be
            exported, ``quantized`` was never calibrated, or a file does not compute what the network does.

    Example:
        >>> import tempfile
        >>> loader = [(torch.rand(16, 4), torch.randint(3, (16,))) for _ in range(2)]
        >>> report = export_model(nn.Linear(4, 3), loader, tempfile.mkdtemp(), program=False, progress=False)
        >>> [file.name for file in report.files]
        ['model.onnx', 'infer.py', 'report.md', 'report.json']
    """
    # Wrong arguments are refused before the first file is written, but for those that depend on the outputs.
    path = check_folder(dirpath, overwrite)
    batch_sizes = renamed_batches(batch_sizes, latency_batches)
    _check_numbers(opset, threads, batch_sizes, tolerance)
    compared, missing = installed_runtimes(check_runtimes(runtimes))
    check_plain("recipe", recipe)
    variants = Variants.of(network, quantized, ptq, dense, is_dense_known, epochs)
    with variants.untouched():
        examples = read_examples(check_rereadable(loader), variants.network, batch_to_inputs, output)
        draws = draws_numbers(variants.network, examples.inputs, output)
    inputs = examples.inputs
    check_normalization(inputs, mean, std)
    facts = {"classes": classes and [*map(str, classes)], "mean": _plain(mean), "std": _plain(std)}
    with staged(path, overwrite) as temporary, variants.untouched():
        try:
            sizes = _write_files(temporary, variants, examples, output, float_file, opset)
        except FixedSamplesError:  # a file for one number of samples is worth more than none
            examples = replace(examples, is_whole=True, is_fixed=True)
            sizes = _write_files(temporary, variants, examples, output, float_file, opset)
        loader = Fitting(examples.loader, sizes, variants.network, batch_to_inputs) if examples.is_whole else loader
        _describe(temporary / FLOAT, inputs, facts if float_file else {**facts, "recipe": recipe, "source": source})
        if variants.quantized is not None:
            more = {"recipe": recipe, "source": source, "quantization": variants.quantization}
            _describe(temporary / INT8, inputs, {**facts, **more})

        def measure(predictors: Mapping[str, Predictor], pairs: Iterable[tuple[str, str]], metric: Any) -> ParityResult:
            return measure_parity(
                *(predictors, pairs, loader, variants.network, metric), *(batch_to_inputs, progress, batch_to_target)
            )

        def rounding(deployment: Deployment) -> Rounding:  # a second pass, where the first one left a doubt
            predictors = variants.without_rounding(temporary, output, threads, deployment)
            pairs = [(name, UNROUNDED) for name in predictors if name != UNROUNDED]
            parities = measure(predictors, pairs, None).parities
            return variants.rounding(parities, deployment.name)

        def first_layer(deployment: Deployment) -> str:
            return variants.first_layer(temporary, deployment, inputs, output, threads, tolerance)

        unwritten = _write_others(temporary, variants.network, examples, output, compared, batch_sizes)
        deployments = find_deployments(temporary, compared) if len(compared) > 1 else ()
        predictors = variants.predictors(temporary, output, threads, deployments)
        result = measure(predictors, variants.pairs(deployments), metric)
        _check_classes(classes, result)
        warnings = unwritten + check_parities(
            result, tolerance, float_file is not None, rounding, deployments, first_layer
        )
        # After the parities: latencies of wrong files would only cost time.
        sizes_measured: Sequence[int] | None = None if examples.is_whole else batch_sizes
        if examples.is_fixed:
            sizes_measured = (batch_size(inputs),)
        candidates = paths_of(temporary) | candidates_of(temporary, deployments, threads)
        latencies = alternate_latencies(candidates, inputs, sizes_measured, threads)
        rows = make_rows(variants, result, temporary, inputs, latencies, output)
        (temporary / DENSE).unlink(missing_ok=True)
        warnings += slower_warnings(rows, FLOAT_ROW, INT8_ROW)
        advice = " Runtimes are fast at multiples of 8 or 16 channels: prune with round_to=8."
        warnings += [warning + advice for warning in slower_warnings(rows, DENSE_ROW, FLOAT_ROW)]
        warnings += _float_warnings(result, metric, float_source, ptq_source)
        # A metric that was asked for is missed; without labels there may be nothing to measure.
        warnings += [result.without_metric] if metric is not None and result.without_metric else []
        name = type(variants.network).__name__
        warnings += [describe_sizes(name, sizes, examples.is_fixed)] if examples.is_whole else []
        warnings += [f"{name} draws random numbers: in the files they are at their means."] if draws else []
        warnings += _fixed_numbers(name, read_metadata(temporary / FLOAT))
        warnings += _write_program(temporary, variants.network, examples, output) if program else []
        _write_script(temporary, inputs, facts, result, tolerance, sizes if examples.is_whole else None)
        blamed, doubts = None, list[str]()
        if blame and variants.quantized is not None:
            calls = first_calls(loader, variants.network, batch_to_inputs)
            blamed, doubts = blame_export(
                temporary, variants, result, measure, calls, metric, output, threads, progress
            )
        report = _report(path, temporary, variants, result, rows, [*warnings, *doubts], source, blamed)
        if deployments:
            facts_of = result.metrics, agreements_of(result, deployments), inputs, sizes_measured, threads
            in_runtimes = make_runtime_rows(temporary, deployments, latencies, *facts_of)
            report = replace(report, runtimes=in_runtimes, **_others(variants, temporary, deployments, report))
        report = replace(report, notes=(*notes, *report.notes, *missing))
        write_report(report, temporary, {"metadata": read_metadata(temporary / FLOAT)})
    return report


def _check_numbers(opset: Any, threads: Any, batch_sizes: Sequence[int], tolerance: Any) -> None:
    check_opset(opset)
    check_integer("threads", threads)
    check_batch_sizes(batch_sizes)
    check_positive("tolerance", tolerance)


def draws_numbers(network: nn.Module, inputs: Inputs, output: OutputSpec = None) -> bool:
    """Return whether a network draws random numbers, which are at their means in its files.

    Example:
        >>> draws_numbers(nn.Linear(4, 2), torch.zeros(1, 4))
        False
    """
    with torch.no_grad(), MeanDraws() as draws:
        call_network(network, inputs, output=output)
    return draws.drawn


def _fixed_numbers(network: str, metadata: Mapping[str, Any]) -> list[str]:
    numbers = metadata.get(FIXED_NUMBERS)
    if not numbers:
        return []
    return [
        f"{network} reads whole numbers out of its inputs, as in int(lengths.max()): in the files they are always"
        f" {', '.join(map(str, numbers[:4]))}{' and others' * (len(numbers) > 4)}, as in the data of this run."
    ]


def _plain(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _write_files(
    folder: Path,
    variants: Variants,
    examples: Examples,
    output: OutputSpec,
    float_file: str | os.PathLike[str] | None,
    opset: int | None,
) -> Sizes:
    """Write the files, and return the shapes that all of them take."""
    inputs, others = examples.inputs, examples.others
    networks = {FLOAT: variants.network, INT8: variants.quantized, DENSE: variants.dense}
    sizes: dict[str, list[int | None]] = {}
    for name, network in networks.items():
        if name == FLOAT and float_file is not None:
            take_onnx(float_file, folder / FLOAT)
        elif network is not None:
            for key, size in write_onnx(
                network, inputs, folder / name, output, opset, others, not examples.is_fixed
            ).items():
                sizes[key] = [a if b is None else b for a, b in zip(sizes.get(key, size), size, strict=True)]
    return sizes


def _describe(path: Path, inputs: Inputs, facts: Mapping[str, Any]) -> None:
    """Write a file's metadata."""
    given = {name: value for name, value in facts.items() if value is not None and value != ""}
    write_metadata(path, {**given, "inputs": list(named_tensors(inputs)), "versions": find_versions(path)})


def _check_classes(classes: Sequence[str] | None, result: ParityResult) -> None:
    if classes is not None and len(classes) != result.outputs and not (result.outputs == 1 and len(classes) == 2):
        raise ValueError(f"classes expected {result.outputs} names, one per output, but got {len(classes)}.")


def _write_program(folder: Path, network: nn.Module, examples: Examples, output: OutputSpec) -> list[str]:
    try:
        export_program(network, examples.inputs, folder / "model.pt2", output, examples.others)
    except ValueError as error:
        # The program may have been written before its check failed.
        (folder / "model.pt2").unlink(missing_ok=True)
        return [f"There is no model.pt2: {error}"]
    return []


def _write_others(
    folder: Path,
    network: nn.Module,
    examples: Examples,
    output: OutputSpec,
    runtimes: Sequence[Runtime],
    batch_sizes: Sequence[int],
) -> list[str]:
    """Write the float network for runtimes with a format of their own; return a warning where that is impossible."""
    warnings = []
    for runtime in runtimes:
        if runtime.runs_onnx:
            continue
        largest = None if examples.is_fixed else max(batch_sizes)
        try:
            runtime.write(network, examples.inputs, folder / PTE, output=output, largest=largest)
        except ValueError as error:
            warnings.append(f"There is no {PTE}: {error}")
    return warnings


def _float_warnings(result: ParityResult, metric: Any, float_source: str, ptq_source: str) -> list[str]:
    """Return a warning where quantization-aware training made the metric worse, or began from hardly trained weights.

    Only for a metric from 0 to 1, higher is better: of others it is unknown how much a difference means.
    """
    # Accuracy, the default, is such a metric.
    upwards = metric is None or getattr(metric, "higher_is_better", None) is True
    known = [result.metrics.get(name) for name in (FLOAT_ROW, INT8_ROW)]
    if not (float_source or ptq_source) or not upwards or any(value is None or not 0 <= value <= 1 for value in known):
        return []
    before, after = (float(value) for value in known if value is not None)
    untrained = float(result.metrics.get(PTQ_ROW) or 0.0)
    if untrained - after > A_POINT:
        return [
            f"{INT8} has a {result.metric} of {after:.4f}, {100 * (untrained - after):.1f} points below the"
            f" {untrained:.4f} of the weights before quantization-aware training, quantized without it: export with"
            " int8=True alone, or train at a lower learning rate."
        ]
    if not float_source or after - before <= A_POINT:
        return []
    return [
        f"{FLOAT} holds {float_source}, whose {result.metric} of {before:.4f} is {100 * (after - before):.1f} points"
        f" below the {after:.4f} of {INT8}, which was trained further: for a useful float file, and to see what"
        " quantization costs, start quantization-aware training later."
    ]


def _write_script(
    folder: Path,
    inputs: Inputs,
    facts: Mapping[str, Any],
    result: ParityResult,
    tolerance: float,
    sizes: Sizes | None,
) -> None:
    parity = int8_parity(result)
    tolerances = {FLOAT: tolerance}
    if parity is not None:  # the script runs the first of them by default
        # Another CPU may round halves to the other side: twice the largest difference measured here is accepted.
        tolerances = {INT8: max(INT8_TOLERANCE, 2 * parity.largest), **tolerances}
    write_inference(folder, tolerances, inputs, **facts, classification=result.classification, sizes=sizes)


def _report(
    path: Path,
    temporary: Path,
    variants: Variants,
    result: ParityResult,
    rows: tuple[Row, ...],
    warnings: list[str],
    source: str,
    blame: LayerBlame | None,
) -> ExportReport:
    # Read from the graph that the runtime executes: a file may hold integers that it computes with in float.
    operators = inspect_onnx(temporary / INT8) if variants.quantized is not None else ()
    names = [name for name in FILES if (temporary / name).exists() or name.startswith("report")]
    return ExportReport(
        folder=path,
        files=tuple(path / name for name in names),
        rows=rows,
        warnings=(*warnings, *variants.surprises(operators)),
        integer_operators=tuple(operator for operator in operators if operator.integer),
        float_operators=tuple(operator for operator in operators if not operator.integer),
        metric=result.metric,
        samples=next(iter(result.parities.values())).samples,
        source=source,
        quantization=variants.quantization,
        versions=find_versions(temporary / FLOAT),
        notes=_notes(variants, result),
        blame=blame,
    )


def _others(
    variants: Variants, folder: Path, deployments: Sequence[Deployment], report: ExportReport
) -> dict[str, Any]:
    """Return what the report says of integers in other runtimes than ONNX Runtime, and the warnings with theirs."""
    integers, warnings = dict[str, str](), [*report.warnings]
    for one in deployments:
        if one.file == INT8 and one.name != INT8_ROW:
            operators = one.runtime.operators(folder / INT8)
            groups = ([op for op in operators if op.integer is is_integer] for is_integer in (True, False))
            integers[one.runtime.label] = count_integers(*groups)
            warnings += variants.surprises(operators, one.runtime.label)
    return {"integers": integers, "warnings": tuple(warnings)}


def renamed_batches(batch_sizes: Sequence[int], latency_batches: Sequence[int] | None) -> Sequence[int]:
    """Return the batch sizes, whichever of the names they were given by.

    Warns:
        FutureWarning: by the former one.

    Example:
        >>> renamed_batches((1, 64), None)
        (1, 64)
    """
    if latency_batches is None:
        return batch_sizes
    python_warnings.warn(
        "latency_batches is now batch_sizes: the old name will be removed in the next release.",
        FutureWarning,
        stacklevel=3,
    )
    return latency_batches


def _notes(variants: Variants, result: ParityResult) -> tuple[str, ...]:
    notes = [result.without_metric] if result.without_metric else []
    if variants.dense is not None and not variants.is_dense_known:
        notes += [
            f"The dense network has no {result.metric}: its weights from before the first cut are no longer known."
            " Size, MACs and latency do not depend on them."
        ]
    earlier, last = (variants.epochs.get(name, -1) for name in (DENSE_ROW, FLOAT_ROW))
    if variants.dense is not None and variants.is_dense_known and earlier < last:
        notes += [_dense_note(earlier)]
    return tuple(notes)


def _dense_note(epoch: int) -> str:
    when = f"of epoch {epoch}, just before the first cut" if epoch >= 0 else "that the run began with"
    return f"The dense network has the weights {when}, and was trained no further: compare its size and speed."
