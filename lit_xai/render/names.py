"""Short forms of layers' names, which tend to share their beginnings and to differ at their ends."""

from collections.abc import Sequence

from lit_xai.render.text import shorten, text_width


def shorten_name(name: str, width: float, size: float) -> str:
    """Return a dotted name without as many of its first parts as it takes to fit into ``width`` pixels.

    Example:
        >>> shorten_name("bert.encoder.layer.10.attention.self.query", 250, 13)
        '…10.attention.self.query'
        >>> shorten_name("layer1.0.conv1", 250, 13)
        'layer1.0.conv1'
    """
    parts = name.split(".")
    endings = [name, *("…" + ".".join(parts[i:]) for i in range(1, len(parts)))]
    fitting = next((ending for ending in endings if text_width(ending, size) <= width), endings[-1])
    return shorten(fitting, width, size)


def shorten_names(names: Sequence[str], width: float, size: float) -> tuple[list[str], str]:
    """Return the names, and the beginning that all of them share, which is taken off where one is too wide.

    Example:
        >>> shorten_names(["net.encoder.0.query", "net.encoder.11.key"], 160, 13)
        (['…0.query', '…11.key'], 'net.encoder.')
    """
    if all(text_width(name, size) <= width for name in names):
        return list(names), ""
    shared = 0
    # Without the last part: a name never becomes empty.
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared += len(parts[0]) + 1
    ends = [f"…{name[shared:]}" if shared else name for name in names]
    return [shorten_name(end, width, size) for end in ends], names[0][:shared]
