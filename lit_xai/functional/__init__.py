"""Pure functions on modules and tensors, for any training loop."""

from lit_xai.attribution.attribution import attribute
from lit_xai.network.calling import call_network, find_inputs, find_labels, find_logits, find_network
from lit_xai.network.profiling import count_macs, count_parameters
from lit_xai.network.untouched import fork_rng, untouched
from lit_xai.pruning.pruning import prune_step
from lit_xai.pruning.sensitivity import layer_sensitivity
from lit_xai.quantization.quantization import quantize
from lit_xai.quantization.sensitivity import quantization_sensitivity
from lit_xai.runtime.latency import measure_latency

__all__ = [
    "attribute",
    "call_network",
    "count_macs",
    "count_parameters",
    "find_inputs",
    "find_labels",
    "find_logits",
    "find_network",
    "fork_rng",
    "layer_sensitivity",
    "measure_latency",
    "prune_step",
    "quantization_sensitivity",
    "quantize",
    "untouched",
]
