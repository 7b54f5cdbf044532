"""The theoretical cost of a network: parameters, multiply-accumulates, bytes."""

import io
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lit_xai.network.calling import Inputs, OutputSpec, check_call
from lit_xai.network.trees import leaves, take
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
        inputs: what it is called with; tensors with as many rows as the first one hold one row per sample.
        call: the network's method that is called.
        output: where the logits are in its output.

    Example:
        >>> count_macs(nn.Conv2d(3, 16, 3, padding=1), torch.zeros(2, 3, 32, 32))  # 32 * 32 positions, 3 * 3 * 3 * 16
        442368
    """
    rows = batch_size(inputs)
    # Two samples are enough, and with one, networks fail that squeeze their outputs.
    inputs, rows = with_batch_size(inputs, min(rows, 2)), min(rows, 2)
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
                check_call(network, inputs, call, output)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
    # torch counts a multiply-accumulate as two operations.
    return int(counter.get_total_flops()) // (2 * rows)


def batch_size(inputs: Inputs) -> int:
    """Return the number of samples in inputs: the rows of the first tensor that has rows.

    Example:
        >>> batch_size({"image": torch.zeros(8, 3), "scale": torch.ones(())})
        8
    """
    return next((len(value) for _, value in leaves(inputs) if value.dim()), 1)


def with_batch_size(inputs: Inputs, n: int) -> Any:
    """Cut or repeat inputs to ``n`` samples, as a copy.

    Example:
        >>> with_batch_size(torch.arange(3), 5)
        tensor([0, 1, 2, 0, 1])
    """
    rows = batch_size(inputs)
    return take(inputs, [i % rows for i in range(n)], rows)


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
