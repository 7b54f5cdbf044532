"""The variants of a network that an export compares: in float and quantized, in torch and in ONNX Runtime."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lit_xai.export.deployments import FLOAT, INT8, Deployment
from lit_xai.export.first_difference import describe_difference, first_difference
from lit_xai.export.parity import (
    FilePredictor,
    Parity,
    ParityResult,
    Predictor,
    Rounding,
    check_bfloat16,
    check_float,
    check_int8,
)
from lit_xai.export.parity import network_predictor as torch_predictor
from lit_xai.export.report import Row
from lit_xai.network.calling import Inputs, OutputSpec, find_network
from lit_xai.network.copying import copy_network
from lit_xai.network.profiling import count_macs
from lit_xai.network.untouched import untouched
from lit_xai.quantization.fake_quantizers import find_fake_quantizers, fold_paired_
from lit_xai.quantization.quantization import IN_FLOAT, describe_quantization
from lit_xai.runtime.errors import describe_cause
from lit_xai.runtime.inspection import Operator
from lit_xai.runtime.latency import Latency
from lit_xai.runtime.loaded import LoadedModel
from lit_xai.runtime.runtimes import find_runtime

DENSE = "dense.onnx"
"""The network before it was pruned: measured, and then deleted."""

DENSE_ROW = "dense (ONNX Runtime)"
FLOAT_ROW, PTQ_ROW = "fp32 (ONNX Runtime)", "post-training quantized (torch)"
QUANTIZED_ROW, INT8_ROW = "fake-quantized (torch)", "int8 (ONNX Runtime)"
UNROUNDED = "quantized, without rounding (torch)"
_NETWORK = "fp32 (torch)"  # the reference of the float file; it has no row of its own


@dataclass(frozen=True)
class Variants:
    """Copies of the networks, on the CPU and in float32.

    Args:
        network: the network in float.
        quantized: the calibrated network that the int8 file is written from, if there is one.
        ptq: the network quantized without training, for its row alone.
        quantization: from :func:`~lit_xai.quantization.quantization.describe_quantization`, of ``quantized``.
        row: the name of the row of ``quantized``, which shows whether it was trained.
        dense: the network before it was pruned, for its row alone.
        is_dense_known: whether ``dense`` has the weights it had then, so that its outputs mean something.
        epochs: the last epoch that a network was trained in, by the name of its row.
    """

    network: nn.Module
    quantized: nn.Module | None
    ptq: nn.Module | None
    quantization: dict[str, Any]
    row: str = QUANTIZED_ROW
    dense: nn.Module | None = None
    is_dense_known: bool = True
    epochs: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        quantized: nn.Module | None = None,
        ptq: nn.Module | None = None,
        dense: nn.Module | None = None,
        is_dense_known: bool = True,
        epochs: Mapping[str, int | None] | None = None,
    ) -> "Variants":
        """Copy networks; given ``ptq`` alone, the int8 file is written from that.

        Args:
            network: the network in float.
            quantized: the calibrated network, trained for it.
            ptq: the network quantized without training.
            dense: the network before it was pruned.
            is_dense_known: see above.
            epochs: by the names of these arguments.

        Raises:
            ValueError: a network is quantized that should not be, or not that should, or was never calibrated.
        """
        if find_fake_quantizers(network) is not None:
            raise ValueError(
                f"network expected one in float, but {type(network).__name__} is quantized: give it as quantized=."
            )
        for name, given in (("quantized", quantized), ("ptq", ptq)):
            _check_quantized(name, given)
        row = QUANTIZED_ROW
        # Only one int8 file is written: from the trained network if there is one.
        if quantized is None and ptq is not None:
            quantized, ptq, row = ptq, None, PTQ_ROW
        known = {name: epoch for name, epoch in (epochs or {}).items() if epoch is not None}
        described = {} if quantized is None else describe_quantization(find_network(quantized))
        copies = [None if given is None else _copied(given) for given in (quantized, ptq)]
        for copied in filter(None, copies):
            fold_paired_(copied)  # as the file has it, so that a difference is the runtime's and not the fold's
            _enable_(copied)
        dense = None if dense is None else _copied(dense)
        return cls(_copied(network), copies[0], copies[1], described, row, dense, is_dense_known, _by_row(known, row))

    def untouched(self) -> contextlib.ExitStack:
        """Return a context that leaves all networks and the random generators as they are."""
        stack = contextlib.ExitStack()
        # Copies too have to stay as they are: each is run, exported and run again.
        for network in (self.network, self.quantized, self.ptq, self.dense):
            if network is not None:
                stack.enter_context(untouched(network))
        return stack

    def predictors(
        self, folder: Path, output: OutputSpec, threads: int, deployments: Sequence[Deployment] = ()
    ) -> dict[str, Predictor]:
        """Return the predictor of each row and of each deployment; files are those in ``folder``."""
        predictors: dict[str, Predictor] = {FLOAT_ROW: FilePredictor(folder / FLOAT, threads)}
        predictors[_NETWORK] = torch_predictor(self.network, output)
        if self.dense is not None and self.is_dense_known:
            predictors[DENSE_ROW] = FilePredictor(folder / DENSE, threads)
        if self.ptq is not None:
            predictors[PTQ_ROW] = torch_predictor(self.ptq, output)
        if self.quantized is not None:
            predictors[self.row] = torch_predictor(self.quantized, output)
            predictors[INT8_ROW] = FilePredictor(folder / INT8, threads)
        for one in deployments:
            if one.name not in predictors:
                predictors[one.name] = FilePredictor(folder / one.file, threads, one.runtime.name, one.precision)
        return predictors

    def pairs(self, deployments: Sequence[Deployment] = ()) -> list[tuple[str, str]]:
        """Return the pairs of rows to compare: each row with the float file, and the files with torch."""
        names = [DENSE_ROW] if self.dense is not None and self.is_dense_known else []
        names += [FLOAT_ROW, *([PTQ_ROW] if self.ptq is not None else [])]
        names += [self.row, INT8_ROW] if self.quantized is not None else []
        with_torch = {FLOAT_ROW: _NETWORK, INT8_ROW: self.row}
        more = {one.name: self.row if one.file == INT8 else _NETWORK for one in deployments}
        names += [name for name in more if name not in names]
        with_torch |= more
        return [(name, FLOAT_ROW) for name in names] + [(n, with_torch[n]) for n in names if n in with_torch]

    def without_rounding(
        self, folder: Path, output: OutputSpec, threads: int, deployment: Deployment
    ) -> dict[str, Predictor]:
        """Return the predictors of the quantized network and its file, and of the same weights without rounding.

        Args:
            folder: of the files.
            output: the logits in the network's output.
            threads: for the runtime.
            deployment: of the int8 file.
        """
        assert self.quantized is not None
        float_weights = copy_network(self.quantized)
        fake_quantizers = find_fake_quantizers(float_weights)
        assert fake_quantizers is not None
        fake_quantizers.enable_fake_quant_(False)
        predictors = self.predictors(folder, output, threads, (deployment,))
        own = {name: predictors[name] for name in (self.row, deployment.name)}
        return {**own, UNROUNDED: torch_predictor(float_weights, output)}

    def rounding(self, parities: Mapping[tuple[str, str], Parity], name: str) -> Rounding:
        """Return what rounding does, from how far apart the :meth:`without_rounding` are."""
        return Rounding(parities[self.row, UNROUNDED], parities[name, UNROUNDED])

    def first_layer(
        self, folder: Path, deployment: Deployment, inputs: Inputs, output: OutputSpec, threads: int, limit: float
    ) -> str:
        """Return in a sentence which layer of a file is the first that differs from its network's.

        Args:
            folder: of the files.
            deployment: the file, and what runs it.
            inputs: what both are called with.
            output: the logits in the network's output.
            threads: for the runtime.
            limit: of the float file.
        """
        network = self.quantized if deployment.file == INT8 else self.network
        assert network is not None

        def load(path: Path) -> LoadedModel:
            return deployment.runtime.load(path, threads, deployment.precision)

        limits = {"limit": limit} if deployment.file == FLOAT else {}
        if not deployment.runtime.runs_onnx:
            return ""
        try:
            with self.untouched():
                found = first_difference(network, folder / deployment.file, load, inputs, output, **limits)
        except Exception as error:  # of any kind: the error is about the file, and this only helps to find its reason
            return f"Which layer differs is unknown ({describe_cause(error)})."
        return describe_difference(found)

    def surprises(self, operators: Sequence[Operator], runtime: str = "ONNX Runtime") -> list[str]:
        """Return warnings of layers that a runtime executes in another precision than they were trained in."""
        meant, floats = self.quantization.get("integer", ()), self.quantization.get("float", {})
        if self.quantization.get("activations") == IN_FLOAT:  # where integers are only how weights are stored
            meant = ()
        left = [operator.layer for operator in operators if not operator.integer and operator.layer in meant]
        taken = [operator.layer for operator in operators if operator.integer and operator.layer in floats]
        surprises = []
        if left:
            surprises.append(
                f"{runtime} leaves {len(left)} of {len(meant)} quantized layers in float: {', '.join(left)}."
            )
        if taken:  # ONNX Runtime quantizes the weights of a float layer between two integer ones to 8 bits
            surprises.append(f"{runtime} quantizes layers that were to stay in float: {', '.join(taken)}.")
        return surprises


def check_parities(
    result: ParityResult,
    tolerance: float,
    float_is_given: bool,
    rounding: Callable[[Deployment], Rounding] | None = None,
    deployments: Sequence[Deployment] = (),
    first_layer: Callable[[Deployment], str] | None = None,
) -> list[str]:
    """Refuse files that do not compute what the networks do; return warnings.

    Args:
        result: from :func:`~lit_xai.export.parity.measure_parity`.
        tolerance: of the float file.
        float_is_given: whether that is a file of other weights, which need not agree with anything; other runtimes
            then have to agree with ONNX Runtime.
        rounding: measures what rounding does; called where the int8 file differs by more than it should.
        deployments: in other runtimes, and in other precisions of floats.
        first_layer: tells in a sentence which layer of a file is the first that differs; called for the error.

    Raises:
        ValueError: a file is beyond the limits of :func:`~lit_xai.export.parity.check_float` and ``check_int8``; names
            the first layer that differs.
    """
    default = find_runtime("onnxruntime")
    warnings: list[str | None] = []
    every = [Deployment(FLOAT, default), *([Deployment(INT8, default)] if int8_parity(result) else [])]
    for one in [*every, *(one for one in deployments if one.name not in (FLOAT_ROW, INT8_ROW))]:
        name = one.file if one.runtime == default else str(one)
        try:
            if one.file == INT8:
                parity = network_parity(result, one.name)
                assert parity is not None
                warnings.append(check_int8(parity, rounding and partial(rounding, one), name))
            elif one.precision != "f32":
                warnings.append(check_bfloat16(result.parities[one.name, _NETWORK], name))
            elif one.runtime != default or not float_is_given:
                reference = FLOAT_ROW if float_is_given and one.file == FLOAT else _NETWORK
                check_float(result.parities[one.name, reference], tolerance, name)
        except ValueError as error:
            # A file of other weights than the network's has no layers to compare with.
            told = "" if first_layer is None or (float_is_given and one.file == FLOAT) else first_layer(one)
            raise ValueError(f"{error} {told}".strip()) from None
    return [warning for warning in warnings if warning is not None]


def agreements_of(result: ParityResult, deployments: Sequence[Deployment]) -> dict[str, float | None]:
    """Return the share of predictions in which each deployment agrees with the network its file was written from."""
    parities = {one.name: network_parity(result, one.name) for one in deployments}
    return {name: None if parity is None else parity.agreement for name, parity in parities.items()}


def int8_parity(result: ParityResult) -> Parity | None:
    """Return the difference between the int8 file and the quantized network, if there are both."""
    return network_parity(result, INT8_ROW)


def _by_row(epochs: Mapping[str, int], row: str) -> dict[str, int]:
    """Return epochs by the names of rows, given those by the names of arguments."""
    arguments = {DENSE_ROW: "dense", FLOAT_ROW: "network", PTQ_ROW: "ptq", QUANTIZED_ROW: "quantized"}
    arguments[INT8_ROW] = arguments[row]
    return {name: epochs[argument] for name, argument in arguments.items() if argument in epochs}


def network_parity(result: ParityResult, name: str) -> Parity | None:
    """Return the difference between a file, by its row or deployment, and the network that it was written from."""
    return next((one for (left, right), one in result.parities.items() if left == name and right != FLOAT_ROW), None)


def paths_of(folder: Path) -> dict[str, Path]:
    """Return the files whose latency is measured, by the names of their rows.

    The fake-quantized rows compute in float in torch, which says nothing about integers.
    """
    files = {DENSE_ROW: DENSE, FLOAT_ROW: FLOAT, INT8_ROW: INT8}
    return {name: folder / file for name, file in files.items() if (folder / file).exists()}


def make_rows(
    variants: Variants,
    result: ParityResult,
    folder: Path,
    inputs: Inputs,
    latency: Mapping[str, dict[int, Latency]],
    output: OutputSpec = None,
) -> tuple[Row, ...]:
    """Return the table's rows.

    Args:
        variants: the networks of the rows.
        result: of the pass over the loader.
        folder: the folder of the files.
        inputs: what the files are called with.
        latency: of the files, by the rows' names.
        output: where the logits are in the networks' output.
    """
    paths = paths_of(folder)
    every = (DENSE_ROW, FLOAT_ROW, PTQ_ROW, QUANTIZED_ROW, INT8_ROW)
    macs = dict.fromkeys(every, count_macs(variants.network, inputs, output=output))
    if variants.dense is not None:
        macs[DENSE_ROW] = count_macs(variants.dense, inputs, output=output)
    names = [name for name in every if name in paths or (name, FLOAT_ROW) in result.parities]
    return tuple(
        replace(
            _row(name, result, paths.get(name), latency.get(name, {})),
            epoch=variants.epochs.get(name),
            macs=macs[name],
        )
        for name in names
    )


def _row(name: str, result: ParityResult, path: Path | None, latency: dict[int, Latency]) -> Row:
    with_torch, with_float = network_parity(result, name), result.parities.get((name, FLOAT_ROW))
    return Row(
        name,
        metric=result.metrics.get(name),
        agreement=None if with_float is None else with_float.agreement,
        difference=None if with_torch is None else with_torch.largest,
        torch_agreement=None if with_torch is None else with_torch.agreement,
        bytes=None if path is None else path.stat().st_size,
        latency=latency,
    )


def _copied(network: nn.Module) -> nn.Module:
    # On the CPU in float32, where the files run, so that a difference is the file's and not the device's.
    return copy_network(find_network(network)).cpu().float()


def _enable_(network: nn.Module) -> None:
    """Have a network quantize that only observed ranges so far, as its file does."""
    fake_quantizers = find_fake_quantizers(network)
    if fake_quantizers is not None and not fake_quantizers.is_enabled():
        fake_quantizers.enable_fake_quant_(True)


def _check_quantized(name: str, network: nn.Module | None) -> None:
    if network is None:
        return
    fake_quantizers = find_fake_quantizers(network)
    if fake_quantizers is None:
        raise ValueError(
            f"{name} expected a network from quantize() or from quantization-aware training, but got a"
            f" {type(network).__name__} in float."
        )
    if not fake_quantizers.is_calibrated():
        raise ValueError(
            f"{name} expected ranges that were observed on data, but got none yet: train it, or call quantize() with a"
            " loader."
        )
