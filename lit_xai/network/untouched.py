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

_CONTAINERS = (dict, list, set)


@contextlib.contextmanager
def untouched(network: nn.Module, seed: int | None = 0) -> Iterator[None]:
    """Run the body in eval mode with gradients, and leave everything as it was found, after an exception too.

    Inside: eval mode, gradients on, inference mode and autocast off, ``torch.compile`` set to eager (compiled modules
    skip hooks), in-place activations ordinary ones and users' backward hooks silent (both get in the way of hooks that
    methods attach), every random generator seeded. Afterwards, bit for bit as before: parameters' ``requires_grad``,
    buffers (BatchNorm statistics, fake-quantisation observers, which move even in eval mode), each module's own mode,
    hooks and attributes, and the state of every random generator. Inputs made in inference mode have to be cloned
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
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_kept(network))
        for kind in {device.type for device in devices} | {"cpu"}:
            stack.enter_context(_without_autocast(kind))
        stack.enter_context(_lenient())
        if "torch._dynamo" in sys.modules:  # nothing can be compiled before, and the import takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if "cuda" in {device.type for device in devices} and any(isinstance(m, nn.RNNBase) for m in network.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # cuDNN has no RNN backward in eval mode
        for module in network.modules():
            _settle(module)
        yield


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """Keep to deterministic algorithms, but only warn where there is none: DeepLift needs one such for max-pooling."""
    enabled, lenient = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=lenient)


def _settle(module: nn.Module) -> None:
    # Not eval(): modules override it, to merge weights or to refuse.
    module.training = False
    if isinstance(module, torch.jit.ScriptModule):
        return
    if vars(module).get("inplace") is True:
        vars(module)["inplace"] = False
    module._backward_hooks.clear()
    module._backward_pre_hooks.clear()
    places: tuple[dict[str, Any], ...] = (vars(module), module._buffers, module._parameters)
    for place in places:
        for key, value in place.items():
            # What was made in inference mode (in a test loop) can neither be written to nor differentiated outside it.
            if isinstance(value, Tensor) and value.is_inference():
                place[key] = nn.Parameter(value.clone()) if isinstance(value, nn.Parameter) else value.clone()


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
    """Put modules' modes, attributes, hooks and buffers and parameters' flags back."""
    modes = [(m, m.training) for m in network.modules()]
    # A module's __dict__ holds the rest of it: hooks, buffers, parameters, submodules, what libraries leave behind.
    attributes = [(m, dict(vars(m)), _copied_containers(vars(m))) for m in network.modules()]
    held = [value for m in network.modules() for value in vars(m).values() if isinstance(value, Tensor)]
    # Inference tensors are exchanged inside; sparse ones (a graph's edges) are not written to, and cannot be compared.
    writable = [t for t in (*network.buffers(), *held) if not t.is_inference() and t.layout is torch.strided]
    tensors = [(t, t.detach().clone()) for t in writable]
    flags = [(p, p.requires_grad) for p in network.parameters()]
    try:
        yield
    finally:
        for module, values, containers in attributes:
            _restore(vars(module), values)
            for key, content in containers.items():
                _restore(values[key], content)
        for module, mode in modes:
            if module.training != mode:  # of a scripted module: it is no attribute
                module.training = mode
        with torch.no_grad():
            for tensor, value in tensors:
                _restore_tensor(tensor, value)
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


def _copied_containers(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: kind(value) for key, value in attributes.items() for kind in _CONTAINERS if isinstance(value, kind)}


def _restore(current: Any, saved: Any) -> None:
    # In place, and only what differs: handles and compiled code refer to these very containers.
    if _contents(current) == _contents(saved):
        return
    current.clear()
    current.extend(saved) if isinstance(current, list) else current.update(saved)


def _contents(container: Any) -> Any:
    if isinstance(container, dict):
        return [(key, id(value)) for key, value in container.items()]
    return container if isinstance(container, set) else [id(value) for value in container]


def _restore_tensor(tensor: Tensor, value: Tensor) -> None:
    if tensor.shape != value.shape:  # observers resize theirs on first use
        tensor.data = value
    elif not torch.equal(tensor, value):
        tensor.copy_(value)
