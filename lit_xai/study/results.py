"""The results of a study as plain values: its cells, its front, and which options matter."""

import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_xai.report.front import pareto_front
from lit_xai.report.summary import plain
from lit_xai.study.space import shown
from lit_xai.study.storage import FAILED, SAME, SharedStudy, folder_name, history, shown_url

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FEWEST = 4
"""Finished cells below which nothing is said of the options' importance."""

_STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def results(shared: SharedStudy) -> dict[str, Any]:
    """Return what is known of a study, the same for the same cells.

    Args:
        shared: the study.
    """
    settings = shared.settings
    trials = shared.trials()
    continued = {number for one in trials for number in history(one)}
    cells = [_cell(shared, one) for one in trials if one.number not in continued and not _is_nothing(one)]
    well = [one["options"] for one in cells if one["state"] != "failed"]
    cells = [one for one in cells if one["state"] != "failed" or one["options"] not in well]
    objectives = list(settings.objectives)
    done = [one for one in cells if one["state"] == "complete" and one["same_as"] is None]
    values = [[one["values"][name]["value"] for name in objectives] for one in done]
    for one, is_on_front in zip(done, pareto_front(values, settings.directions), strict=True):
        one["is_on_front"] = is_on_front
    found: dict[str, Any] = {
        "version": 1,
        "name": shared.study.study_name,
        "objectives": dict(settings.objectives),
        "sampler": settings.sampler,
        "seed": settings.seed,
        "configs": settings.configs,
        "reference": settings.reference if isinstance(settings.reference, str) else shown(settings.reference or []),
        "search": {name: one.plain() for name, one in settings.search.items()},
        "searched": {name: _described(one.plain()) for name, one in settings.search.items()},
        "options": {name: shown(value) for name, value in settings.options.items()},
        "n_cells": settings.n_cells,
        "cells": cells,
        "importances": _importances(shared, objectives),
        "storage": shown_url(settings),
        "environment": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("optuna", "torch", "lightning", "lit-xai")},
        },
        "test": None,
    }
    rounded: dict[str, Any] = plain(found)
    return rounded


def _is_nothing(trial: "FrozenTrial") -> bool:
    """Return whether a trial failed before it was a cell."""
    return trial.state.name == "FAIL" and not trial.params


def _cell(shared: SharedStudy, trial: "FrozenTrial") -> dict[str, Any]:
    settings = shared.settings
    stored = trial.params or trial.system_attrs.get("fixed_params") or {}
    same = trial.user_attrs.get(SAME)
    attributes = trial.user_attrs if same is None else shared.trials()[same].user_attrs
    measured, reason = attributes.get("measured", {}), trial.user_attrs.get(FAILED)
    values = {
        name: measured.get(name) or {"value": value, "low": None, "high": None, "n": 0}
        for name, value in zip(settings.objectives, trial.values or (), strict=False)
    }
    known = {name: one for name, one in settings.search.items() if name in stored}
    return {
        "number": trial.number,
        "state": _STATES[trial.state.name],
        "options": {name: _shown(one, stored[name]) for name, one in known.items()},
        "values": values,
        "further": {name: one for name, one in measured.items() if name not in values},
        "is_on_front": False,
        "same_as": same,
        "continued": len(history(trial)),
        "folder": attributes.get("folder", folder_name(trial)),
        "seconds": attributes.get("seconds"),
        "reason": reason or ("a worker ended, and nobody continued" if trial.state.name == "FAIL" else None),
    }


def _described(given: Any) -> list[str] | str:
    """Return the values of an option, or its range, in words."""
    if isinstance(given, list):
        return [shown(one) for one in given]
    step = f" in steps of {given['step']}" if given["step"] else ""
    return f"{given['low']} to {given['high']}{step}{', by its logarithm' if given['log'] else ''}"


def _shown(one: Any, stored: Any) -> str:
    try:
        return shown(one.value(stored))
    except ValueError:
        return shown(stored)


def _objective(place: int) -> "Callable[[FrozenTrial], float]":
    def value(trial: "FrozenTrial") -> float:
        return float(trial.values[place])

    return value


def _importances(shared: SharedStudy, objectives: list[str]) -> dict[str, dict[str, float]]:
    """Return the share of an objective's variance that each option explains, by functional ANOVA.

    F. Hutter, H. Hoos and K. Leyton-Brown 2014, https://proceedings.mlr.press/v32/hutter14.html.
    """
    import optuna

    found: dict[str, dict[str, float]] = {}
    values = np.array([one.values for one in shared.trials("COMPLETE")])
    if len(values) < FEWEST or len(shared.settings.search) < 2:
        return found
    for place, name in enumerate(objectives):
        if np.ptp(values[:, place]) == 0:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            shares = optuna.importance.get_param_importances(
                shared.study, evaluator=evaluator, target=_objective(place)
            )
        found[name] = {option: float(share) for option, share in shares.items()}
    return found
