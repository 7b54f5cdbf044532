"""Pure functions on modules and tensors, for any training loop."""

from lit_xai.functional.attribution import attribute
from lit_xai.functional.calling import call_network, find_inputs, find_labels, find_logits, find_network
from lit_xai.functional.untouched import fork_rng, untouched

__all__ = [
    "attribute",
    "call_network",
    "find_inputs",
    "find_labels",
    "find_logits",
    "find_network",
    "fork_rng",
    "untouched",
]
