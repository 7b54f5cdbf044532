"""What a module holds beside its weights: counters, buffers of experience, an environment, random generators."""

import contextlib
import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from lit_xai.network.keras import is_keras_layer
from lit_xai.network.trees import is_outside, objects

OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

_FIXED = (str, bytes, int, float, complex, type(None), np.generic)


@contextlib.contextmanager
def kept_state(network: nn.Module) -> Iterator[None]:
    """Put back what a network holds beside its weights after the body, which works with copies.

    Counters and other plain attributes, containers, and objects of the user's: an agent with its environment, a replay
    buffer, a generator. What several modules or objects refer to is one object in the copies too. Tensors, modules and
    datasets are shared, and so is what cannot be copied.

    Args:
        network: with all its submodules.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> network.steps, network.generator = 0, np.random.default_rng(0)
        >>> with kept_state(network):
        ...     network.steps += 1
        ...     first = network.generator.random()
        >>> network.steps, first == network.generator.random()
        (0, True)
    """
    # Keras knows what its layers hold by where it is: copied apart, their graph falls to pieces.
    own = [module for module in network.modules() if not is_keras_layer(module)]
    held = [(vars(module), dict(vars(module))) for module in own]
    memo: dict[int, Any] = {}
    for attributes, values in held:
        attributes.update({name: _copied(one, memo) for name, one in values.items() if name not in OF_TORCH})
    try:
        yield
    finally:
        for attributes, values in held:
            for name in [name for name in attributes if name not in values]:
                del attributes[name]
            attributes.update(values)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, _FIXED) or _is_shared(value):
        return value
    if id(value) not in memo:
        known = memo | {id(part): part for part in objects(value) if _is_shared(part)}
        try:
            copy.deepcopy(value, known)
        except Exception:  # a lock, an open file, a window
            return value
        memo.update(known)
        # What copying made on its way is kept alive under the id of its memo, which no later object may get.
        memo[id(known)] = known
    return memo.get(id(value), value)


def _is_shared(value: Any) -> bool:
    # What is on a disk may not fit into memory.
    return isinstance(value, (Tensor, np.memmap)) or is_outside(value) or is_command_lines(value)


def is_command_lines(value: Any) -> bool:
    """Return whether a value is what LightningCLI makes of a class, such as an optimizer's.

    It refers to the parser, and that to all that was made of the configuration: callbacks, teachers, data.

    Example:
        >>> is_command_lines(partial(int, base=2))
        False
    """
    return isinstance(value, partial) and any(type(one).__module__.startswith("jsonargparse") for one in value.args)
