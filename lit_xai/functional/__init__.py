"""Pure functions on modules and tensors, for any training loop."""

from lit_xai.attribution.attribution import attribute
from lit_xai.network.calling import call_network, find_inputs, find_labels, find_logits, find_network
from lit_xai.network.profiling import count_macs, count_parameters
from lit_xai.network.untouched import fork_rng, untouched
from lit_xai.pruning.pruning import prune_step
from lit_xai.pruning.sensitivity import layer_sensitivity
from lit_xai.quantization.float_layers import quantize_within
from lit_xai.quantization.quantization import quantize
from lit_xai.quantization.sensitivity import quantization_sensitivity
from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.writing import write as write_report
from lit_xai.retention.faithfulness import faithfulness
from lit_xai.retention.predictions import compare_predictions
from lit_xai.retention.retention import measure_retention
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.runtime.latency import measure_latency

__all__ = [
    "CompareOptions",
    "FileNetwork",
    "attribute",
    "call_network",
    "compare_networks",
    "compare_predictions",
    "count_macs",
    "count_parameters",
    "faithfulness",
    "find_inputs",
    "find_labels",
    "find_logits",
    "find_network",
    "fork_rng",
    "layer_sensitivity",
    "measure_latency",
    "measure_retention",
    "prune_step",
    "quantization_sensitivity",
    "quantize",
    "quantize_within",
    "untouched",
    "write_report",
]
