"""Pure functions on modules and tensors, for any training loop."""

from lit_xai.functional.attribution import attribute
from lit_xai.functional.calling import call_network, find_inputs, find_labels, find_logits, find_network
from lit_xai.functional.latency import measure_latency
from lit_xai.functional.profiling import count_macs, count_parameters
from lit_xai.functional.pruning import prune_step
from lit_xai.functional.quantization import quantize
from lit_xai.functional.quantization_sensitivity import quantization_sensitivity
from lit_xai.functional.sensitivity import layer_sensitivity
from lit_xai.functional.untouched import fork_rng, untouched

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
