"""Layers of a network by name, by pattern, by class, or as the last ones before its output."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_logits, module_names
from lit_xai.network.import_path import load_object
from lit_xai.network.linearized import is_transposed
from lit_xai.network.opaque import is_opaque
from lit_xai.network.spelling import nearest
from lit_xai.network.trees import leaves
from lit_xai.network.untouched import fork_rng


def match_layers(network: nn.Module, given: str | type | Iterable[str | type], argument: str) -> list[nn.Module]:
    """Return the layers that match names, patterns and classes.

    Args:
        network: the module that has the layers.
        given: dotted names, patterns with ``*``, classes or their import paths (``"torch.nn.Conv2d"``).
        argument: the argument they were given for, named in the error.

    Raises:
        ValueError: one of them matches nothing; suggests the nearest names.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> match_layers(network, ["[02]"], "ignored_layers") == match_layers(network, [nn.Linear], "ignored_layers")
        True
    """
    names = module_names(network)
    layers: list[nn.Module] = []
    for entry in one_or_more(given):
        matches = _matches(names, entry, argument)
        if not matches:
            shown = entry if isinstance(entry, str) else entry.__name__
            raise ValueError(f"{argument}: {shown!r} matches no layer of the network.{nearest(str(shown), names)}")
        layers += matches
    return layers


def one_or_more(given: str | type | Iterable[str | type] | None) -> list[str | type]:
    """Return names, patterns and classes as a list, also where one was given without a list around it.

    Example:
        >>> one_or_more("head*"), one_or_more(None)
        (['head*'], [])
    """
    return [given] if isinstance(given, (str, type)) else list(given or ())


def _matches(names: Mapping[str, nn.Module], entry: str | type, argument: str) -> list[nn.Module]:
    if isinstance(entry, str):
        by_name = [module for name, module in names.items() if fnmatchcase(name, entry)]
        if by_name or not entry.rpartition(".")[2][:1].isupper():  # classes have capital initials, layers' names do not
            return by_name
        entry = load_object(entry, argument)
    if not isinstance(entry, type):
        raise ValueError(f"{argument} expected layers' names, patterns or classes, but got {entry!r}.")
    return [module for module in names.values() if isinstance(module, entry)]


def computes_weights(module: nn.Module) -> bool:
    """Return whether a module, or a part of it, computes its weights from other tensors.

    Parametrizations do, and so do the older ``weight_norm`` and ``spectral_norm`` and ``torch.nn.utils.prune``, by a
    hook before each forward pass.

    Example:
        >>> computes_weights(nn.Linear(2, 2)), computes_weights(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
        (False, True)
    """
    return any(
        is_parametrized(part)
        or any(type(hook).__module__.startswith("torch.nn.utils.") for hook in part._forward_pre_hooks.values())
        for part in module.modules()
    )


def output_layers(
    network: nn.Module, example_inputs: Inputs, call: str = "forward", output: OutputSpec = None
) -> list[nn.Module]:
    """Return the layers that compute the network's output with no other layer in between.

    They are found by walking the output's autograd graph back to the first weights.

    Args:
        network: a copy in eval mode whose parameters require gradients, or one on which BatchNorm may move.
        example_inputs: its inputs.
        call: the method that is called.
        output: where the logits are in its output.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))
        >>> output_layers(network, torch.zeros(1, 4))
        [Linear(in_features=8, out_features=3, bias=True)]
    """
    with traceable():
        return layers_behind(network, call_for_all(network, example_inputs, call, output))


def layers_behind(network: nn.Module, outputs: Iterable[Tensor]) -> list[nn.Module]:
    """Return the layers that compute the outputs with no other layer in between.

    Args:
        network: the module that has the layers.
        outputs: its outputs, with their autograd graph. Layers in :func:`~lit_xai.network.opaque.opaque` end the
            search and are not returned.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))
        >>> layers_behind(network, [network(torch.zeros(1, 4))])
        [Linear(in_features=8, out_features=3, bias=True)]
    """
    # Weights have two dimensions at least; one-dimensional parameters are biases and normalizations, to be passed over.
    owners = {id(p): m for m in network.modules() for p in m.parameters(recurse=False) if p.dim() > 1}
    layers: dict[int, nn.Module] = {}
    ahead, seen = [value.grad_fn for value in outputs], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen or is_opaque(node):
            continue
        seen.add(node)
        reached = [owners[weight] for weight in _weights_of(node) if weight in owners]
        layers |= {id(layer): layer for layer in reached}
        if not reached:
            ahead += [following for following, _ in node.next_functions]
    return list(layers.values())


def call_for_all(network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None) -> list[Tensor]:
    """Call a network and return every differentiable tensor in its output: logits, a second head, hidden states.

    Args:
        network: the module, called with gradients on.
        inputs: its inputs.
        call: the method that is called.
        output: where the logits are, for outputs of a class that PyTorch's trees do not know.

    Example:
        >>> [value.shape for value in call_for_all(nn.LSTM(2, 3), torch.zeros(1, 2))]
        [torch.Size([1, 3]), torch.Size([1, 3]), torch.Size([1, 3])]
    """
    outputs: list[Tensor] = []

    def keep(result: Any) -> Tensor:
        outputs.extend(value for _, value in leaves(result) if value.grad_fn is not None)
        return outputs[0] if outputs else find_logits(result, output)

    logits = call_network(network, inputs, call, keep)
    return outputs or [logits]


def _weights_of(node: Any) -> list[int]:
    """Return the ids of the parameters that an autograd node takes directly, or transposed (as ``Linear`` does)."""
    weights = []
    for following, _ in node.next_functions:
        # An AccumulateGrad node: a leaf of the graph, which holds its parameter.
        if hasattr(following, "variable"):
            weights.append(id(following.variable))
        elif following is not None and type(following).__name__ == "TBackward0":
            weights += [id(f.variable) for f, _ in following.next_functions if hasattr(f, "variable")]
    return weights


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Run the body so that the autograd graph of a throwaway copy can be read, and leave the process as it was.

    Gradients on; inference mode, autocast and ``torch.compile`` off; random generators restored. Cheaper than
    :func:`~lit_xai.network.untouched.untouched`, which restores the network too.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(fork_rng(0))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # Autocast would put casts between weights and the operators that use them.
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _width(module: nn.Module) -> int | None:
    if is_transposed(module):
        return int(vars(module)["nf"])
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    found = (getattr(module, key, None) for key in ("out_channels", "out_features"))
    # An encoder may have the widths of all its stages under this name: a list, and of no layer.
    return next((int(width) for width in found if isinstance(width, Integral)), None)


def channels(network: nn.Module) -> dict[str, int]:
    """Return the number of output channels of each layer that has any, the columns of a table of embeddings included.

    Example:
        >>> channels(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        {'0': 8, '2': 3}
    """
    sizes = {name: _width(module) for name, module in module_names(network).items()}
    return {name: size for name, size in sizes.items() if size is not None}


def require_gradients_(network: nn.Module) -> None:
    """Let every parameter of a copy have a gradient, frozen ones too; integers, which a parameter may hold, cannot.

    Example:
        >>> network = nn.Linear(2, 2).requires_grad_(False)
        >>> network.counter = nn.Parameter(torch.tensor(3), requires_grad=False)
        >>> require_gradients_(network)
        >>> [parameter.requires_grad for parameter in network.parameters()]
        [True, True, False]
    """
    for parameter in network.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
