"""Networks with smooth activations and gates: no more is lost than may be, in 8 bits and in fewer."""

import gated_networks
import pytest
from planted_layers import accuracy, digits, trained

from lit_xai.quantization.float_layers import quantize_within
from lit_xai.quantization.quantization import describe_quantization, quantize

POINT = 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [{}, {"activations": "symmetric"}, {"cpu": "vnni"}, {"bits": 4}, {"bits": 3, "activations": "symmetric"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["mobile", "efficient", "relu6"])
def test_never_more_than_a_point_is_lost(name, scheme):
    network = trained(getattr(gated_networks, name), 12)
    train = digits()[0]
    quantized = quantize(network, train, progress=False, **scheme)
    result, found = quantize_within(
        network, train, POINT, metric=accuracy, higher_is_better=True, progress=False, **scheme
    )
    layers = describe_quantization(quantized)["integer"]
    assert found.is_reached
    assert accuracy(network) - accuracy(result) <= POINT
    assert accuracy(network) > 0.85
    assert len(found.layers) < len(layers) / 2
    if accuracy(network) - accuracy(quantized) <= POINT:
        assert found.layers == ()
    # The line that is pasted gives the very same.
    again = quantize(network, train, ignored_layers=found.layers, progress=False, **scheme)
    assert accuracy(again) == accuracy(result)
