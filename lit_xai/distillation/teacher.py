"""The network that teaches: where it comes from, and what it says of what a student was called with."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lit_xai.attribution.differentiable import top_class
from lit_xai.distillation.output_cache import OutputCache, module_hash, sample_keys
from lit_xai.network.calling import OutputSpec, find_logits, module_names
from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object
from lit_xai.network.recording import Call, recorded, requires_grad
from lit_xai.network.spelling import nearest
from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.folding import folded_copy
from lit_xai.structure.recipe import dense_copy, load_from_checkpoint, restore_structure_


@dataclass
class Said:
    """What a teacher says of one call.

    Args:
        logits: its own.
        layers: outputs of the layers asked for.
        attribution: of its top class, if asked for.
        top: its top class.
    """

    logits: Tensor
    layers: dict[str, Any] = field(default_factory=dict)
    attribution: Any = None
    top: Tensor | None = None


class Teacher:
    """A network in eval mode that learns nothing.

    Args:
        root: a LightningModule, or the network itself. It is kept and changed: give a copy.
        output: where the logits are in its output.
        layers: names of layers that are looked at, seen from the root or from the network inside it.
        optimize: fold BatchNorm and turn to channels last, as soon as an input is seen.
        compiled: whether to compile it.

    Attributes:
        hash: of its weights.
        cache: of its outputs; ``None`` for none.

    Raises:
        ValueError: a layer's name is not there.
    """

    def __init__(
        self,
        root: nn.Module,
        output: OutputSpec = None,
        layers: Iterable[str] = (),
        optimize: bool = True,
        compiled: bool = False,
    ) -> None:
        self.network, self.output, self.layers = root, output, tuple(layers)
        self.hash = module_hash(root)
        self.cache: OutputCache | None = None
        self._optimize, self._compiled = optimize, compiled
        self._is_last = self._is_found = self._is_called = False
        for module in root.modules():
            module.training = False
        for parameter in root.parameters():
            parameter.requires_grad_(False)
        for layer in self.layers:
            locate(root, layer, "teacher")  # a misspelt one is said now

    def find_(self, name: str) -> None:
        """Take the network that has the name of the student's, if there is one; once."""
        if not self._is_found and name in module_names(self.network):
            self.network = module_names(self.network)[name]
        self._is_found = True

    def to_(self, like: LightningModule) -> None:
        """Move to a module's device, and to its precision where that is one for all weights."""
        self.network.to(like.device)
        floating = {p.dtype for p in like.parameters() if p.is_floating_point()}
        if len(floating) == 1 and floating != {torch.float32}:
            self.network.to(floating.pop())

    def logits(self, call: Call) -> Tensor:
        """Return its logits for what a student was called with; from the cache where every sample is known."""
        keys = None
        if self.cache is not None:
            keys = sample_keys((*call.args, *call.kwargs.values()))
            known = self.cache.lookup(keys)
            if known is not None:
                return known
        found = self._run(call, ()).logits
        if self.cache is not None and keys is not None and len(found) == len(keys):
            self.cache.add(keys, found)
        return found

    def say(self, call: Call, layers: Iterable[str] = ()) -> Said:
        """Return its logits and the outputs of layers for what a student was called with."""
        layers = tuple(layers)
        return self._run(call, layers) if layers else Said(self.logits(call))

    def explain(self, call: Call, explanation: Any, layers: Iterable[str] = ()) -> Said:
        """Return its logits, the outputs of layers, and the attribution of its top class."""
        self._prepare(call)
        wanted = tuple(dict.fromkeys([*layers, *explanation.teacher_layers]))
        by_input = explanation.needs_input_gradient
        with torch.enable_grad():
            args, kwargs = self._converted(call, by_input)
            outputs = None if by_input else _with_gradient
            with recorded({"": self.network}, _layers(self.network, wanted), outputs=outputs) as calls:
                self._call(args, kwargs)
            logits = self._logits(calls[0].result)
            top = top_class(logits)
            found = explanation.attribute(logits, calls[0], explanation.teacher_layers, top, create_graph=False)
        layers_said = {name: _cut(value) for name, value in calls[0].layers.items()}
        return Said(logits.detach(), layers_said, found, top)

    def _run(self, call: Call, layers: Iterable[str]) -> Said:
        self._prepare(call)
        with torch.inference_mode():
            args, kwargs = self._converted(call, gradient=False)
            with recorded({"": self.network}, _layers(self.network, layers)) as calls:
                self._call(args, kwargs)
            logits = self._logits(calls[0].result)
        # Made in inference mode, they may not meet a loss: copies of them may.
        return Said(logits.clone(), {name: _cut(value) for name, value in calls[0].layers.items()})

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.network(*args, **kwargs)
        except Exception as error:
            given = ", ".join(describe(value) for value in (*args, *kwargs.values()))
            raise ValueError(
                f"The teacher {type(self.network).__name__} failed on what the student is called with, {given}"
                f" ({_first_line(error)}): give a teacher of the same inputs, or name with module= the part of the"
                " student that corresponds to it."
            ) from error

    def _logits(self, result: Any) -> Tensor:
        try:
            return find_logits(result, self.output)
        except ValueError as error:
            said = str(error).replace("output=", "teacher_output=")
            raise ValueError(f"The teacher {type(self.network).__name__}: {said}") from None

    def _converted(self, call: Call, gradient: bool) -> tuple[Any, Any]:
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), None)

        def converted(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            value = value.detach().to(dtype or value.dtype)
            if self._is_last and value.dim() == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            return requires_grad(value.clone() if value.is_inference() else value) if gradient else value

        return tree_map(converted, call.args), tree_map(converted, call.kwargs)

    def _prepare(self, call: Call) -> None:
        """Make the forward cheap, once there is an input to trace it with."""
        if not self._is_called:
            self._refuse_other_arguments(call)
            self._is_called = True
        optimize, self._optimize, compiled, self._compiled = self._optimize, False, self._compiled, False
        if optimize:
            self._optimize_for_(call)
        if compiled:
            self.network.compile()

    def _refuse_other_arguments(self, call: Call) -> None:
        try:
            inspect.signature(self.network.forward).bind(*call.args, **call.kwargs)
        except TypeError as error:
            given = ", ".join([*("..." for _ in call.args), *(f"{key}=" for key in call.kwargs)])
            raise ValueError(
                f"The teacher {type(self.network).__name__} cannot be called like the student, with ({given}): {error}."
            ) from None

    def _optimize_for_(self, call: Call) -> None:
        mixed = call.args and call.kwargs
        inputs: Any = call.kwargs or (call.args[0] if len(call.args) == 1 else call.args)
        if not mixed and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules()):
            few = _converted_inputs(inputs, self.network)
            with _without_autocast(self.network):
                keep = [locate(self.network, layer, "teacher") for layer in self.layers]
                self.network = folded_copy(self.network, few, keep=keep, output=self.output, tolerance=_tolerance(few))
        if any(isinstance(m, nn.Conv2d) for m in self.network.modules()):
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
            self._is_last = True


def locate(root: nn.Module, layer: str, whose: str) -> str:
    """Return a layer's name in ``root``, given as seen from there, from a network inside it, or from what holds it.

    Raises:
        ValueError: there is no such layer; the nearest names are given.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> locate(network, "network.1", "teacher"), locate(nn.ModuleDict({"network": network}), "1", "student")
        ('1', 'network.1')
    """
    named = module_names(root)
    inside = [f"{child}.{layer}" for child, _ in root.named_children()]
    for name in (layer, *inside, layer.partition(".")[2]):
        if name in named:
            return name
    names = [*named, *(name.partition(".")[2] for name in named if "." in name)]
    raise ValueError(
        f"features=, explanation=: {layer!r} names no layer of the {whose} {type(root).__name__}."
        f"{nearest(layer, names)}"
    )


def _layers(network: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    named = module_names(network)
    return {layer: named[locate(network, layer, "teacher")] for layer in layers}


def read_teacher(path: str | Path, teacher_class: type | str | None, pl_module: LightningModule) -> nn.Module:
    """Return the module of a checkpoint, in the structure it was saved in.

    Args:
        path: of a Lightning checkpoint, of a pruned model too.
        teacher_class: its class, or that one's import path; ``None`` for the student's own.
        pl_module: the student: where the checkpoint does not say how its class is built, the teacher is built like it.

    Raises:
        ValueError: there is no such file, it is no checkpoint, or it does not fit the class.
    """
    checkpoint = _read(path)
    cls = load_object(teacher_class, "teacher_class") if isinstance(teacher_class, str) else teacher_class
    if cls is not None and not hasattr(cls, "load_from_checkpoint"):
        raise ValueError(f"teacher_class expected a LightningModule's class, but got {cls!r}.")
    own = cls is None or cls is type(pl_module)
    why = ""
    with fork_rng(0, set()):  # building draws weights that the checkpoint's replace
        if not own or "hyper_parameters" in checkpoint:
            try:
                return load_from_checkpoint(cls or type(pl_module), path, map_location="cpu")
            except Exception as error:  # hyperparameters that were not saved, a class that is another
                why = _first_line(error)
        if own:
            copied = dense_copy(pl_module)
            try:
                restore_structure_(copied, checkpoint)
                copied.load_state_dict(checkpoint["state_dict"])
                return copied
            except (RuntimeError, ValueError) as error:
                why = why or _first_line(error)
    unsaved = "" if "hyper_parameters" in checkpoint else " It holds no arguments of its class (save_hyperparameters)."
    raise ValueError(
        f"teacher='{path}' cannot be loaded as {(cls or type(pl_module)).__name__} ({why}).{unsaved} Name another class"
        " with teacher_class=, or give the module itself."
    )


def _read(path: str | Path) -> Mapping[str, Any]:
    if not Path(path).is_file():
        what = f"'{path}' is a folder" if Path(path).is_dir() else f"there is no '{path}'"
        known = ["dense", "ema", *(file.name for file in Path(path).parent.glob("*.ckpt"))]
        raise ValueError(
            f"teacher expected 'dense', 'ema', a module or a checkpoint, but {what}."
            f"{nearest(Path(path).name.lower(), known)}"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # bytes that are no pickle end in any error there is
        raise ValueError(
            f"teacher='{path}' is damaged, or holds more than tensors and plain values: load it yourself, if you trust"
            " it, and give the module."
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(
            f"teacher='{path}' is no checkpoint of a Lightning Trainer: it has no 'state_dict'. Load its weights into a"
            " module, and give that."
        )
    return checkpoint


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:200].rstrip('.')}"


def _with_gradient(value: Tensor) -> Tensor:
    # No leaf, which the ReLU behind it could not change in place; and a later layer stays connected to an earlier one.
    return value if value.requires_grad else value.detach().requires_grad_().clone()


def _cut(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _converted_inputs(inputs: Any, network: nn.Module) -> Any:
    """Return at most two samples of each tensor, in the network's precision: enough to trace with."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)

    def few(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        with torch.inference_mode(False):
            value = value.detach().clone()
        value = value[:2] if value.dim() else value
        return value.to(dtype) if value.is_floating_point() else value

    if isinstance(inputs, dict):
        return {key: few(value) for key, value in inputs.items()}
    return tuple(map(few, inputs)) if isinstance(inputs, tuple) else few(inputs)


def _tolerance(inputs: Any) -> float:
    values = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    dtypes = {value.dtype for value in values if isinstance(value, Tensor)}
    return 0.02 if dtypes & {torch.float16, torch.bfloat16} else 1e-4


@contextlib.contextmanager
def _without_autocast(network: nn.Module) -> Iterator[None]:
    device = next((p.device.type for p in network.parameters()), "cpu")
    with torch.autocast(device, enabled=False):
        yield
