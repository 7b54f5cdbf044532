"""The theoretical cost of a network: parameters, multiply-accumulates, bytes."""

import io
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lit_xai.network.arguments import Inputs, elements
from lit_xai.network.calling import OutputSpec, call_network, check_call
from lit_xai.network.draws import MeanDraws
from lit_xai.network.rows import count, take
from lit_xai.network.trees import changed, leaves
from lit_xai.network.untouched import untouched


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters; one that several modules share counts once.

    Example:
        >>> count_parameters(nn.Linear(4, 2))
        10
    """
    return sum(parameter.numel() for parameter in network.parameters())


def size_on_disk(network: nn.Module) -> int:
    """Return the number of bytes that ``torch.save`` writes for a network's weights and buffers.

    Example:
        >>> size_on_disk(nn.Linear(1000, 1000)) // 1000  # 1001000 numbers of 4 bytes, and their names
        4005
    """
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getbuffer().nbytes


def count_macs(network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None) -> int:
    """Return the multiply-accumulates of one sample in eval mode; the network is left as it is.

    Matrix products count, wherever they are computed: in convolutions (also transposed, grouped and depthwise ones),
    linear and recurrent layers, attention, ``@`` and ``einsum``. Element-wise operations do not count: biases,
    activations, normalization, pooling; nor does ``nn.Bilinear``.

    Args:
        network: the module.
        inputs: what it is called with; tensors with as many rows as the first one hold one row per sample. Inputs that
            do not (a batch of graphs) are run as they are, and count for as many samples as there are rows of logits.
        call: the network's method that is called.
        output: where the logits are in its output.

    Example:
        >>> count_macs(nn.Conv2d(3, 16, 3, padding=1), torch.zeros(2, 3, 32, 32))  # 32 * 32 positions, 3 * 3 * 3 * 16
        442368
    """
    rows = count_samples(network, inputs, call, output)
    if rows is not None:
        # Two samples are enough, and with one, networks fail that squeeze their outputs.
        inputs, rows = with_batch_size(inputs, min(rows, 2), rows), min(rows, 2)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with untouched(network), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LSTM warns that other implementations are faster
        # The fast path is one operator for a whole layer, which torch's counter does not know.
        torch.backends.mha.set_fastpath_enabled(False)
        # The counter looks for the gradient of every argument that requires one, which a learned query that is expanded
        # has none of in no_grad; ``untouched`` puts the flags back.
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        try:
            with FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH) as counter:
                logits = check_call(network, inputs, call, output)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
    # torch counts a multiply-accumulate as two operations.
    return int(counter.get_total_flops()) // (2 * (rows or _rows(logits)))


def batch_size(inputs: Inputs) -> int:
    """Return the number of samples in inputs: the rows of the first tensor that has rows, or the entries of lists.

    Example:
        >>> batch_size({"image": torch.zeros(8, 3), "scale": torch.ones(())})
        8
    """
    return count(inputs) or 1


def with_batch_size(inputs: Inputs, n: int, rows: int | None = None) -> Any:
    """Cut or repeat inputs to ``n`` samples, as a copy.

    Args:
        inputs: of a network.
        n: number of samples to return.
        rows: number of samples in ``inputs``; default :func:`batch_size`.

    Example:
        >>> with_batch_size(torch.arange(3), 5)
        tensor([0, 1, 2, 0, 1])
    """
    rows = batch_size(inputs) if rows is None else rows
    return take(inputs, [i % rows for i in range(n)], rows)


def count_samples(network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None) -> int | None:
    """Return the number of samples in inputs that hold a row of each, ``None`` if the network needs them as they are.

    Tensors that are arguments themselves and have as many rows each hold a row per sample. Of any others the network
    tells: whether it gives the same logits for two of the rows alone. A batch of graphs and a list of images of
    different sizes have no such rows.

    Args:
        network: the module; left as it is.
        inputs: what it is called with.
        call: the method that is called.
        output: where the logits are in its output.

    Raises:
        ValueError: the network does not run with these inputs.

    Example:
        >>> count_samples(nn.Linear(4, 2), torch.zeros(8, 4))
        8
        >>> bags = torch.tensor([1, 2, 4, 5, 3]), torch.tensor([0, 3])  # words, and where each text begins
        >>> count_samples(nn.EmbeddingBag(9, 2), bags) is None
        True
    """
    if _is_flat(inputs):
        return batch_size(inputs)
    # Random draws differ from call to call, and would hide that the rows are samples.
    with untouched(network), torch.no_grad(), MeanDraws():
        logits = check_call(network, changed(inputs, torch.clone), call, output)
        if not logits.dim():  # a loss, of no sample more than of another
            return None
        rows = len(logits)
        few = [rows - 1, 0]
        try:
            alone = call_network(network, take(inputs, few, rows), call, output)
        # Of any type: rows of what does not consist of samples are nothing that the network can be called with.
        except Exception:
            return None
        scale = float(logits.abs().max()) if logits.numel() else 0.0
        is_same = alone.shape == logits[few].shape and torch.allclose(alone, logits[few], 1e-3, 1e-3 * scale)
    # Without any rows to take, both were the same call.
    return rows if is_same and any(part.dim() and len(part) == rows for _, part in leaves(inputs)) else None


def _rows(logits: Tensor) -> int:
    return len(logits) if logits.dim() else 1


def _is_flat(inputs: Inputs) -> bool:
    """Return whether the tensors are arguments themselves, with as many rows each, and nothing else is a container."""
    parts = elements(inputs).values()
    rows = {len(part) for part in parts if isinstance(part, Tensor) and part.dim()}
    return len(rows) <= 1 and all(isinstance(part, (Tensor, str, int, float, type(None))) for part in parts)


def _rnn_flops(inputs: Sequence[int], input_weight: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    # Shapes: inputs (steps, samples, I), input_weight (4 * H, I), weight (4 * H, H), for the four gates.
    steps = prod(inputs[:-1])  # times samples
    return 2 * steps * (prod(input_weight) + prod(weight))


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _vector_flops(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


# torch 2.13's counter counts nothing for these: attention and LSTMs on the CPU, and products with a vector.
_UNKNOWN_TO_TORCH: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mkldnn_rnn_layer: _rnn_flops,
    torch.ops.aten.mv: _vector_flops,
    torch.ops.aten.dot: _vector_flops,
    torch.ops.aten.addmv: lambda bias, matrix, *_, **__: _vector_flops(matrix),
}
