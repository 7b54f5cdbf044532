"""The settings of a study, as ``study.yaml`` gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Gt, Le, MinLen
from typing_extensions import TypedDict

from lit_xai.network.check import refusal
from lit_xai.network.spelling import nearest
from lit_xai.structure.schema import Checked, NonNegative, Positive, check_schema, closed
from lit_xai.study.space import Choices, Range, as_grid, cells, read_space

Direction = Literal["min", "max"]


def _is_file_or_configs(value: Any) -> None:
    several = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    if not several and not (isinstance(value, str) and value):
        raise ValueError("a file, or a list of configs")


@closed
class _Settings(TypedDict):
    configs: Annotated[list[str], MinLen(1)]
    search: Annotated[dict[str, Any], MinLen(1)]
    objectives: Annotated[dict[str, Direction], MinLen(1)]
    sampler: NotRequired[Literal["grid", "tpe", "nsga2"]]
    n_trials: NotRequired[Positive]
    reference: NotRequired[Annotated[Any, Checked(_is_file_or_configs)]]
    options: NotRequired[dict[str, Any]]
    compare: NotRequired[dict[str, Any]]
    test: NotRequired[bool]
    dirpath: NotRequired[Annotated[str, MinLen(1)]]
    storage: NotRequired[Annotated[str, MinLen(1)]]
    seed: NotRequired[NonNegative]
    timeout: NotRequired[Annotated[float, Gt(0)]]
    grace: NotRequired[Annotated[int, Gt(1), Le(86_400)]]


@dataclass(frozen=True)
class Settings:
    """What is searched, by what it is judged, and where its results are.

    Args:
        configs: of the runs, as ``lit-xai fit --config`` stacks them.
        search: values by the dotted name of an option, or by ``configs``: what is stacked on ``configs``.
        objectives: ``"min"`` or ``"max"`` by the name of what a comparison measures, or of a logged validation metric.
        sampler: ``"grid"`` for every cell, ``"tpe"`` or ``"nsga2"``.
        n_trials: of a sampler that is no grid.
        reference: the model that cells are held against: a checkpoint, an ONNX file, or the configs of its run.
        options: of every cell, values by dotted names.
        compare: further options of ``lit-xai compare``, by which a cell is measured.
        test: measure the chosen cells on test samples at the end.
        dirpath: the folder of the study, which has its name.
        storage: a database; default a SQLite file in the folder.
        seed: of the sampler.
        timeout: seconds after which a worker begins no other cell.
        grace: seconds without a sign of life after which a worker's cell is another's.
    """

    configs: list[str]
    search: Mapping[str, Choices | Range]
    objectives: dict[str, Direction]
    sampler: str = "grid"
    n_trials: int | None = None
    reference: str | list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    compare: dict[str, Any] = field(default_factory=dict)
    test: bool = True
    dirpath: str = "study"
    storage: str | None = None
    seed: int = 0
    timeout: float | None = None
    grace: int = 120

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """In Optuna's words."""
        return ["maximize" if one == "max" else "minimize" for one in self.objectives.values()]

    @property
    def n_cells(self) -> int:
        """How many cells there will be."""
        return self.n_trials if self.n_trials is not None else len(cells(self.search))

    @property
    def heartbeat(self) -> int:
        """Seconds between two signs of life."""
        return max(1, self.grace // 8)

    def identity(self) -> dict[str, Any]:
        """Return what all workers of a study have to agree on, as plain values."""
        return {
            "configs": self.configs,
            "search": {name: one.plain() for name, one in self.search.items()},
            "objectives": self.objectives,
            "sampler": self.sampler,
            "reference": self.reference,
            "options": self.options,
            "compare": self.compare,
            "seed": self.seed,
        }


def read_settings(given: Any, dirpath: str = "study") -> Settings:
    """Return the settings that a file gives.

    Args:
        given: its plain values.
        dirpath: the folder, where it gives none.

    Raises:
        ValueError: an entry is unknown, missing, or of another kind; one sentence.

    Example:
        >>> plain = {"configs": ["base"], "search": {"trainer.max_epochs": [1, 2]}, "objectives": {"accuracy": "max"}}
        >>> read_settings(plain).n_cells
        2
        >>> read_settings({**plain, "sampel": "tpe"})
        Traceback (most recent call last):
        ...
        ValueError: a study has no entry 'sampel'. Did you mean 'sampler'?
    """
    if isinstance(given, Mapping):
        for name in given:
            if name not in _Settings.__annotations__:
                known = list(_Settings.__annotations__)
                hint = nearest(str(name), known) or f" It has {', '.join(known)}."
                raise ValueError(f"a study has no entry {name!r}.{hint}")
    given = dict(given) | ({"configs": [given["configs"]]} if isinstance(given.get("configs"), str) else {})
    if type(given.get("timeout")) is int:
        given["timeout"] = float(given["timeout"])
    check_schema(given, _Settings, "a study")
    sampler = given.get("sampler", "grid")
    if sampler != "grid" and "n_trials" not in given:
        raise ValueError(f"sampler: {sampler} needs n_trials, the number of cells to train.")
    space = read_space(given["search"])
    if sampler == "grid":
        space = {name: as_grid(name, one) for name, one in space.items()}
    settings = Settings(**{"dirpath": dirpath, **given, "search": space})
    if sampler == "grid" and settings.n_trials not in (None, n := len(cells(space))):
        raise refusal("n_trials", f"none for a grid, which has {n} cells", settings.n_trials)
    return settings
