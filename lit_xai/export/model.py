"""Export of a trained network to a folder for others to run: ONNX in float and int8, a program, a script, a report."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_xai.export.files import take_onnx, write_onnx
from lit_xai.export.folder import FILES, check_folder, staged
from lit_xai.export.inference import check_normalization, write_inference
from lit_xai.export.inspection import inspect_onnx
from lit_xai.export.metadata import check_plain, read_metadata, write_metadata
from lit_xai.export.parity import ParityResult, in_float, measure_parity
from lit_xai.export.program import export_program
from lit_xai.export.report import ExportReport, Row, slower_warnings, write_report
from lit_xai.export.variants import (
    DENSE,
    DENSE_ROW,
    FLOAT,
    FLOAT_ROW,
    INT8,
    INT8_ROW,
    PTQ_ROW,
    Variants,
    check_parities,
    int8_parity,
    make_rows,
)
from lit_xai.export.versions import find_versions
from lit_xai.network.calling import BatchToInputs, BatchToTarget, Inputs, OutputSpec, find_inputs
from lit_xai.network.check import check_integer, check_positive
from lit_xai.network.metric import check_rereadable, first_batch
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.onnx import check_opset

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
    latency_batches: Sequence[int] = (1, 64),
    tolerance: float = 1e-3,
    opset: int | None = None,
    program: bool = True,
    progress: bool = True,
) -> ExportReport:
    """Export a network to files, and measure on data that the files compute what was trained.

    The folder then holds ``model.onnx``; ``model.int8.onnx`` where a quantized network is given; ``model.pt2``, a
    program of ``torch.export``; ``infer.py``, which needs only onnxruntime and numpy; ``report.md`` and
    ``report.json``. Either all files are written or none. Networks, loader and metric are left unchanged.

    Every output over the whole loader is compared with torch's, on the CPU and in float32. The float file may differ
    by ``tolerance`` of the largest output. The int8 file has to agree with the quantized network in 99% of the
    predictions; with fewer than 100 predictions, or none, outputs may differ by 2% of the largest one on average.
    Single outputs may differ by more: an activation halfway between two integers is rounded to either.

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
        threads: the number of threads for ONNX Runtime.
        latency_batches: the batch sizes to measure latencies at.
        tolerance: see above.
        opset: version of ONNX's operators, 18 or newer; default torch's.
        program: whether to write ``model.pt2``; if the network cannot be exported that way, a warning is given.
        progress: whether to show a progress bar.

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
    _check_numbers(opset, threads, latency_batches, tolerance)
    check_plain("recipe", recipe)
    variants = Variants.of(network, quantized, ptq, dense, is_dense_known, epochs)
    inputs = _first_inputs(loader, variants.network, batch_to_inputs)
    check_normalization(inputs, mean, std)
    facts = {"classes": classes and [*map(str, classes)], "mean": _plain(mean), "std": _plain(std)}
    with staged(path, overwrite) as temporary, variants.untouched():
        _write_files(temporary, variants, inputs, output, float_file, opset)
        _describe(temporary / FLOAT, inputs, facts if float_file else {**facts, "recipe": recipe, "source": source})
        if variants.quantized is not None:
            more = {"recipe": recipe, "source": source, "quantization": variants.quantization}
            _describe(temporary / INT8, inputs, {**facts, **more})
        predictors = variants.predictors(temporary, output, threads)
        result = measure_parity(
            *(predictors, variants.pairs(), loader, variants.network, metric),
            *(batch_to_inputs, progress, batch_to_target),
        )
        _check_classes(classes, result)
        warnings = check_parities(result, tolerance, float_file is not None)
        # After the parities: latencies of wrong files would only cost time.
        rows = make_rows(variants, result, temporary, inputs, latency_batches, threads, output)
        (temporary / DENSE).unlink(missing_ok=True)
        warnings += slower_warnings(rows, FLOAT_ROW, INT8_ROW)
        advice = " Runtimes are fast at multiples of 8 or 16 channels: prune with round_to=8."
        warnings += [warning + advice for warning in slower_warnings(rows, DENSE_ROW, FLOAT_ROW)]
        warnings += _float_warnings(result, metric, float_source, ptq_source)
        # A metric that was asked for is missed; without labels there may be nothing to measure.
        warnings += [result.without_metric] if metric is not None and result.without_metric else []
        warnings += _write_program(temporary, variants.network, inputs, output) if program else []
        _write_script(temporary, inputs, facts, result, tolerance)
        report = _report(path, temporary, variants, result, rows, warnings, source)
        write_report(report, temporary, {"metadata": read_metadata(temporary / FLOAT)})
    return report


def _check_numbers(opset: Any, threads: Any, batch_sizes: Sequence[int], tolerance: Any) -> None:
    check_opset(opset)
    check_integer("threads", threads)
    for i, size in enumerate(batch_sizes):
        check_integer(f"latency_batches[{i}]", size)
    check_positive("tolerance", tolerance)


def _first_inputs(loader: Iterable[Any], network: nn.Module, batch_to_inputs: BatchToInputs) -> Inputs:
    batch = first_batch(check_rereadable(loader), torch.device("cpu"))
    return in_float(find_inputs(batch, network, batch_to_inputs))


def _plain(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _write_files(
    folder: Path,
    variants: Variants,
    inputs: Inputs,
    output: OutputSpec,
    float_file: str | os.PathLike[str] | None,
    opset: int | None,
) -> None:
    if float_file is None:
        write_onnx(variants.network, inputs, folder / FLOAT, output, opset)
    else:
        take_onnx(float_file, folder / FLOAT)
    if variants.quantized is not None:
        write_onnx(variants.quantized, inputs, folder / INT8, output, opset)
    if variants.dense is not None:
        write_onnx(variants.dense, inputs, folder / DENSE, output, opset)


def _describe(path: Path, inputs: Inputs, facts: Mapping[str, Any]) -> None:
    """Write a file's metadata."""
    given = {name: value for name, value in facts.items() if value is not None and value != ""}
    write_metadata(path, {**given, "inputs": list(named_tensors(inputs)), "versions": find_versions(path)})


def _check_classes(classes: Sequence[str] | None, result: ParityResult) -> None:
    if classes is not None and len(classes) != result.outputs and not (result.outputs == 1 and len(classes) == 2):
        raise ValueError(f"classes expected {result.outputs} names, one per output, but got {len(classes)}.")


def _write_program(folder: Path, network: nn.Module, inputs: Inputs, output: OutputSpec) -> list[str]:
    try:
        export_program(network, inputs, folder / "model.pt2", output)
    except ValueError as error:
        # The program may have been written before its check failed.
        (folder / "model.pt2").unlink(missing_ok=True)
        return [f"There is no model.pt2: {error}"]
    return []


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
    folder: Path, inputs: Inputs, facts: Mapping[str, Any], result: ParityResult, tolerance: float
) -> None:
    parity = int8_parity(result)
    tolerances = {FLOAT: tolerance}
    if parity is not None:  # the script runs the first of them by default
        # Another CPU may round halves to the other side: twice the largest difference measured here is accepted.
        tolerances = {INT8: max(INT8_TOLERANCE, 2 * parity.largest), **tolerances}
    write_inference(folder, tolerances, inputs, **facts, classification=result.classification)


def _report(
    path: Path,
    temporary: Path,
    variants: Variants,
    result: ParityResult,
    rows: tuple[Row, ...],
    warnings: list[str],
    source: str,
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
    )


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
