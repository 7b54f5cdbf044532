"""Methods of a module wrapped on the instance: shared by all who ask, and gone without a trace.

Callbacks that each wrap a method and unwrap it in any other order leave a wrapper behind, and a wrapper on an instance
ends up in its copies and cannot be pickled. Here a method is wrapped once however many ask, each of them goes when it
likes, and copies and pickles have nothing of it.
"""

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

Around = Callable[..., Any]
"""Called with the method as it would be without this wrapper, then with the call's own arguments."""

_methods: WeakKeyDictionary[nn.Module, dict[str, "_Method"]] = WeakKeyDictionary()
_REDUCE = "__reduce_ex__"


def wrap(module: nn.Module, name: str, around: Around) -> None:
    """Have ``around(method, *args, **kwargs)`` called in place of a module's method; undone by :func:`unwrap`.

    Args:
        module: one instance; others of its class are left alone.
        name: of the method.
        around: may call the method it is given, or not. The last one given is the outermost.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> wrap(layer, "extra_repr", lambda method: method().upper())
        >>> layer
        Linear(IN_FEATURES=2, OUT_FEATURES=2, BIAS=TRUE)
        >>> unwrap(layer, "extra_repr")
        >>> layer, sorted(set(vars(layer)) & {"extra_repr", "__reduce_ex__"})
        (Linear(in_features=2, out_features=2, bias=True), [])
    """
    methods = _methods.setdefault(module, {})
    if _REDUCE not in methods:
        methods[_REDUCE] = _Method(module, _REDUCE)
        methods[_REDUCE].around.append(functools.partial(_without_ours, module))
    if name not in methods:
        methods[name] = _Method(module, name)
    methods[name].around.append(around)


def unwrap(module: nn.Module, name: str, around: Around | None = None) -> None:
    """Undo one :func:`wrap`; the last one leaves the module as it was. What was not wrapped is left alone.

    Args:
        module: as for :func:`wrap`.
        name: likewise.
        around: likewise; ``None`` for all of them.
    """
    methods = _methods.get(module, {})
    if name not in methods:
        return
    methods[name].around = [one for one in methods[name].around if around is not None and one != around]
    if not methods[name].around:
        methods.pop(name).remove()
    if set(methods) == {_REDUCE}:
        methods.pop(_REDUCE).remove()
    if not methods:
        _methods.pop(module, None)


class _Method:
    """One method of one module, with everything that is wrapped around it."""

    def __init__(self, module: Any, name: str) -> None:
        self._module, self._name = module, name
        self._original = getattr(module, name)
        self._theirs = {key: value for key, value in vars(module).items() if key == name}
        self.around: list[Around] = []

        @functools.wraps(self._original)  # Lightning looks at signatures, and behind wrappers for what is overridden
        def ours(*args: Any, **kwargs: Any) -> Any:
            return self._call(len(self.around), *args, **kwargs)

        self._ours = ours
        vars(module)[name] = ours

    def _call(self, depth: int, /, *args: Any, **kwargs: Any) -> Any:
        if depth == 0:
            return self._original(*args, **kwargs)
        return self.around[depth - 1](functools.partial(self._call, depth - 1), *args, **kwargs)

    def remove(self) -> None:
        """Put back what was there; what somebody wrapped around ours since stays."""
        if vars(self._module).get(self._name) is self._ours:
            del vars(self._module)[self._name]
            vars(self._module).update(self._theirs)

    def clean(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a module's attributes without our method among them."""
        if state.get(self._name) is not self._ours:
            return state
        return {key: value for key, value in state.items() if key != self._name} | self._theirs


def _without_ours(module: nn.Module, reduce: Callable[[Any], Any], protocol: Any) -> Any:
    """Return what copy and pickle ask an instance for, with the methods of its class."""
    function, arguments, state, *rest = reduce(protocol)
    for method in _methods.get(module, {}).values():
        state = method.clean(state)
    return function, arguments, state, *rest
