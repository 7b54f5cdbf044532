"""Each composed function is torch's."""

import pytest
import torch
import torch.nn.functional as F

from lit_xai.attribution.composed import COMPOSED

X = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
Q, K, V = (torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(3))
W, B = torch.linspace(-1, 2, 4, dtype=torch.float64), torch.linspace(1, 0, 4, dtype=torch.float64)
MASK = torch.ones(5, 5, dtype=torch.bool).tril(1)

CASES = {
    "softmax": (F.softmax, (X, 1), {}),
    "softmax, to another type": (F.softmax, (X,), {"dim": -1, "dtype": torch.float32}),
    "log_softmax": (F.log_softmax, (X * 100,), {"dim": 2}),
    "logsumexp": (torch.logsumexp, (X, (1, 2)), {}),
    "logsumexp, kept": (torch.logsumexp, (X * 300, 1, True), {}),
    "div": (torch.div, (X, X + 20), {}),
    "div, by a number": (torch.div, (X, 3), {}),
    "div, floored": (torch.div, (X, 3.0), {"rounding_mode": "floor"}),
    "norm": (torch.norm, (X,), {}),
    "norm, p": (torch.norm, (X, 1), {"dim": 1, "keepdim": True}),
    "norm, maximum": (torch.norm, (X, float("inf")), {"dim": 1}),
    "linalg_vector_norm": (torch.linalg.vector_norm, (X,), {"ord": 3, "dim": (1, 2)}),
    "layer_norm": (F.layer_norm, (X, (6, 6), X[0, 0], X[0, 1], 1e-3), {}),
    "rms_norm": (F.rms_norm, (X, (6,), X[0, 0, 0]), {}),
    "group_norm": (F.group_norm, (X, 2, W, B), {"eps": 1e-3}),
    "instance_norm": (F.instance_norm, (X,), {"weight": W, "bias": B}),
    "instance_norm, of a run": (F.instance_norm, (X, W, B + 1, W, B, False), {}),
    "glu": (F.glu, (X, 1), {}),
    "scaled_dot_product_attention": (F.scaled_dot_product_attention, (Q, K, V), {"scale": 0.3}),
    "scaled_dot_product_attention, causal": (F.scaled_dot_product_attention, (Q, K, V), {"is_causal": True}),
    "scaled_dot_product_attention, masked": (F.scaled_dot_product_attention, (Q, K, V, MASK), {}),
    "scaled_dot_product_attention, biased": (F.scaled_dot_product_attention, (Q, K, V, MASK.double()), {}),
    "scaled_dot_product_attention, grouped": (
        *(F.scaled_dot_product_attention, (Q, K[:, :2], V[:, :2])),
        {"enable_gqa": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case):
    function, args, kwargs = CASES[case]
    found = COMPOSED[case.split(",")[0]](*args, **kwargs)
    expected = function(*args, **kwargs)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)


def test_every_function_is_compared():
    assert {case.split(",")[0] for case in CASES} >= set(COMPOSED) - {"divide", "true_divide"}
