"""A network as a program of ``torch.export``."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.copying import copy_network
from lit_xai.network.untouched import untouched
from lit_xai.runtime.errors import describe_cause
from lit_xai.runtime.flat import FlatNetwork, quiet_export


def export_program(
    network: nn.Module, inputs: Inputs, path: Path, output: OutputSpec = None, others: Sequence[Inputs] = ()
) -> None:
    """Write a network in eval mode and float32 in the format of ``torch.export.load``; the network is left unchanged.

    The program takes the tensors of the inputs one by one, in their order and in any number of samples, and returns
    the logits: ``torch.export.load(path).module()(images)``. Its parameters' names begin with ``network.``.

    Args:
        network: the module.
        inputs: what it is called with; values that are no tensors become part of the program.
        path: of the file.
        output: the logits in its output.
        others: further inputs, of other sizes, where there is no row for each sample.

    Raises:
        ValueError: the network cannot be exported, or the program computes something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "model.pt2"
        >>> export_program(nn.Linear(4, 2), torch.zeros(1, 4), path)
        >>> torch.export.load(path).module()(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """
    # On the CPU in float32, whatever the training used: an exported program is bound to its device and dtypes.
    copied = copy_network(network).cpu().float()
    flat = FlatNetwork(copied, inputs, output=output, others=others)
    tensors = tuple(flat.tensors.values())
    with untouched(copied), torch.no_grad(), quiet_export():
        try:
            flat.fix_reads_()
            program = torch.export.export(flat.eval(), tensors, dynamic_shapes=flat.dynamic_shapes)
            torch.export.save(program, path)
            # The file is loaded again: what is compared is what others will run.
            result, expected = torch.export.load(path).module()(*tensors), flat()
        except Exception as error:
            raise ValueError(
                f"{type(network).__name__} cannot be exported as a program ({describe_cause(error)})."
            ) from error
    if not torch.allclose(result, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise ValueError(f"The program of {type(network).__name__} does not compute what the network does.")
