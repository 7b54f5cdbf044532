"""A trained network -> a folder that others can run: ONNX in float and int8, a program, a script, and a report."""

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
from lit_xai.export.versions import find_versions, fingerprints
from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec, find_inputs
from lit_xai.network.check import check_integer, check_positive
from lit_xai.network.metric import check_rereadable, first_batch
from lit_xai.runtime.flat import named_tensors
from lit_xai.runtime.onnx import check_opset

INT8_TOLERANCE = 0.05
"""How far an int8 file's own check may be off on another machine, where nothing larger was seen here."""

A_POINT = 0.01
"""From how much less on, of a metric from 0 to 1, the float weights are said to have been trained less."""


def export_model(
    network: nn.Module,
    loader: Iterable[Any],
    dirpath: str | os.PathLike[str],
    *,
    quantized: nn.Module | None = None,
    ptq: nn.Module | None = None,
    float_file: str | os.PathLike[str] | None = None,
    metric: Any = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    recipe: Mapping[str, Any] | None = None,
    source: str = "",
    float_source: str = "",
    batch_to_inputs: BatchToInputs = None,
    output: OutputSpec = None,
    overwrite: bool = False,
    threads: int = 1,
    latency_batches: Sequence[int] = (1, 64),
    tolerance: float = 1e-3,
    opset: int | None = None,
    program: bool = True,
    progress: bool = True,
) -> ExportReport:
    """Write a network for others to run, and measure on data whether what was written is what was trained.

    The folder then holds ``model.onnx``; ``model.int8.onnx`` where a quantised network is given; ``model.pt2``, a
    program of ``torch.export``; ``infer.py``, which needs only onnxruntime and numpy; ``report.md`` and
    ``report.json``. All appear at the end or none does. Networks, loader and metric are left as they were.

    Every output over the whole loader is compared with torch's, on the CPU and in float32. The float file may differ
    by ``tolerance`` of the largest output. The int8 file has to share 99% of the predictions of the quantised network
    (from 100 on; with fewer, or none, outputs may differ by 2% of the largest one on average): single outputs differ by
    a step where an activation lies between two integers.

    Args:
        network: the module in float.
        loader: yields batches, and can be read twice.
        dirpath: the folder where the files are to lie.
        quantized: what :func:`~lit_xai.quantization.quantization.quantize` returned, or was trained as it prepares one.
        ptq: likewise, but without training: where ``quantized`` is given too, for its row of the table alone.
        float_file: an ONNX file that is to be ``model.onnx``, such as one of the weights before they were trained
            quantised; it may differ from ``network``, which is then the program alone.
        metric: a ``torchmetrics.Metric`` that is updated with logits and labels, or a function of all logits and labels
            that returns a number; default the accuracy where labels are integers, else none.
        classes: names of the classes.
        mean: what was subtracted from each channel of the inputs, for values from 0 to 1.
        std: what they were divided by then.
        recipe: how the network came about, plain values; goes into the files' metadata.
        source: where the weights are from, in words.
        float_source: likewise of those of ``network``, where ``quantized`` was trained on from them.
        batch_to_inputs: what of a batch the network is called with.
        output: where the logits are in what it returns.
        overwrite: whether an earlier export in the folder may be replaced.
        threads: how many ONNX Runtime may use.
        latency_batches: batch sizes at which to measure how long a call takes.
        tolerance: see above.
        opset: version of ONNX's operators, 18 or newer; default torch's.
        program: whether to write ``model.pt2``; a network that cannot be is a warning.
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
    path = check_folder(dirpath, overwrite)
    _check_numbers(opset, threads, latency_batches, tolerance)
    check_plain("recipe", recipe)
    variants = Variants.of(network, quantized, ptq)
    inputs = _first_inputs(loader, variants.network, batch_to_inputs)
    check_normalization(inputs, mean, std)
    facts = {"classes": classes and [*map(str, classes)], "mean": _plain(mean), "std": _plain(std)}
    with staged(path) as temporary, variants.untouched():
        _write_files(temporary, variants, inputs, output, float_file, opset)
        _describe(temporary / FLOAT, inputs, facts if float_file else {**facts, "recipe": recipe, "source": source})
        if variants.quantized is not None:
            more = {"recipe": recipe, "source": source, "quantization": variants.quantization}
            _describe(temporary / INT8, inputs, {**facts, **more})
        predictors = variants.predictors(temporary, output, threads)
        result = measure_parity(
            predictors, variants.pairs(), loader, variants.network, metric, batch_to_inputs, progress
        )
        _check_classes(classes, result)
        warnings = check_parities(result, tolerance, float_file is not None)
        rows = make_rows(result, temporary, inputs, latency_batches, threads)
        warnings += slower_warnings(rows, FLOAT_ROW, INT8_ROW)
        warnings += _float_warnings(result, metric, float_source)
        warnings += _write_program(temporary, variants.network, inputs, output) if program else []
        _write_script(temporary, inputs, facts, result, tolerance)
        report = _report(path, temporary, variants, result, rows, warnings, source)
        extra = {"files": fingerprints(temporary), "metadata": read_metadata(temporary / FLOAT)}
        write_report(report, temporary, extra)
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
        (folder / "model.pt2").unlink(missing_ok=True)
        return [f"There is no model.pt2: {error}"]
    return []


def _float_warnings(result: ParityResult, metric: Any, float_source: str) -> list[str]:
    """Return a sentence where training for integers made things worse, or went on from weights that had hardly been
    trained.

    Only of a metric that counts from 0 to 1 and upwards is known how much a point is.
    """
    upwards = metric is None or getattr(metric, "higher_is_better", None) is True
    known = [result.metrics.get(name) for name in (FLOAT_ROW, INT8_ROW)]
    if not float_source or not upwards or any(value is None or not 0 <= value <= 1 for value in known):
        return []
    before, after = (float(value) for value in known if value is not None)
    untrained = float(result.metrics.get(PTQ_ROW) or 0.0)
    if untrained - after > A_POINT:
        return [
            f"{INT8} has a {result.metric} of {after:.4f}, {100 * (untrained - after):.1f} points below the"
            f" {untrained:.4f} of the weights of before, quantised without training for it: export with int8=True"
            " alone, or train on at a lower learning rate."
        ]
    if after - before <= A_POINT:
        return []
    said, points = f"{result.metric} of {before:.4f}", 100 * (after - before)
    return [
        f"{FLOAT} holds {float_source}, whose {said} is {points:.1f} points below the {after:.4f} of {INT8}, which was"
        " trained on from there: for a float file of use, and to see what rounding costs, begin with integers later."
    ]


def _write_script(
    folder: Path, inputs: Inputs, facts: Mapping[str, Any], result: ParityResult, tolerance: float
) -> None:
    parity = int8_parity(result)
    tolerances = {FLOAT: tolerance}
    if parity is not None:  # the first is what the script takes by itself
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
    operators = inspect_onnx(temporary / INT8) if variants.quantized is not None else ()
    names = [name for name in FILES if (temporary / name).exists() or name.startswith("report")]
    return ExportReport(
        folder=path,
        files=tuple(path / name for name in names),
        rows=rows,
        warnings=(*warnings, *variants.surprises(operators)),
        integer_operators=tuple(one for one in operators if one.integer),
        float_operators=tuple(one for one in operators if not one.integer),
        metric=result.metric,
        samples=next(iter(result.parities.values())).samples,
        source=source,
        quantization=variants.quantization,
        versions=find_versions(temporary / FLOAT),
    )
