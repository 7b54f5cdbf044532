"""The states of callbacks in a checkpoint, checked before a resumed run uses any of them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from lit_xai.structure.schema import Checked, check_schema
from lit_xai.trainer.access import rank_zero_warn

FIX = (
    "Start afresh from its weights (`--init_from` of lit-xai, or load_from_checkpoint), or remove the callback's entry"
    " from the checkpoint's 'callbacks'."
)


def _check_number(value: Any) -> Any:
    if type(value) not in (int, float):
        raise ValueError("a number")
    return value


# A float or an integer, NaN and infinity included: what was measured in a run.
AnyNumber = Annotated[Any, Checked(_check_number)]


def check_state(name: str, state: Any, schema: Any) -> None:
    """Refuse the state of a callback that is damaged, before anything of it is used.

    Args:
        name: of the callback.
        state: as read from a checkpoint.
        schema: see :func:`~lit_xai.structure.schema.check_schema`.

    Raises:
        ValueError: names the callback, the entry, what was expected and what came, and what to do.

    Example:
        >>> from lit_xai.structure.schema import entries
        >>> check_state("MyCallback", {"seen": "many"}, entries({"seen": int}))
        Traceback (most recent call last):
        ...
        ValueError: The 'seen' of MyCallback's state in the checkpoint expected type int, but got 'many'. Start ...
    """
    check_schema(state, schema, f"{name}'s state in the checkpoint", FIX)


def check_saved_state(callback: Any, checkpoint: Mapping[str, Any], check: Callable[[Any], object]) -> None:
    """Check a callback's own state in a whole checkpoint; call it in ``on_load_checkpoint``.

    Lightning copies the state before it gives it to ``load_state_dict``, which fails for one that is nested too deeply,
    and passes over an empty one: both are found here.

    Args:
        callback: with a ``state_key``.
        checkpoint: as read from a file.
        check: raises a ValueError for a state that is damaged.
    """
    states = checkpoint.get("callbacks")
    if isinstance(states, Mapping) and callback.state_key in states:
        check(states[callback.state_key])


def drop_damaged_state(callback: Any, checkpoint: Mapping[str, Any], check: Callable[[Any], object]) -> None:
    """Do as :func:`check_saved_state` for a callback that only observes: warn, and have it start afresh."""
    try:
        check_saved_state(callback, checkpoint, check)
    except ValueError as error:
        del checkpoint["callbacks"][callback.state_key]
        sentence = str(error).removesuffix(f" {FIX}")
        rank_zero_warn(f"{sentence} {type(callback).__name__} only observes: training continues, and it starts afresh.")
