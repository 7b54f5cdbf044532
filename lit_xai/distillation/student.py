"""The network that learns, seen while its module's own steps call it."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_xai.attribution.differentiable import double_backward
from lit_xai.distillation.teacher import locate
from lit_xai.network.calling import find_network, module_names
from lit_xai.network.recording import Call, recorded, requires_grad
from lit_xai.trainer.training_step import called, candidates, say_what_is_called


class Student:
    """Which network of a LightningModule is taught.

    Args:
        module: its dotted name; ``None`` for the LightningModule where its step calls that, else the one direct part
            with weights that it calls.
    """

    def __init__(self, module: str | None) -> None:
        self.module = module
        self.name: str | None = module

    def check(self, pl_module: LightningModule, layers: Iterable[str], explained: bool = False) -> None:
        """Refuse, before anything runs, names that are not there and what cannot be seen.

        Raises:
            ValueError: a name is not there.
            MisconfigurationException: the step, or what holds a layer that is looked at, is compiled.
        """
        find_network(pl_module, self.module)
        if getattr(pl_module, "_compiler_ctx", None) is not None:
            raise MisconfigurationException(
                "KnowledgeDistillation cannot see into a compiled training_step: compile the network inside the"
                " LightningModule instead, self.network = torch.compile(network)."
            )
        part = next((part for part in _compiled(pl_module) if explained), None)
        if part is not None:
            raise MisconfigurationException(
                f"KnowledgeDistillation cannot differentiate the compiled {part or type(pl_module).__name__!r} twice,"
                " as explanation= has to: leave it uncompiled, or the explanation out."
            )
        for layer in layers:
            name = locate(pl_module, layer, "student")
            inside = (part for part in _compiled(pl_module) if not part or f"{name}.".startswith(f"{part}."))
            compiled = next(inside, None)
            if compiled is not None and name != compiled:
                raise MisconfigurationException(
                    f"KnowledgeDistillation cannot see the layer {layer!r} inside the compiled {compiled!r}: leave that"
                    " uncompiled, or the layer out."
                )

    @contextlib.contextmanager
    def seen(
        self, pl_module: LightningModule, layers: Iterable[str] = (), explained: bool = False, by_input: bool = False
    ) -> Iterator[list[Call]]:
        """Record the calls of the network inside.

        Args:
            pl_module: its LightningModule.
            layers: to keep the outputs of.
            explained: whether gradients will be differentiated again.
            by_input: whether they are those by the network's inputs.
        """
        named = module_names(pl_module)
        watched = {layer: named[locate(pl_module, layer, "student")] for layer in layers}
        with contextlib.ExitStack() as stack:
            if explained:
                stack.enter_context(double_backward())
            change = requires_grad if by_input else None
            yield stack.enter_context(recorded(candidates(pl_module, self.name), watched, inputs=change))

    def calls(self, pl_module: LightningModule, calls: Sequence[Call]) -> list[Call]:
        """Return the network's calls among those recorded, and remember which network that is.

        Raises:
            MisconfigurationException: it was not called, or it is not clear which one it is.
        """
        calls = [call for call in calls if _is_learning(call)]
        names = called(calls)
        if self.name is None and len(names) == 1:
            self.name = names[0]
        found = [call for call in calls if call.name == self.name]
        if not found:
            raise MisconfigurationException(
                "KnowledgeDistillation found no outputs of the student, as"
                f" {say_what_is_called(pl_module, names, self.name)}"
            )
        return found


def _is_learning(call: Call) -> bool:
    """Whether a gradient goes back through a call: what ran under no_grad is somebody's target, and learns nothing."""
    tensors = [value for value in tree_leaves(call.result) if isinstance(value, Tensor)]
    return not tensors or any(value.requires_grad for value in tensors)


def _compiled(pl_module: nn.Module) -> list[str]:
    by_wrapper = [
        name.removesuffix("._orig_mod") for name, _ in pl_module.named_modules() if name.endswith("_orig_mod")
    ]
    in_place = [name for name, m in pl_module.named_modules() if vars(m).get("_compiled_call_impl") is not None]
    return [name.replace("._orig_mod", "") for name in (*by_wrapper, *in_place)]
