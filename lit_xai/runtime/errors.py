"""Exceptions of other libraries in a few words, for errors of one sentence."""


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line of at most 200 characters, without a full stop.

    Example:
        >>> one_line(ValueError("bad\\n  model."))
        'bad model'
    """
    return " ".join(str(error).split())[:200].rstrip(".")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type where the message is empty.

    Example:
        >>> first_line(ValueError("bad model:\\nnode 7")), first_line(KeyError())
        ('bad model', 'KeyError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".:") if lines else type(error).__name__


def root_cause(error: BaseException) -> BaseException:
    """Return the exception that the others were raised from; exporters wrap it in pages of advice.

    Example:
        >>> error = RuntimeError("export failed")
        >>> error.__cause__ = TypeError("no such operator")
        >>> root_cause(error)
        TypeError('no such operator')
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def is_data_dependent(error: BaseException) -> bool:
    """Return whether an exporter stopped at a size or a condition that depends on a tensor's values.

    Example:
        >>> is_data_dependent(TypeError("no such operator"))
        False
    """
    return type(root_cause(error)).__name__.startswith("GuardOnDataDependent")


def describe_cause(error: BaseException) -> str:
    """Return the type and the first line of what an exception was raised from.

    Example:
        >>> describe_cause(TypeError("no such operator."))
        'TypeError: no such operator'
    """
    cause = root_cause(error)
    if is_data_dependent(error):  # whose message is about torch's own symbols
        return "data-dependent: its code takes a size or a condition from a tensor's values, as in int(lengths.max())"
    line = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {line[:200].rstrip('.')}" if line else type(cause).__name__
