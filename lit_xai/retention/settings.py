"""Settings that are wrong for any run."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_xai.network.check import check_integer, is_number, refusal


def check_settings(
    n: int, nulls: int, ladder: Sequence[int], shares: Mapping[str, float], on_error: str, adverse_class: Any
) -> None:
    """Refuse what no run can do with.

    Args:
        n: how many samples are explained.
        nulls: untrained networks.
        ladder: numbers of bits.
        shares: of the run's time, by the argument's name.
        on_error: what to do about an error.
        adverse_class: a number or a name.

    Raises:
        ValueError: one sentence that names the argument.

    Example:
        >>> check_settings(256, 10, (1,), {}, "warn", None)
        Traceback (most recent call last):
        ...
        ValueError: ladder expected numbers of bits from 2 to 16, but got (1,).
    """
    check_integer("n", n, 2)
    check_integer("nulls", nulls, 0)
    for name, value in shares.items():
        if not is_number(value) or value < 0:
            raise refusal(name, "a share of the run's time, 0 or more", value)
    if any(not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= 16 for bits in ladder):
        raise refusal("ladder", "numbers of bits from 2 to 16", ladder)
    if on_error not in ("warn", "raise"):
        raise refusal("on_error", "'warn' or 'raise'", on_error)
    if adverse_class is not None and not isinstance(adverse_class, str):
        check_integer("adverse_class", adverse_class, 0)
