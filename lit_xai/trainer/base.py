"""The base of the callbacks: Lightning's Callback, from whichever of its two packages the project uses."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from lit_xai.trainer.charts import Chart
from lit_xai.trainer.told import Plain, told


class FromConfig(Callback):
    """A callback whose constructor takes the lists and dicts of a Hydra configuration as plain ones.

    Attributes:
        charts: for TensorBoard's page of custom scalars.
        told: what the constructor was given, as plain values.
    """

    charts: tuple[Chart, ...] = ()
    told: dict[str, Plain] = {}  # replaced, never changed

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _with_plain_values(cls.__init__)  # type: ignore[method-assign]  # the same signature


def _with_plain_values(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **options: Any) -> None:
        args, options = tuple(map(_plain, args)), {name: _plain(value) for name, value in options.items()}
        vars(self).setdefault("told", told(signature, args, options))  # of the subclass, which is called first
        init(self, *args, **options)

    return wrapped


def _plain(value: Any) -> Any:
    """Return a list or dict of OmegaConf as a plain one, which ``hydra.utils.instantiate`` passes on as they are."""
    # Looked up rather than imported: whoever has such a value has imported the package.
    if type(value).__module__.partition(".")[0] == "omegaconf" and "omegaconf" in sys.modules:
        return sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True)
    return value


if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    AnyCallback = FromConfig
else:
    # A Trainer accepts a callback of the other package, but type checks do not: the LightningCLI of a pytorch_lightning
    # project would refuse these in YAML. The two classes are twins, so inheriting from both adds no method.
    import pytorch_lightning

    class AnyCallback(FromConfig, pytorch_lightning.Callback):
        """A Callback of both packages."""
