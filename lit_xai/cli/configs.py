"""Configuration files by name: ``--config digits`` works from any folder."""

from pathlib import Path

from lit_xai.network.spelling import nearest

_PACKAGE = Path(__file__).parents[1]


def find_config(name: str) -> str:
    """Return the path of a configuration: a file as given, else ``NAME.yaml`` here, in ``./configs`` or shipped.

    A URL, or YAML itself, is returned unchanged.

    Raises:
        ValueError: there is no such file and no such name.

    Example:
        >>> Path(find_config("base")).name
        'base.yaml'
    """
    # The signs of a URL and of YAML; no name of a config holds them.
    if name == "-" or any(sign in name for sign in ":{\n") or Path(name).is_file():
        return name
    if Path(f"{name}.yaml").is_file():
        return f"{name}.yaml"
    path = _configs_by_name().get(name.removesuffix(".yaml"))
    if path is None:
        known = known_configs()
        hint = nearest(name.removesuffix(".yaml"), known)
        raise ValueError(
            f"there is no config '{name}': no such file in this folder, and no such name.{hint}"
            f" Known by name: {', '.join(known)}."
        )
    return str(path)


def find_study(name: str) -> Path:
    """Return the path of a study: a file as given, else ``NAME.yaml`` here or shipped.

    Raises:
        ValueError: there is no such file and no such name.

    Example:
        >>> find_study("pruned_digits").parent.name
        'studies'
    """
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    known = {file.stem: file for file in _shipped().glob("studies/*.yaml")}
    if name not in known:
        hint = nearest(name, known)
        raise ValueError(
            f"there is no study '{name}': no such file in this folder, and no such name.{hint}"
            f" Known by name: {', '.join(sorted(known))}."
        )
    return known[name]


def known_configs() -> list[str]:
    """Return the names of the files in ``./configs`` and of the configurations shipped with this package, sorted."""
    return sorted(_configs_by_name())


def _configs_by_name() -> dict[str, Path]:
    files = [*_shipped().glob("*.yaml"), *Path("configs").glob("*.yaml")]
    # The user's own last: they win over shipped ones of the same name.
    return {file.stem: file for file in files}


def _shipped() -> Path:
    # A wheel holds the folder inside the package; in a clone it lies next to it.
    return next((f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir()), _PACKAGE)
