"""The teacher: a network in eval mode that is called with the inputs of a student."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.differentiable import top_class
from lit_xai.distillation.losses import check_logits
from lit_xai.distillation.output_cache import OutputCache, module_hash, sample_keys
from lit_xai.network.calling import OutputSpec, find_logits, module_names
from lit_xai.network.describing import describe
from lit_xai.network.modes import training_code
from lit_xai.network.recording import Call, recorded, requires_grad
from lit_xai.network.spec import Network
from lit_xai.network.spelling import nearest
from lit_xai.network.step_view import step_view
from lit_xai.network.trees import changed
from lit_xai.network.untouched import fork_rng
from lit_xai.quantization.folding import folded_copy
from lit_xai.trainer.access import rank_zero_info

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


@dataclass
class TeacherOutput:
    """The outputs of a teacher for one call.

    Args:
        logits: of the network, detached.
        layers: outputs of the requested layers by name, detached.
        attribution: of its top class, if requested.
        top_class: of each sample, ``(N,)``, if the attribution was requested.
    """

    logits: Tensor
    layers: dict[str, Any] = field(default_factory=dict)
    attribution: Any = None
    top_class: Tensor | None = None


class Teacher:
    """A network in eval mode whose weights are frozen.

    Args:
        root: a LightningModule, or the network itself. It is kept and modified: pass a copy.
        output: where the logits are in its output.
        layers: names of the layers whose outputs will be requested, relative to the root or to the network inside it,
            with the argument that names each, for errors; ``None`` for no layer.
        optimize: fold BatchNorm and switch to channels last at the first call, which gives an input to trace with.
        compiled: compile it at the first call.

    Attributes:
        network: what is called; the root, or the part of it that corresponds to the student's network.
        hash: of its weights.
        has_training_code: whether its own code runs as in training, see :meth:`suited`.
        cache: of its logits; ``None`` for none.

    Raises:
        ValueError: there is no layer of a name.
    """

    def __init__(
        self,
        root: nn.Module,
        output: OutputSpec = None,
        layers: Mapping[str, str] | None = None,
        optimize: bool = True,
        compiled: bool = False,
    ) -> None:
        self.network, self.output, self.layers = root, output, tuple(layers or ())
        # Before any optimization: folding changes weights, and must not make it another teacher to a cache or a resumed
        # run.
        self.hash = module_hash(root)
        self.cache: OutputCache | None = None
        self._optimize, self._compiled = optimize, compiled
        self._is_channels_last = self._is_selected = self._is_called = self._is_compiled = False
        self._students: OutputSpec = None
        self._takes_first = False
        self.has_training_code, self._is_suited = False, False
        self._as_given = root
        for module in root.modules():
            module.training = False
        for parameter in root.parameters():
            parameter.requires_grad_(False)
        for layer, argument in (layers or {}).items():
            locate(root, layer, "teacher", argument)  # a misspelled name is refused before training begins

    def select_network_(self, name: str, student: Network | None = None) -> None:
        """Call only what corresponds to the student's network, if there is that; decided at the first call.

        Args:
            name: of the student's network.
            student: that network, if it was watched. Its logits are looked for in the same place first. A step of
                several parts is run of a teacher that has these parts too; any other is called as the first of them.
        """
        if self._is_selected:
            return
        self._is_selected = True
        named = module_names(self.network)
        self._students = None if student is None else student.output
        if student is not None and student.step is not None:
            self._takes_first = any(part not in named for part in student.step.parts)
            if not self._takes_first:
                self.network, self._optimize = step_view(self.network, student.step), False
        elif name in named:
            self.network = named[name]
        self._as_given = self.network

    def suited(self, call: Call, student: Tensor, ask: Callable[[], TeacherOutput]) -> TeacherOutput:
        """Return an answer whose logits have the shape of the student's, by its own code as in training if need be.

        Some networks answer in another form in evaluation mode: with scores instead of maps, with boxes instead of
        losses. If only the code of training gives what the student gives, that runs from the first call on; layers stay
        in evaluation mode in any case, see :func:`~lit_xai.network.modes.training_code`.

        Args:
            call: of the student's network, in training.
            student: the student's logits in it.
            ask: returns the answer to the call.

        Raises:
            ValueError: the logits of neither can be compared with the student's.
        """
        try:
            output = ask()
            check_logits(student, output.logits)
        except ValueError:
            if self._is_suited or not self._take_training_code(call, student):
                raise
            output = ask()
        self._is_suited, self._as_given = True, self.network
        return output

    def _take_training_code(self, call: Call, student: Tensor) -> bool:
        """Run its own code as in training from here on, if that suits the student."""
        before = self.network, self._is_channels_last
        # As it was before its layers were folded, for the other code.
        self.network, self._is_channels_last, self.has_training_code = self._as_given, False, True
        try:
            with fork_rng(0, {one.device for one in self.network.parameters()}), torch.inference_mode(), self._mode():
                args, kwargs = self._converted(self._own(call), gradient=False)
                check_logits(student, self._logits(self.network(*args, **kwargs)))
        except Exception:  # whatever somebody else's code raises: the first error stands
            (self.network, self._is_channels_last), self.has_training_code = before, False
            return False
        self._optimize, self._compiled = False, self._is_compiled
        uncached, self.cache = " It is not cached." if self.cache is not None else "", None
        rank_zero_info(
            f"KnowledgeDistillation: in evaluation mode the teacher {type(self.network).__name__} gives something else"
            f" than the student in training: its own code runs as in training, its layers as in evaluation.{uncached}"
        )
        return True

    def _mode(self) -> contextlib.AbstractContextManager[None]:
        return training_code(self.network) if self.has_training_code else contextlib.nullcontext()

    def to_(self, like: "LightningModule") -> None:
        """Move to a module's device, and to its precision if all its weights share one."""
        self.network.to(like.device)
        # With several precisions there is none that the teacher should have.
        floating = {p.dtype for p in like.parameters() if p.is_floating_point()}
        if len(floating) == 1 and floating != {torch.float32}:
            self.network.to(floating.pop())

    def logits(self, call: Call) -> Tensor:
        """Return its logits for a student's call; from the cache if every sample is in it.

        Args:
            call: of the student's network.

        Raises:
            ValueError: the network cannot be called like the student.
        """
        call, keys = self._own(call), None
        if self.cache is not None:
            keys = sample_keys((*call.args, *call.kwargs.values()))
            cached = self.cache.lookup(keys)
            if cached is not None:
                return cached
        logits = self._run(call, ()).logits
        if self.cache is not None and keys is not None and len(logits) == len(keys):
            self.cache.add(keys, logits)
        return logits

    def outputs(self, call: Call, layers: Iterable[str] = ()) -> TeacherOutput:
        """Return its logits and the outputs of layers for a student's call.

        Args:
            call: of the student's network.
            layers: names among those given to the constructor.

        Raises:
            ValueError: the network cannot be called like the student.
        """
        call, layers = self._own(call), tuple(layers)
        return self._run(call, layers) if layers else TeacherOutput(self.logits(call))

    def explain(self, call: Call, explanation: Any, layers: Iterable[str] = ()) -> TeacherOutput:
        """Return its logits, the outputs of layers, and the attribution of its top class.

        Args:
            call: of the student's network.
            explanation: an :class:`~lit_xai.distillation.explanation_matching.ExplanationMatching`.
            layers: names among those given to the constructor.

        Raises:
            ValueError: the network cannot be called like the student, or the explanation has nothing to differentiate.
        """
        call = self._own(call)
        self._prepare(call)
        watched = _layers(self.network, dict.fromkeys([*layers, *explanation.teacher_layers]))
        by_input = explanation.needs_input_gradient
        with torch.enable_grad():
            args, kwargs = self._converted(call, by_input)
            # GradCAM differentiates by a layer's output, and all weights of the teacher are frozen: gradients have to
            # start there.
            outputs = None if by_input else _with_gradient
            with recorded({"": self.network}, watched, outputs=outputs) as calls, self._mode():
                self._call(args, kwargs)
            logits = self._logits(calls[0].result)
            target = top_class(logits)
            attribution = explanation.attribute(
                logits, calls[0], explanation.teacher_layers, target, create_graph=False
            )
        return TeacherOutput(logits.detach(), _detached(calls[0].layers), attribution, target)

    def _run(self, call: Call, layers: Iterable[str]) -> TeacherOutput:
        self._prepare(call)
        # Measured on a ResNet-56: 0.97 of the time under no_grad.
        with torch.inference_mode():
            args, kwargs = self._converted(call, gradient=False)
            with recorded({"": self.network}, _layers(self.network, layers)) as calls, self._mode():
                self._call(args, kwargs)
            logits = self._logits(calls[0].result)
        # Autograd refuses to save tensors made in inference mode for a backward pass, but not their clones.
        return TeacherOutput(logits.clone(), _detached(calls[0].layers))

    def _own(self, call: Call) -> Call:
        """Return a student's call as this network is called."""
        if not self._takes_first or call.first is None:
            return call
        return replace(call, args=call.first[0], kwargs=call.first[1], first=None)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.network(*args, **kwargs)
        except Exception as error:
            inputs = ", ".join(describe(value) for value in (*args, *kwargs.values()))
            raise ValueError(
                f"The teacher {type(self.network).__name__} failed on the inputs of the student, {inputs}"
                f" ({first_line(error)}): use a teacher of the same inputs, or name with module= the part of the"
                " student that corresponds to it."
            ) from error

    def _logits(self, result: Any) -> Tensor:
        if self.output is None and callable(self._students) and isinstance(logits := self._students(result), Tensor):
            return logits
        try:
            return find_logits(result, self.output)
        except ValueError as error:
            # The teacher's output is located by another argument than the student's.
            message = str(error).replace("output=", "teacher_output=")
            raise ValueError(f"The teacher {type(self.network).__name__}: {message}") from None

    def _converted(self, call: Call, gradient: bool) -> tuple[Any, Any]:
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), None)

        def converted(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value
            value = value.detach().to(dtype or value.dtype)
            if self._is_channels_last and value.dim() == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            return requires_grad(value.clone() if value.is_inference() else value) if gradient else value

        args, kwargs = changed((call.args, call.kwargs), converted)
        return args, kwargs

    def _prepare(self, call: Call) -> None:
        """Optimize and compile the network at the first call, which gives an input to trace with."""
        if not self._is_called:
            self._refuse_other_arguments(call)
            self._is_called = True
        optimize, self._optimize, compiled, self._compiled = self._optimize, False, self._compiled, False
        if optimize:
            self._optimize_(call)
        if compiled:
            self._is_compiled = True
            self.network.compile()

    def _refuse_other_arguments(self, call: Call) -> None:
        try:
            # Bound without a call, so that a TypeError inside the teacher's own code is not mistaken for wrong
            # arguments.
            inspect.signature(self.network.forward).bind(*call.args, **call.kwargs)
        except TypeError as error:
            arguments = ", ".join([*("..." for _ in call.args), *(f"{key}=" for key in call.kwargs)])
            raise ValueError(
                f"The teacher {type(self.network).__name__} cannot be called like the student, with ({arguments}):"
                f" {error}."
            ) from None

    def _optimize_(self, call: Call) -> None:
        # Measured on a ResNet-56: with both and inference mode, a forward takes 0.77 of its time under no_grad.
        # Folding traces with inputs given by position or by name, not both.
        mixed = call.args and call.kwargs
        inputs: Any = call.kwargs or (call.args[0] if len(call.args) == 1 else call.args)
        if not mixed and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules()):
            samples = _two_samples(inputs, self.network)
            with _without_autocast(self.network):
                # Folding moves a BatchNorm's effect into the layer before it: one whose output is matched stays.
                keep = [locate(self.network, layer, "teacher") for layer in self.layers]
                self.network = folded_copy(
                    self.network, samples, keep=keep, output=self.output, tolerance=_tolerance(samples)
                )
        if any(isinstance(m, nn.Conv2d) for m in self.network.modules()):
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
            self._is_channels_last = True


def locate(root: nn.Module, layer: str, role: str, argument: str = "features") -> str:
    """Return a layer's name in ``root``.

    Args:
        root: a LightningModule, or a network.
        layer: its name relative to the root, to a network inside it, or to the module that holds it.
        role: ``"student"`` or ``"teacher"``, for the error.
        argument: that names the layer, for the error.

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
        f"{argument}: {layer!r} names no layer of the {role} {type(root).__name__}.{nearest(layer, names)}"
    )


def _layers(network: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    named = module_names(network)
    return {layer: named[locate(network, layer, "teacher")] for layer in layers}


def first_line(error: Exception) -> str:
    """Return an exception's type and the beginning of its message, to quote in a sentence.

    Example:
        >>> first_line(ValueError("too long."))
        'ValueError: too long'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:200].rstrip('.')}"


def _with_gradient(value: Tensor) -> Tensor:
    # Not a leaf, which an in-place ReLU after it could not change. A layer that already has a gradient keeps it, so
    # that it stays connected to the earlier ones.
    return value if value.requires_grad else value.detach().requires_grad_().clone()


def _detached(layers: dict[str, Any]) -> dict[str, Any]:
    # Cloned as well: a layer after it may change its output in place.
    return {name: x.detach().clone() if isinstance(x, Tensor) else x for name, x in layers.items()}


def _two_samples(inputs: Any, network: nn.Module) -> Any:
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
    """Return how far folding may move the outputs in the inputs' precision, as a share of the largest."""
    values = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    dtypes = {value.dtype for value in values if isinstance(value, Tensor)}
    # Rounding in half precision moves outputs by more than a fold does.
    return 0.02 if dtypes & {torch.float16, torch.bfloat16} else 1e-4


@contextlib.contextmanager
def _without_autocast(network: nn.Module) -> Iterator[None]:
    device = next((p.device.type for p in network.parameters()), "cpu")
    with torch.autocast(device, enabled=False):
        yield
