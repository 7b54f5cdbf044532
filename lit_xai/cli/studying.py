"""The worker behind ``lit-xai study``: it takes cells from the study's queue, trains and measures them."""

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_xai.cli.cell_runs import CellError, CellRun, Measured, cell_config, read_epochs, write_config
from lit_xai.cli.config_files import read_config
from lit_xai.cli.study_checks import REFERENCE, check_study, stacked, whole_config
from lit_xai.report.estimates import Estimate
from lit_xai.study.reporting import write_report
from lit_xai.study.results import results
from lit_xai.study.settings import Settings, read_settings
from lit_xai.study.space import short_names, shown
from lit_xai.study.storage import SharedStudy, folder_lock, folder_name, is_begun

if TYPE_CHECKING:
    from optuna.trial import Trial


def read_study(path: Path) -> Settings:
    """Return the settings in a file; its folder has its name unless it says another.

    Args:
        path: of ``study.yaml``.

    Raises:
        OSError: there is no such file.
        ValueError: it says what no study has; one sentence.
    """
    try:
        return read_settings(read_config(path), path.stem)
    except ValueError as error:
        raise ValueError(f"in '{path}': {error}") from None


class Worker:
    """One of the processes that work on a study.

    Everything is checked when a study begins, before anything is trained.

    Args:
        settings: of the study.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: something cannot be as the settings say; one sentence.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        if not is_begun(settings):
            check_study(settings)
        self.shared = SharedStudy(settings)
        self._durations: list[float] = []
        self._waits_for = 0

    def work(self) -> int:
        """Train and measure cells until none is left, and write the report; return the exit code."""
        end = time.monotonic() + (self.settings.timeout or float("inf"))
        try:
            reference = self._reference()
            while time.monotonic() < end:
                taken = self.shared.take()
                if taken is not None:
                    self._work_on(*taken, reference)
                elif others := len(self.shared.trials("RUNNING")):
                    self._wait(others)
                else:
                    break
            return self._finish(reference)
        except CellError as error:
            raise ValueError(str(error)) from None
        finally:
            self.shared.close()

    def _wait(self, others: int) -> None:
        """Wait for cells of other workers, which come back into the queue if these are killed."""
        if self._waits_for != others:
            _say(f"Nothing is left but the cells of {others} other worker{'s' * (others != 1)}: waiting for them")
            self._waits_for = others
        time.sleep(1)

    # --- one cell ---------------------------------------------------------------------------------------------------

    def _work_on(self, trial: "Trial", values: dict[str, Any], reference: Path | None) -> None:
        frozen = next(one for one in self.shared.trials() if one.number == trial.number)
        folder = self.shared.folder / folder_name(frozen)
        begin = time.monotonic()
        _say(f"{folder.name} ({self._place()}): {_told_options(values)}")
        if folder.exists():
            _say(f"{folder.name}: continued after epoch {len(read_epochs(folder))}, where another worker left it")
        try:
            write_config(self._cell(values, folder, reference), folder)
            measured = CellRun(folder, self.settings, reference, self._alive(trial, folder)).measure()
            objectives = [_value(name, measured) for name in self.settings.objectives]
        except (CellError, ValueError, OSError) as error:
            self.shared.fail(trial, str(error))
            _say(f"{folder.name}: failed: {error}")
            if not self.shared.trials("COMPLETE"):
                raise CellError(f"the first cell failed: {error}.") from None
            return
        except KeyboardInterrupt:
            self.shared.put_back(trial)
            _say(f"{folder.name}: put back into the queue; the same command continues with it")
            raise
        took = time.monotonic() - begin
        self._durations.append(took)
        self.shared.complete(trial, objectives, {"measured": _known(measured), "seconds": took, "folder": folder.name})
        told = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(self.settings.objectives, objectives, strict=True)
        )
        _say(f"{folder.name}: {told} ({_duration(took)})")

    def _place(self) -> str:
        done, n = len(self.shared.trials("COMPLETE", "PRUNED")), self.settings.n_cells
        running = len(self.shared.trials("RUNNING"))
        others = f", {running - 1} at other workers" if running > 1 else ""
        left = ""
        if self._durations:
            mean = sum(self._durations) / len(self._durations)
            left = f", {_duration(mean * (n - done) / max(1, running))} left"
        return f"{done} of {n} cells done{others}{left}"

    def _alive(self, trial: "Trial", folder: Path) -> Callable[[], None]:
        """Return what gives a sign of life, and shows the epoch where somebody may look at it."""
        last = [float("-inf")]

        def sign() -> None:
            if time.monotonic() - last[0] < self.settings.heartbeat:
                return
            last[0] = time.monotonic()
            self.shared.sign(trial)
            if sys.stdout.isatty() and (epochs := read_epochs(folder)):
                sys.stdout.write(f"\r{folder.name}: {epochs[-1]['epoch'] + 1} of {epochs[-1]['of']} epochs\033[K\r")
                sys.stdout.flush()

        return sign

    def _cell(self, values: dict[str, Any], folder: Path, reference: Path | None) -> dict[str, Any]:
        """Return the whole configuration of a cell."""
        init_from = None if reference is None else str(reference)
        return cell_config(whole_config(self.settings, values, init_from), folder)

    # --- the reference, and the end -----------------------------------------------------------------------------------

    def _reference(self) -> Path | None:
        """Return the reference's file; whoever comes first trains it."""
        given = self.settings.reference
        if given is None or isinstance(given, str):
            return None if given is None else Path(given)
        folder = self.shared.folder / REFERENCE
        with folder_lock(self.shared.folder, REFERENCE):
            if not folder.exists():
                _say(f"The reference is trained first, by {shown(given)}")
                write_config(cell_config(copy.deepcopy(stacked(*given)), folder), folder)
            try:
                return CellRun(folder, self.settings).fit()
            except CellError as error:
                raise CellError(f"the reference cannot be trained: {error}.") from None

    def _finish(self, reference: Path | None) -> int:
        """Measure the chosen cells on test samples, once each, and write the report."""
        with folder_lock(self.shared.folder, "report"):
            found = results(self.shared)
            is_done = not self.shared.trials("WAITING", "RUNNING")
            if is_done and self.settings.test and reference is not None:
                with _told("Reading the test samples for the cells on the front"):
                    found["test"] = self._tested(found, reference)
            path = write_report(found, self.shared.folder)
        _say("\n".join(_told_of(found)))
        _say(f"The report is {path}; the database for optuna-dashboard is {found['storage']}")
        return 0

    def _tested(self, found: dict[str, Any], reference: Path) -> dict[str, Any]:
        """Return what was measured of the front's cells on test samples: cells that were read before are not again."""
        tested, missing = {}, ""
        for cell in (one for one in found["cells"] if one["is_on_front"]):
            folder = self.shared.folder / cell["folder"]
            try:
                tested[str(cell["number"])] = _known(CellRun(folder, self.settings, reference).test())
            except (CellError, ValueError, OSError) as error:
                missing = str(error)
                break
        read = list(self.shared.folder.glob("trial-*/test/manifest.json"))
        return {"cells": tested, "readings": len(read), "missing": missing}


def _told_options(values: Mapping[str, Any]) -> str:
    short = short_names(values)
    return ", ".join(f"{short[name]}={shown(one)}" for name, one in values.items())


def _value(name: str, measured: Measured) -> float:
    found = measured.get(name, "it was not logged")
    if isinstance(found, str):
        raise CellError(f"the objective {name} has no value: {found}")
    return found["value"]


def _known(measured: Measured) -> dict[str, Estimate]:
    return {name: one for name, one in measured.items() if not isinstance(one, str)}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    if sys.stdout.isatty():
        sys.stdout.write(f"{what} ...\r")
        sys.stdout.flush()
    yield


def _say(line: str) -> None:
    clear = "\033[K" if sys.stdout.isatty() else ""
    sys.stdout.write(f"{clear}{line}\n")
    sys.stdout.flush()


def _duration(seconds: float) -> str:
    """Return a time as one says it.

    Example:
        >>> _duration(42), _duration(200), _duration(9000)
        ('42 s', '3 min', '2.5 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def _told_of(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that tell of the end of a study."""
    front = [one for one in found["cells"] if one["is_on_front"]]
    done = sum(one["state"] == "complete" for one in found["cells"])
    yield f"{done} of {found['n_cells']} cells are measured, {len(front)} of them on the front:"
    for one in front:
        options = _told_options(one["options"])
        values = ", ".join(f"{name} {one['values'][name]['value']:.4g}" for name in found["objectives"])
        yield f"  {one['folder']}: {values} ({options})"
    if found["test"] and not found["test"]["missing"]:
        n = found["test"]["readings"]
        yield f"Chosen on validation samples; the test samples were read {n} time{'s' * (n != 1)}, once for each."
