import torch
from torch import nn

from lit_xai.runtime.flat import FlatNetwork


def test_texts_are_of_any_length_where_others_differ():
    from lit_xai.models import TextTransformer

    network = TextTransformer(vocab_size=20, dim=8, depth=1, heads=2).eval()
    batches = [
        {"input_ids": torch.ones(n, length, dtype=torch.int64), "attention_mask": torch.ones(n, length).long()}
        for n, length in ((4, 4), (4, 7), (3, 1))
    ]
    flat = FlatNetwork(network, batches[0], others=batches[1:])
    # Neither a length of 1, which torch.export takes for a constant, nor as many samples as tokens.
    n, length = flat.tensors["input_ids"].shape
    assert n != length
    assert min(n, length) > 1
    assert [list(dims) for dims in flat.dynamic_shapes[0]] == [[0, 1], [0, 1]]


def test_other_numbers_of_samples_are_no_other_sizes():
    flat = FlatNetwork(nn.Linear(4, 2), torch.zeros(3, 4), others=[torch.zeros(5, 4)])
    assert [list(dims) for dims in flat.dynamic_shapes[0]] == [[0]]
