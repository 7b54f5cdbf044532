"""The states of the random generators in a checkpoint, where Lightning saves none.

Private names in use: ``_FitLoop._data_fetcher``, ``_FitLoop._combined_loader``.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, distributed

from lit_xai.structure.schema import Checked, ListOf, TensorOf, entries


def _is_python(state: Any) -> bool:
    version, internal, gauss = state
    random.Random().setstate((version, tuple(internal), gauss))
    return gauss is None or type(gauss) is float


def _is_numpy(state: Any) -> bool:
    name, keys, place, has_gauss, gauss = state
    TensorOf(torch.int64, (624,)).check(keys)
    # Beyond its keys NumPy would read memory that is not its own.
    is_place = type(place) is int and 0 <= place <= 624
    is_gauss = type(has_gauss) is int and has_gauss in (0, 1) and type(gauss) is float
    return name == "MT19937" and is_place and is_gauss and bool(((keys >= 0) & (keys < 2**32)).all())


def _is_torch(state: Any) -> bool:
    torch.Generator().set_state(TensorOf(torch.uint8).check(state).cpu())
    return True


def _state_of(generator: str, is_one: Callable[[Any], bool]) -> Checked:
    def check(state: Any) -> None:
        try:
            found = is_one(state)
        except Exception:  # what the generators raise is theirs
            found = False
        if not found:
            raise ValueError(f"a state of {generator}")

    return Checked(check)


_STATES = entries(
    {
        "python": Annotated[Any, _state_of("Python's random", _is_python)],
        "numpy": Annotated[Any, _state_of("numpy.random", _is_numpy)],
        "torch": Annotated[Any, _state_of("torch's generator", _is_torch)],
        "cuda": NotRequired[Annotated[Tensor, TensorOf(torch.uint8)]],
    }
)


def _check_some(value: Any) -> Any:
    if not value:
        raise ValueError("the states of one process or more")
    return value


# What gathered_states returned.
RANDOM_STATES = Annotated[list[Any], ListOf(_STATES), Checked(_check_some)]


def random_states() -> dict[str, Any]:
    """Return the states of the generators of Python, NumPy and torch as plain values and tensors.

    They load under ``torch.load(..., weights_only=True)``. The generator of the current CUDA device is included once
    CUDA is initialized.

    Example:
        >>> states = random_states()
        >>> first = torch.rand(1), random.random(), np.random.rand()
        >>> restore_random_states_(states)
        >>> first == (torch.rand(1), random.random(), np.random.rand())
        True
    """
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    states = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states_(states: dict[str, Any]) -> None:
    """Restore the states that :func:`random_states` returned, in this process or another.

    Args:
        states: that of CUDA is ignored where there is no such device.
    """
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


@contextlib.contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Restore the states of the generators after the block, which may draw.

    Example:
        >>> with random_numbers_kept():
        ...     first = torch.rand(1)
        >>> bool(torch.rand(1) == first)
        True
    """
    states = random_states()
    try:
        yield
    finally:
        restore_random_states_(states)


def gathered_states() -> list[dict[str, Any]]:
    """Return the :func:`random_states` of every process, by rank; call it on all of them.

    Example:
        >>> len(gathered_states())
        1
    """
    own = random_states()
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    # Each process draws from generators of its own, and one process writes the checkpoint.
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def renew_batches_(trainer: Trainer) -> None:
    """Restart the loaders of a resumed epoch where an uninterrupted run starts them: after ``on_train_epoch_start``.

    On a resume, Lightning starts them before ``on_train_start`` and not again. A loader that starts draws a number from
    torch's generator and seeds its workers with it, so both would differ from the uninterrupted run. Loaders that
    resume by their own ``state_dict`` are left alone.

    Args:
        trainer: at the end of ``on_train_epoch_start``, in the first epoch of a resumed run.

    Source: ``_TrainingEpochLoop.on_run_start``.
    """
    fit_loop = trainer.fit_loop
    starts_by_itself = trainer.current_epoch == 0 or not (fit_loop.is_resuming or fit_loop.epoch_loop.restarting)
    loaders = fit_loop._combined_loader.flattened if fit_loop._combined_loader is not None else []
    if starts_by_itself or any(hasattr(loader, "load_state_dict") for loader in loaders):
        return
    assert fit_loop._data_fetcher is not None  # made before the first epoch
    iter(fit_loop._data_fetcher)
