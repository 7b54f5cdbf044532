"""The guard inside which every explanation runs: it leaves the network exactly as it was.

A network is more than its weights. BatchNorm statistics and the observers of fake-quantize modules move in a forward
pass (observers in eval mode too), Captum attaches hooks and attributes, LRP replaces weights, and every random number
drawn changes the rest of the training. Each is copied before and put back afterwards, and only what differs is written.
"""

import contextlib
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_xai.network.state import kept_state

_CONTAINERS = (dict, list, set)


@contextlib.contextmanager
def untouched(network: nn.Module, seed: int | None = 0) -> Iterator[None]:
    """Run the body in eval mode with gradients, and restore everything afterwards, also after an exception.

    Inside: eval mode, gradients on, inference mode and autocast off, ``torch.compile`` set to eager (compiled modules
    skip hooks), in-place activations made out-of-place and users' backward hooks removed (both interfere with hooks
    that methods attach), every random generator seeded. Afterwards, bit for bit as before: parameters'
    ``requires_grad``, buffers (BatchNorm statistics, fake-quantize observers, which move even in eval mode), each
    module's own mode, hooks and attributes with the objects they hold, and the state of every random generator. Inputs
    made in inference mode have to be cloned inside before autograd can use them.

    Parameters' values are not copied: nothing that runs inside may write to them.

    Args:
        network: the module to restore, with all its submodules.
        seed: of the generators inside; ``None`` continues from their present state.

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
        # trainer.validate and test run in inference mode, in which enable_grad has no effect.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_restored(network))
        # Autocast casts what hooks exchange: Captum's DeepLift fails under bfloat16.
        device_types = {device.type for device in devices} | {"cpu"}
        for device_type in device_types:
            stack.enter_context(_without_autocast(device_type))
        stack.enter_context(_deterministic_with_warnings())
        if "torch._dynamo" in sys.modules:  # not imported, nothing is compiled, and the import takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if "cuda" in device_types and any(isinstance(m, nn.RNNBase) for m in network.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # cuDNN has no RNN backward in eval mode
        for module in network.modules():
            _prepare(module)
        yield


@contextlib.contextmanager
def _deterministic_with_warnings() -> Iterator[None]:
    """Only warn where a deterministic algorithm is required and missing: DeepLift's max-unpooling has none."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def _prepare(module: nn.Module) -> None:
    # Not eval(): modules override it to merge weights (LoRA), or raise in it (exported programs).
    module.training = False
    if isinstance(module, torch.jit.ScriptModule):
        return
    if vars(module).get("inplace") is True:
        vars(module)["inplace"] = False
    # _restored_attributes puts the hooks back.
    module._backward_hooks.clear()
    module._backward_pre_hooks.clear()
    places: tuple[dict[str, Any], ...] = (vars(module), module._buffers, module._parameters)
    for place in places:
        for key, value in place.items():
            # A tensor made in inference mode (in a test loop) can neither be written to nor differentiated outside it.
            if isinstance(value, Tensor) and value.is_inference():
                place[key] = nn.Parameter(value.clone()) if isinstance(value, nn.Parameter) else value.clone()


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns on a device without autocast, where there is none to disable
        try:
            return torch.autocast(device_type, enabled=False)
        except RuntimeError:
            return contextlib.nullcontext()


@contextlib.contextmanager
def fork_rng(seed: int | None = 0, devices: set[torch.device] | None = None) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators for the body, and restore their states afterwards.

    Unlike ``torch.manual_seed`` it leaves the generators of other devices alone, CUDA's uninitialized ones included.

    Args:
        seed: of all generators; ``None`` continues from the present state.
        devices: whose generators to seed and restore besides the CPU's; default none.

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
            _seed_generators(seed, cuda, mps)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        for index, state in zip(cuda, on_cuda, strict=True):
            torch.cuda.set_rng_state(state, index)
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)


def _seed_generators(seed: int, cuda: Sequence[int], mps: bool) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy takes 32 bits
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device, and queue a CUDA call
    for index in cuda:
        torch.cuda.default_generators[index].manual_seed(seed)
    if mps:
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    """Restore the modules' state that :func:`untouched` promises; of parameters the flags but not the values."""
    with contextlib.ExitStack() as stack:
        # The exit runs in reverse: first the containers, so that replaced tensors are back when values are compared.
        stack.enter_context(_restored_flags(network))
        stack.enter_context(_restored_values(network))
        stack.enter_context(_restored_attributes(network))
        stack.enter_context(kept_state(network))
        yield


@contextlib.contextmanager
def _restored_flags(network: nn.Module) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


@contextlib.contextmanager
def _restored_values(network: nn.Module) -> Iterator[None]:
    """Restore the values of buffers, and of tensors that modules hold as plain attributes."""
    held = [value for m in network.modules() for value in vars(m).values() if isinstance(value, Tensor)]
    # Inference tensors are exchanged inside; sparse ones (a graph's edges) are not written to, and cannot be compared.
    writable = [t for t in (*network.buffers(), *held) if not t.is_inference() and t.layout is torch.strided]
    values = [(tensor, tensor.detach().clone()) for tensor in writable]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in values:
                _restore_tensor(tensor, value)


@contextlib.contextmanager
def _restored_attributes(network: nn.Module) -> Iterator[None]:
    """Restore modules' modes and ``__dict__``: hooks, buffers, parameters, submodules, and libraries' own."""
    modes = [(module, module.training) for module in network.modules()]
    attributes = [(module, dict(vars(module)), _copied_containers(vars(module))) for module in network.modules()]
    try:
        yield
    finally:
        for module, values, containers in attributes:
            _restore(vars(module), values)
            for key, content in containers.items():
                _restore(values[key], content)
        for module, mode in modes:
            if module.training != mode:  # of a scripted module: there it is not in __dict__
                module.training = mode


def _copied_containers(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: kind(value) for key, value in attributes.items() for kind in _CONTAINERS if isinstance(value, kind)}


def _restore(current: Any, saved: Any) -> None:
    # In place, and only if they differ: hook handles and compiled code refer to these very containers.
    if _contents(current) == _contents(saved):
        return
    current.clear()
    current.extend(saved) if isinstance(current, list) else current.update(saved)


def _contents(container: Any) -> Any:
    if isinstance(container, dict):
        return [(key, id(value)) for key, value in container.items()]
    return container if isinstance(container, set) else [id(value) for value in container]


def _restore_tensor(tensor: Tensor, value: Tensor) -> None:
    if tensor.shape != value.shape:  # observers resize their buffers on first use
        tensor.data = value
    elif not torch.equal(tensor, value):
        tensor.copy_(value)
