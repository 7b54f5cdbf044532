import torch

from lit_xai.network.describing import describe

X, Y = torch.zeros(4, 5), torch.arange(4)


def test_describe():
    batch = {"a": X, "b": [Y, "c"], "d": ["e", "f"], "g": (), "h": None}
    assert describe(batch) == (
        "dict(a: Tensor[4, 5] float32, b: list(Tensor[4] int64, str), d: list(2 of str), g: tuple, h: NoneType)"
    )
