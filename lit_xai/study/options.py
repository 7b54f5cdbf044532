"""Options of a configuration by dotted names, as they are typed after ``lit-xai fit``."""

from collections.abc import Iterator
from typing import Any

from lit_xai.network.spelling import nearest

Place = tuple[Any, Any]
"""A mapping or list, and the key or index in it."""


def set_option(config: dict[str, Any], name: str, value: Any, argument: str = "search") -> None:
    """Set an option of a whole configuration, in which every class's arguments are spelled out.

    The arguments of a class follow its option's name directly, as in ``model.network.width``. A callback is named by
    its class, as in ``trainer.callbacks.StructuredPruning.target_macs``; without a name the last callback is meant, as
    everywhere on the command line.

    Args:
        config: as ``lit-xai fit --print_config`` prints it; is modified.
        name: the option's dotted name.
        value: to set.
        argument: for errors.

    Raises:
        ValueError: there is no such option; one sentence with the nearest name.

    Example:
        >>> callback = {"class_path": "lit_xai.callbacks.StructuredPruning", "init_args": {"target_macs": None}}
        >>> config = {"trainer": {"max_epochs": 1, "callbacks": [callback]}}
        >>> set_option(config, "trainer.callbacks.StructuredPruning.target_macs", 0.25)
        >>> callback["init_args"]["target_macs"]
        0.25
        >>> set_option(config, "trainer.max_epoch", 3)
        Traceback (most recent call last):
        ...
        ValueError: search names the option 'trainer.max_epoch', which there is not. Did you mean 'max_epochs'?
    """
    node: Any = config
    parts = name.split(".")
    for part in parts:
        found = _places(node).get(part)
        if found is None:
            hint = nearest(part, _places(node))
            raise ValueError(f"{argument} names the option '{name}', which there is not.{hint}")
        holder, key = found
        node = holder[key]
    holder[key] = value


def _places(node: Any) -> dict[str, Place]:
    """Return where the options below one are, by the next part of their names."""
    if isinstance(node, dict):
        return {str(key): (holder, key) for holder, key in _of_mapping(node)}
    if isinstance(node, list):
        last = _places(node[-1]) if node else {}
        classes = {_class_name(one): (node, i) for i, one in enumerate(node) if isinstance(one, dict)}
        return {**last, **classes}
    return {}


def _of_mapping(node: dict[str, Any]) -> Iterator[Place]:
    if "class_path" not in node:
        yield from ((node, key) for key in node)
        return
    for arguments in ("dict_kwargs", "init_args"):
        holder = node.get(arguments)
        if isinstance(holder, dict):
            yield from ((holder, key) for key in holder)


def _class_name(node: dict[str, Any]) -> str:
    return str(node.get("class_path", "")).rpartition(".")[2]
