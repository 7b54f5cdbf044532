"""One running forward of a network, with the module that calls each function."""

import contextlib
import sys
import threading
import types
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from lit_xai.quantization.rounding import Placement


class Running:
    """Intercept the functions that one forward of a network calls, and track which module calls them.

    Args:
        network: whose modules are tracked by name.
        placement: intercepts the functions.
        frozen: modules that run in eval mode meanwhile.
        frame: where the forward runs. A Ctrl-C ends it without a hook being called: once the frame is gone, it is over.
    """

    def __init__(
        self,
        network: nn.Module,
        placement: Placement,
        frame: types.FrameType | None = None,
        frozen: Iterable[nn.Module] = (),
    ) -> None:
        self.placement = placement
        self._frozen = list(frozen)
        self._frame, self._thread = frame, threading.get_ident()
        self._names = {id(m): name for name, m in network.named_modules()}
        self._stack = contextlib.ExitStack()

    def is_over(self) -> bool:
        """Return whether the forward has ended."""
        if self._frame is None:
            return False
        frame: types.FrameType | None = sys._getframe(1)
        # Walk up the stack: the forward still runs if its frame is among the callers of this one.
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is None

    def start(self) -> None:
        """Start to intercept."""
        # Looked up at every function, so that a forward that Ctrl-C ended quantizes nothing of what the user runs next.
        self.placement.is_over = self.is_over
        before = register_module_forward_pre_hook(self._before)
        self._stack.callback(before.remove)
        # always_call: after an error inside a layer the path has to lose that layer's name too.
        after = register_module_forward_hook(self._after, always_call=True)
        self._stack.callback(after.remove)
        # For this forward only, so that no other code meets them in a mode that the user did not set.
        for module in (module for module in self._frozen if module.training):
            module.training = False
            self._stack.callback(setattr, module, "training", True)
        self._stack.enter_context(self.placement)

    def stop(self) -> None:
        """Stop; a second call does nothing."""
        self._stack.close()

    # Global hooks see every module in every thread, as torch has no hooks for the modules of one network.

    def _before(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._names and threading.get_ident() == self._thread:
            self.placement.path.append(self._names[id(module)])

    def _after(self, module: nn.Module, args: Any, result: Any) -> None:
        if id(module) in self._names and self.placement.path and threading.get_ident() == self._thread:
            name = self.placement.path.pop()
            # Not only where the functions inside are intercepted: SyncBatchNorm computes in an autograd function.
            if name in self.placement.passing and args:
                self.placement.pass_on(args[0], result)
