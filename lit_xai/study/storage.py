"""The database of a study, which all of its workers share."""

import contextlib
import json
import socket
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_xai.study.settings import Settings
from lit_xai.study.space import Stored, cells

if TYPE_CHECKING:
    import optuna
    from filelock import FileLock
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

SETTINGS = "lit_xai"
"""The attribute of a study with its settings."""

FAILED, SAME = "failed", "same_as"
"""Attributes of a trial: why it failed; the number of the one that has the same options."""

_RETRIES = 5
_LONGEST = 8.0
"""Seconds to wait for a database that does not answer."""


class SharedStudy:
    """A study as one worker sees it: its queue of cells, and what became of each.

    The queue holds a waiting trial for each cell, of a grid with its options, else without: whoever takes one from it
    asks the sampler. So no worker has to know of the others, and what is left is always what waits.

    Args:
        settings: of the study.

    Raises:
        ValueError: the storage cannot be opened, or holds another study of this name; one sentence.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(settings.dirpath)
        self.lock = folder_lock(self.folder, "study")
        with self.lock, _quiet():
            self.storage = _open(settings)
            try:
                self.study = self._join()
                self._fill_queue()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the database."""
        _close(self.storage)

    def trials(self, *states: str) -> "list[FrozenTrial]":
        """Return the trials in some states, all without any named, in order."""
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=[TrialState[one] for one in states] or None)

    def take(self) -> "tuple[Trial, dict[str, Any]] | None":
        """Return a cell from the queue, and its options; ``None`` if there is none.

        Cells of workers that gave no sign of life are put back into the queue first.
        """
        import optuna

        with self.lock, _quiet():
            optuna.storages.fail_stale_trials(self.study)
            while waiting := self.trials("WAITING"):
                # A sampler of its own for each: workers that draw alike would train the same cells.
                self.study.sampler = _sampler(self.settings, waiting[0].number)
                trial = self.study.ask()
                self.sign(trial)
                try:
                    self._require_queued(trial)
                    stored = {name: one.suggest(trial, name) for name, one in self.settings.search.items()}
                    values = {name: one.value(stored[name]) for name, one in self.settings.search.items()}
                except ValueError as error:
                    self.fail(trial, str(error))
                    continue
                if not self._is_repeated(trial.number, stored):
                    return trial, values
        return None

    def sign(self, trial: "Trial") -> None:
        """Give a sign of life of a cell in work."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        self.storage.record_heartbeat(self.storage.get_trial_id_from_study_id_trial_number(study_id, trial.number))

    def complete(self, trial: "Trial", values: list[float], measured: Mapping[str, Any]) -> None:
        """Write down what was measured of a cell."""
        from optuna.exceptions import UpdateFinishedTrialError

        # Another worker may have taken this one for dead, and the cell for its own.
        with self.lock, _quiet(), contextlib.suppress(UpdateFinishedTrialError):
            for name, value in measured.items():
                trial.set_user_attr(name, value)
            self.study.tell(trial.number, values, skip_if_finished=True)

    def fail(self, trial: "Trial", reason: str) -> None:
        """Write down why a cell has no result."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with self.lock, _quiet(), contextlib.suppress(UpdateFinishedTrialError):
            trial.set_user_attr(FAILED, reason)
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def put_back(self, trial: "Trial") -> None:
        """Put a cell back into the queue, for whoever continues with it."""
        import optuna

        with self.lock, _quiet():
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            frozen = next(one for one in self.trials() if one.number == trial.number)
            _retry()(self.study, frozen)

    def _require_queued(self, trial: "Trial") -> None:
        frozen = next(one for one in self.trials() if one.number == trial.number)
        if "fixed_params" not in frozen.system_attrs and not history(frozen):
            raise ValueError("nothing was left to do when it was asked for")

    def _is_repeated(self, number: int, stored: Mapping[str, Stored]) -> bool:
        """Let a trial have the values of another with the same options, if there is one: they would be the same."""
        from optuna.trial import TrialState

        for one in self.trials("COMPLETE", "RUNNING"):
            if one.number == number or one.params != stored or SAME in one.user_attrs:
                continue
            if one.state == TrialState.COMPLETE:
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(
                    self.storage.get_study_id_from_name(self.study.study_name), number
                )
                self.storage.set_trial_user_attr(trial_id, SAME, one.number)
                self.study.tell(number, one.values)
                return True
            if one.number < number and self.settings.sampler == "grid":
                self.study.tell(number, state=TrialState.FAIL)
                return True
        return False

    def _join(self) -> "optuna.Study":
        import optuna

        found = optuna.create_study(
            storage=self.storage,
            study_name=_name(self.settings),
            directions=self.settings.directions,
            load_if_exists=True,
        )
        own, known = json.loads(json.dumps(self.settings.identity(), default=str)), found.user_attrs.get(SETTINGS)
        if known is None and found.trials:
            raise ValueError(
                f"the storage holds a study '{found.study_name}' that is none of lit_xai: name another dirpath."
            )
        if known is None:
            found.set_user_attr(SETTINGS, own)
            found.set_metric_names(list(self.settings.objectives))
        elif known != own:
            differing = [name for name in own if not isinstance(known, dict) or known.get(name) != own[name]]
            raise ValueError(
                f"dirpath '{self.settings.dirpath}' is that of another study, which differs in {', '.join(differing)}:"
                " name another dirpath, or go back to its settings."
            )
        return found

    def _fill_queue(self) -> None:
        """Put every cell into the queue that is not in work, finished or waiting."""
        live = self.trials("WAITING", "RUNNING", "COMPLETE", "PRUNED")
        if self.settings.sampler != "grid":
            for _ in range(self.settings.n_cells - len(live)):
                self.study.enqueue_trial({})
            return
        known = [one.system_attrs.get("fixed_params", one.params) for one in live]
        failed = [one.system_attrs.get("fixed_params", one.params) for one in self.trials("FAIL")]
        for cell in cells(self.settings.search):
            if cell not in known:
                # One that failed may be well by now.
                self.study.enqueue_trial(cell, skip_if_exists=cell not in failed)


def is_begun(settings: Settings) -> bool:
    """Return whether somebody began this study, who checked its settings then.

    Args:
        settings: of the study.

    Raises:
        ValueError: the storage cannot be opened; one sentence.
    """
    import optuna

    if settings.storage is None and not _own_file(settings).exists():
        return False
    with _quiet():
        storage = _open(settings)
        try:
            return _name(settings) in optuna.get_all_study_names(storage)
        finally:
            _close(storage)


def history(trial: "FrozenTrial") -> list[int]:
    """Return the numbers of the trials that this one continues, the first first."""
    import optuna

    with _quiet():
        return optuna.storages.RetryHeartbeatStaleTrialCallback.retry_history(trial)


def folder_name(trial: "FrozenTrial") -> str:
    """Return the name of a cell's folder, which it keeps when another worker continues with it."""
    return f"trial-{[*history(trial), trial.number][0]:04d}"


def folder_lock(folder: Path, name: str) -> "FileLock":
    """Return a lock in a folder, which is created.

    Raises:
        ValueError: the folder cannot be created.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"dirpath expected a folder that can be written to, but got '{folder}': {error.strerror}."
        ) from None
    return FileLock(folder / f".{name}.lock")


def shown_url(settings: Settings) -> str:
    """Return the storage's address without its password."""
    from sqlalchemy.engine import make_url

    return make_url(_url(settings)).render_as_string(hide_password=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out that Optuna calls retries experimental, and what it logs of each trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # which is given here
        yield


def _retry() -> Any:
    import optuna

    return optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)


def _url(settings: Settings) -> str:
    return settings.storage or f"sqlite:///{_own_file(settings).as_posix()}"


def _own_file(settings: Settings) -> Path:
    return Path(settings.dirpath) / "study.db"


def _name(settings: Settings) -> str:
    return Path(settings.dirpath).resolve().name


def _open(settings: Settings) -> "RDBStorage":
    import optuna
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    address = settings.storage or "study.db"
    try:
        url = make_url(_url(settings))
        address = url.render_as_string(hide_password=True)
        _require_answer(url.host, url.port)
        patient = {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {}
        return optuna.storages.RDBStorage(
            _url(settings),
            engine_kwargs=patient,
            heartbeat_interval=settings.heartbeat,
            grace_period=settings.grace,
            heartbeat_stale_trial_callback=_retry(),
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError, OSError) as error:
        cause = " ".join(str(error.__cause__ or error).partition("\n")[0].split()).rstrip(".")
        raise ValueError(f"storage '{address}' cannot be opened: {cause}.") from None


def _require_answer(host: str | None, port: int | None) -> None:
    """Refuse a host that does not answer: drivers wait for minutes."""
    if host and port:
        socket.create_connection((host, port), timeout=_LONGEST).close()


def _close(storage: "RDBStorage") -> None:
    storage.remove_session()
    storage.engine.dispose()


def _sampler(settings: Settings, number: int) -> "optuna.samplers.BaseSampler":
    import optuna

    seed = settings.seed * 100_003 + number
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, settings.n_cells // 4), constant_liar=True)
    if settings.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, settings.n_cells // 4)))
    return optuna.samplers.RandomSampler(seed=seed)  # never asked: the queue holds every cell
