"""A network in the form that exporters take: tensors in, logits out, however nested its own inputs and outputs are."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.arguments import Arguments, Inputs, named_leaves
from lit_xai.network.calling import OutputSpec, call_network
from lit_xai.network.profiling import count_samples, with_batch_size
from lit_xai.network.trees import with_tensors


class FlatNetwork(nn.Module):
    """Takes the tensors of a network's inputs one by one, and returns its logits.

    The names of its parameters begin with ``network.``, in exported files as well.

    Args:
        network: the module.
        inputs: its inputs; those that are not tensors become part of an exported file.
        call: the network's method that is called.
        output: where the logits are in its output.
        dynamic_batch: whether to export for any number of samples, where the network takes that.

    Example:
        >>> flat = FlatNetwork(nn.Linear(4, 2), {"input": torch.zeros(1, 4)})
        >>> list(flat.tensors), flat().shape, flat(torch.zeros(5, 4)).shape
        (['input'], torch.Size([2, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Inputs,
        call: str = "forward",
        output: OutputSpec = None,
        dynamic_batch: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        inputs = with_tensors(inputs, named_tensors(inputs).values())
        self._n = count_samples(network, inputs, call, output) if dynamic_batch else None
        if self._n is not None and self._n < 2:  # torch.export takes a dimension of size 0 or 1 for a constant
            inputs, self._n = with_batch_size(inputs, 2, self._n), 2
        self._inputs, self._call, self._output = inputs, call, output
        self.tensors = named_tensors(inputs)

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The ``dynamic_shapes`` that ``torch.export`` takes: first dimensions that count samples are dynamic."""
        # AUTO rather than DYNAMIC: the exporter may fix a dimension that the network needs to be constant.
        tensors = self.tensors.values()
        return (tuple({0: torch.export.Dim.AUTO} if t.dim() > 0 and len(t) == self._n else None for t in tensors),)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits for tensors in the order of ``tensors``, by default for these."""
        inputs = with_tensors(self._inputs, tensors or self.tensors.values())
        return call_network(self.network, inputs, self._call, self._output)


def named_tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Return the tensors in inputs by their names in an ONNX file, on the CPU and floats in float32.

    Example:
        >>> list(named_tensors({"user": torch.zeros(1), "items": (torch.zeros(1), torch.zeros(1))}))
        ['user', 'items.0', 'items.1']
        >>> list(named_tensors(torch.zeros(1))), list(named_tensors((torch.zeros(1), torch.zeros(1))))
        (['input'], ['input.0', 'input.1'])
        >>> list(named_tensors(Arguments((torch.zeros(1),), {"mask": torch.zeros(1)})))
        ['input.0', 'mask']
    """
    detached = {_in_file(inputs, name): tensor.detach().cpu() for name, tensor in named_leaves(inputs)}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in detached.items()}


def _in_file(inputs: Inputs, name: str) -> str:
    # A position is no name; a keyword is.
    has_place = not isinstance(inputs, (Mapping, Arguments)) or (isinstance(inputs, Arguments) and name[0].isdigit())
    return f"input.{name}".rstrip(".") if has_place else name


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence ``torch.export`` and ``torch.onnx`` inside; their exceptions still reach the caller.

    They log that torchvision is missing and tables of the strategies they tried, print graphs they could not read, and
    warn of their own deprecations.
    """
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
