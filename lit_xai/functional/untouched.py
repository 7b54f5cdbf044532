"""Look at a network without touching it: the guard inside which every explanation runs."""

import contextlib
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def untouched(network: nn.Module, seed: int | None = 0) -> Iterator[None]:
    """Run the body in eval mode with gradients, and leave everything as it was found, after an exception too.

    Inside: eval mode, gradients on, inference mode and autocast off, ``torch.compile`` set to eager (compiled modules
    skip hooks), every random generator seeded. Afterwards, bit for bit as before: parameters' ``requires_grad``,
    buffers (BatchNorm statistics, fake-quantisation observers, which move even in eval mode), each module's own mode,
    hooks and attributes, and the state of every random generator. Tensors made in inference mode have to be cloned
    inside before they meet autograd.

    Parameters' values are not copied: nothing that runs inside may write to them.

    Args:
        network: the module whose subtree is kept.
        seed: what the generators start from inside; ``None`` continues from where they are.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 2), nn.Dropout()).train()
        >>> with untouched(network):
        ...     (network.training, torch.is_grad_enabled())
        (False, True)
        >>> network.training
        True
    """
    devices = {p.device for p in network.parameters()} | {b.device for b in network.buffers()}
    with contextlib.ExitStack() as stack:
        stack.enter_context(fork_rng(seed, devices))
        stack.enter_context(_kept(network))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {device.type for device in devices} | {"cpu"}:
            stack.enter_context(_without_autocast(kind))
        if "torch._dynamo" in sys.modules:  # nothing can be compiled before, and the import takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if "cuda" in {device.type for device in devices} and any(isinstance(m, nn.RNNBase) for m in network.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # cuDNN has no RNN backward in eval mode
        network.eval()
        yield


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a device without autocast has nothing to switch off, and says so
        try:
            return torch.autocast(device_type, enabled=False)
        except RuntimeError:
            return contextlib.nullcontext()


@contextlib.contextmanager
def fork_rng(seed: int | None = 0, devices: set[torch.device] | None = None) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators for the body, and give them back in the state they had.

    Unlike ``torch.manual_seed`` it leaves the generators of other devices alone, CUDA's uninitialised ones included.

    Args:
        seed: where to start; ``None`` continues from the present state.
        devices: whose generators to keep besides the CPU's; default none.

    Example:
        >>> before = torch.get_rng_state()
        >>> with fork_rng(0):
        ...     _ = torch.rand(3), random.random(), np.random.rand()
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    cuda = sorted({d.index or 0 for d in devices or () if d.type == "cuda"})
    mps = any(d.type == "mps" for d in devices or ())
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_cuda = [torch.cuda.get_rng_state(index) for index in cuda]
    on_mps = torch.mps.get_rng_state() if mps else None
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
            if mps:
                torch.mps.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        for index, state in zip(cuda, on_cuda, strict=True):
            torch.cuda.set_rng_state(state, index)
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)


@contextlib.contextmanager
def _kept(network: nn.Module) -> Iterator[None]:
    """Put modules' attributes, hooks and buffers and parameters' flags back."""
    # A module's __dict__ holds all of it: mode, hooks, buffers, parameters, submodules, what libraries leave behind.
    attributes = [(m, dict(vars(m)), _copied_dicts(vars(m))) for m in network.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    flags = [(p, p.requires_grad) for p in network.parameters()]
    try:
        yield
    finally:
        for module, values, dicts in attributes:
            _restore(vars(module), values)
            for key, content in dicts.items():
                _restore(values[key], content)
        with torch.no_grad():
            for buffer, value in buffers:
                _restore_buffer(buffer, value)
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


def _copied_dicts(attributes: dict[str, Any]) -> dict[str, dict[Any, Any]]:
    return {key: dict(value) for key, value in attributes.items() if isinstance(value, dict)}


def _restore(current: dict[Any, Any], saved: dict[Any, Any]) -> None:
    # In place, and only what differs: handles and compiled code refer to these very dicts.
    if current.keys() == saved.keys() and all(current[key] is value for key, value in saved.items()):
        return
    current.clear()
    current.update(saved)


def _restore_buffer(buffer: Tensor, value: Tensor) -> None:
    if buffer.shape != value.shape:  # observers resize theirs on first use
        buffer.data = value
    elif not torch.equal(buffer, value):
        buffer.copy_(value)
