"""The student: a network inside a LightningModule, recorded while the module's own steps call it."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from lit_xai.attribution.differentiable import double_backward
from lit_xai.distillation.teacher import locate
from lit_xai.network.calling import find_network, module_names
from lit_xai.network.recording import Call, recorded, requires_grad
from lit_xai.network.spec import Network
from lit_xai.network.step_view import StepCall
from lit_xai.network.trees import leaves
from lit_xai.trainer.access import MisconfigurationException
from lit_xai.trainer.training_step import called, candidates, say_what_is_called

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class Student:
    """The network of a LightningModule that learns from the teacher.

    Args:
        module: its dotted name; ``None`` for the LightningModule itself if its step calls that, else the only direct
            part with weights that it calls.

    Attributes:
        name: of the network; ``None`` until the first step shows it.
        step: the step that stands for the network, where that consists of several parts.
    """

    def __init__(self, module: str | None) -> None:
        self.module = module
        self.name: str | None = module
        self.step: StepCall | None = None

    def follow(self, network: Network) -> None:
        """Take a network that was watched, as the training step calls it."""
        self.name, self.step = network.module or "", network.step

    def check(self, pl_module: "LightningModule", layers: Mapping[str, str], explained: bool = False) -> None:
        """Refuse names that do not exist and layers that compilation hides, before anything runs.

        Args:
            pl_module: the LightningModule.
            layers: whose outputs will be recorded, with the argument that names each.
            explained: explanations will be matched, which differentiates twice.

        Raises:
            ValueError: a name does not exist.
            MisconfigurationException: the step, or a part that holds one of the layers, is compiled.
        """
        find_network(pl_module, self.module)
        # A compiled step would skip the hooks that record its calls.
        if getattr(pl_module, "_compiler_ctx", None) is not None:
            raise MisconfigurationException(
                "KnowledgeDistillation cannot see into a compiled training_step: compile the network inside the"
                " LightningModule instead, self.network = torch.compile(network)."
            )
        compiled_parts = _compiled(pl_module)
        if explained and compiled_parts:
            part = compiled_parts[0]
            raise MisconfigurationException(
                f"KnowledgeDistillation cannot differentiate the compiled {part or type(pl_module).__name__!r} twice,"
                " as explanation= requires: leave it uncompiled, or drop the explanation."
            )
        for layer, argument in layers.items():
            name = locate(pl_module, layer, "student", argument)
            # A warmed-up compiled module skips the hooks of the layers inside it. Its own hooks still run.
            holders = (part for part in compiled_parts if not part or f"{name}.".startswith(f"{part}."))
            compiled = next(holders, None)
            if compiled is not None and name != compiled:
                raise MisconfigurationException(
                    f"KnowledgeDistillation cannot see the layer {layer!r} inside the compiled {compiled!r}: leave that"
                    " uncompiled, or drop the layer."
                )

    @contextlib.contextmanager
    def record(
        self, pl_module: "LightningModule", layers: Iterable[str] = (), explained: bool = False, by_input: bool = False
    ) -> Iterator[list[Call]]:
        """Record the calls of the network inside the context.

        Args:
            pl_module: the LightningModule.
            layers: whose outputs to keep.
            explained: the calls will be differentiated twice.
            by_input: they will be differentiated with respect to the network's inputs.
        """
        named = module_names(pl_module)
        watched = {layer: named[locate(pl_module, layer, "student")] for layer in layers}
        with contextlib.ExitStack() as stack:
            if explained:
                # Fused attention has no second derivative.
                stack.enter_context(double_backward())
            # An attribution of the inputs needs their gradient, which a batch from a loader does not require.
            change = requires_grad if by_input else None
            parts = candidates(pl_module, self.name)
            if self.step is not None:
                parts = {name: named[name] for name in self.step.parts}
            yield stack.enter_context(recorded(parts, watched, inputs=change))

    def own_calls(self, pl_module: "LightningModule", calls: Sequence[Call], batch: Any = None) -> list[Call]:
        """Return the calls of the network among those recorded, and remember which network it is.

        Args:
            pl_module: the LightningModule.
            calls: of one step.
            batch: of that step.

        Raises:
            MisconfigurationException: it was not called, or several networks were.
        """
        if self.step is not None:
            return [_joined(self.step, pl_module, calls, batch)]
        calls = [call for call in calls if _is_learning(call)]
        names = called(calls)
        # Decided once, by the first step: a later step that calls other parts must not switch networks.
        if self.name is None and len(names) == 1:
            self.name = names[0]
        own = [call for call in calls if call.name == self.name]
        if not own:
            raise MisconfigurationException(
                "KnowledgeDistillation found no outputs of the student, as"
                f" {say_what_is_called(pl_module, names, self.name)}"
            )
        return own


def _joined(step: StepCall, pl_module: Any, calls: Sequence[Call], batch: Any) -> Call:
    """Return the calls of a step's parts as one call of the whole."""
    if len(calls) <= max(step.ends):
        names = called(calls)
        raise MisconfigurationException(
            f"KnowledgeDistillation expected the step of {type(pl_module).__name__} to call"
            f" {' and '.join(map(repr, step.parts))} in every batch, but it called {names or 'none of them'}."
        )
    results = {calls[place].name: calls[place].result for place in step.ends}
    layers = {name: value for call in calls[: max(step.ends) + 1] for name, value in call.layers.items()}
    result = next(iter(results.values())) if len(results) == 1 else results
    first = calls[0].args, calls[0].kwargs
    return Call("", (), step.inputs(batch), result, layers, first)


def _is_learning(call: Call) -> bool:
    """Return whether a call has a gradient: what runs under no_grad gives targets, and does not learn."""
    tensors = [value for _, value in leaves(call.result)]
    return not tensors or any(value.requires_grad for value in tensors)


def _compiled(pl_module: nn.Module) -> list[str]:
    """Return the names of the compiled parts, by ``torch.compile`` or by ``module.compile``."""
    by_wrapper = [
        name.removesuffix("._orig_mod") for name, _ in pl_module.named_modules() if name.endswith("_orig_mod")
    ]
    in_place = [name for name, m in pl_module.named_modules() if vars(m).get("_compiled_call_impl") is not None]
    return [name.replace("._orig_mod", "") for name in (*by_wrapper, *in_place)]
