"""A stand-in for the Trainer, with which a module's step runs outside of a loop and changes nothing but its module."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_xai.network.calling import defines_call
from lit_xai.network.observing import Told
from lit_xai.network.trees import leaves
from lit_xai.trainer.access import is_a, step_optimizers

STEPS = {"train": "training_step", "val": "validation_step", "test": "test_step"}
"""The step of each loader."""


class _Nothing:
    """What a method returns that does nothing: callable, a context, false."""

    def __call__(self, *args: Any, **kwargs: Any) -> "_Nothing":
        # optimizer.step(closure) runs the closure.
        for value in (*args, *kwargs.values()):
            if inspect.isfunction(value) or inspect.ismethod(value):
                value()
        return self

    def __getattr__(self, name: str) -> "_Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False


_NOTHING = _Nothing()
_PLAIN = (str, bytes, int, float, complex, Tensor, type(None))


class _Idle:
    """An object whose plain attributes can be read, and whose methods do nothing."""

    def __init__(self, real: Any) -> None:
        vars(self)["real"] = real

    def __getattr__(self, name: str) -> Any:
        return _read(getattr(self.real, name))

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __getitem__(self, key: Any) -> Any:
        return _read(self.real[key])

    def __len__(self) -> int:
        return len(self.real)

    def __bool__(self) -> bool:
        return bool(self.real)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _NOTHING


def _read(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_read(part) for part in value]
    if isinstance(value, dict):
        # The parameter groups of an optimizer, say: what a step writes there is lost.
        return {key: _read(part) for key, part in value.items()}
    return _NOTHING if callable(value) and not isinstance(value, nn.Module) else _Idle(value)


class _Strategy(_Idle):
    """Of a strategy, what passes tensors between processes, as in a run on one."""

    def broadcast(self, value: Any, src: int = 0) -> Any:
        return value

    def reduce(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return value

    def all_gather(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return value

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return decision

    @property
    def root_device(self) -> Any:
        return self.real.root_device


class _StandIn(_Idle):
    """A Trainer that can be read."""

    def __init__(self, trainer: Trainer, pl_module: Any, loader: str) -> None:
        super().__init__(trainer)
        flags = {"training": loader == "train", "validating": loader == "val", "testing": loader == "test"}
        vars(self).update(flags, sanity_checking=False, predicting=False, lightning_module=pl_module, model=pl_module)
        vars(self)["strategy"] = _Strategy(trainer.strategy)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if name == "callbacks":  # of a list of its own: what torch traces through may rewrite it
            return list(value)
        # What holds data and callbacks is read as it is: steps ask a data module for names, sizes and transforms.
        return value if name == "datamodule" or "dataloader" in name else _read(value)


@contextlib.contextmanager
def standing_in(trainer: Trainer, pl_module: nn.Module, loader: str, told: Told | None = None) -> Iterator[None]:
    """Have the steps of a module run alone inside the context: nothing is logged, optimized or sent to other processes.

    Args:
        trainer: that it belongs to; read, never changed.
        pl_module: a LightningModule or a copy of one; its attributes are put back.
        loader: ``"train"``, ``"val"`` or ``"test"``: whose step is meant.
        told: is given the losses of ``manual_backward``, and what is logged.
    """
    told = told or Told()
    inside = [part for part in pl_module.modules() if is_a(part, "LightningModule")]
    held = [(part, dict(vars(part))) for part in inside]
    for part in inside:
        vars(part).update(_methods(trainer, part, told), _trainer=_StandIn(trainer, part, loader))
    try:
        yield
    finally:
        for part, own in held:
            for name in ("_trainer", *_methods(trainer, part, told)):
                vars(part).pop(name, None)
                if name in own:
                    vars(part)[name] = own[name]


def _methods(trainer: Trainer, part: Any, told: Told) -> dict[str, Any]:
    def log(name: Any = None, value: Any = None, *args: Any, **kwargs: Any) -> None:
        told.others.extend(tensor for _, tensor in leaves(_value(value if value is not None else name)))

    def manual_backward(loss: Any = None, *args: Any, **kwargs: Any) -> None:
        if isinstance(loss, Tensor):
            told.losses.append(loss)
            told.backward += 1

    def optimizers(*args: Any, **kwargs: Any) -> Any:
        return _one_or_several(step_optimizers(trainer))

    def lr_schedulers() -> Any:
        return _one_or_several([config.scheduler for config in trainer.lr_scheduler_configs]) or None

    methods: dict[str, Any] = {"log": log, "log_dict": log, "manual_backward": manual_backward}
    methods |= {"optimizers": optimizers, "lr_schedulers": lr_schedulers}
    methods |= dict.fromkeys(
        ("print", "toggle_optimizer", "untoggle_optimizer", "toggled_optimizer", "clip_gradients"), _NOTHING
    )
    methods["all_gather"] = lambda data, *args, **kwargs: data
    return methods


def _value(value: Any) -> Any:
    # A metric is computed at the end of an epoch.
    return value if isinstance(value, (Tensor, dict)) else None


def _one_or_several(real: list[Any]) -> Any:
    idle = [_Idle(one) for one in real]
    return idle[0] if len(idle) == 1 else idle


def run_step(pl_module: Any, batch: Any, loader: str, told: Told) -> None:
    """Run a step of a module as Lightning would, and add what it returns to what it told.

    Args:
        pl_module: inside :func:`standing_in`.
        batch: as its steps get it.
        loader: ``"train"``, ``"val"`` or ``"test"``.
        told: as above.
    """
    step = getattr(pl_module, STEPS[loader])
    parameters = inspect.signature(step).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    # A step may leave out batch_idx, and evaluation steps may ask for the loader's.
    result = step(*(batch, 0, 0)[: 2 if len(places) != 1 and loader == "train" else max(1, min(3, len(places)))])
    loss = result.get("loss", result) if isinstance(result, dict) else result
    told.losses.extend(tensor for _, tensor in leaves(loss))


def step_loader(pl_module: Any, loader: str) -> str:
    """Return the loader whose step a module defines: its own, or that of training."""
    return loader if defines_call(pl_module, STEPS[loader]) else "train"
