"""Packages that only some features need, and that an installation may lack."""

from importlib.util import find_spec

ONNX = ("onnx", "onnxscript")
"""What writes an ONNX file; torch's exporter imports them."""


def require(feature: str, *packages: str, extra: str = "export") -> None:
    """Refuse a feature whose packages are not installed, before any of its work is done.

    Args:
        feature: the subject of the sentence, such as ``"ModelExport"``.
        packages: names of modules.
        extra: of this library, which installs them.

    Raises:
        ModuleNotFoundError: names what is missing, and what installs it.

    Example:
        >>> require("This", "onnx")
        >>> require("This", "a_package_that_nobody_has")
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: This needs a_package_that_nobody_has: pip install "lit-xai[export]".
    """
    # Looked for, not imported: onnxruntime alone takes half a second.
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        names = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise ModuleNotFoundError(f'{feature} needs {names}: pip install "lit-xai[{extra}]".')
