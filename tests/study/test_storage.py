"""The queue that workers share: every cell is taken once, and comes back when its worker is silent."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lit_xai.study.settings import read_settings
from lit_xai.study.storage import SharedStudy, folder_name, is_begun, shown_url

PLAIN = {"configs": ["own"], "search": {"a": [1, 2, 3], "b": ["x", "y"]}, "objectives": {"val/loss": "min"}}


def settings(folder, **changes):
    return read_settings({**PLAIN, "dirpath": str(folder / "study"), **changes})


def hours_pass(folder):
    database = sqlite3.connect(folder / "study" / "study.db")
    database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-3 hours')")
    database.commit()
    database.close()


def taken(shared):
    """Take all cells there are, and return their options."""
    found = []
    while (one := shared.take()) is not None:
        found.append(tuple(one[1].values()))
        shared.complete(one[0], [float(len(found))], {})
    return found


def test_workers_that_begin_at_once_have_every_cell_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        workers = list(pool.map(SharedStudy, [settings(tmp_path)] * 4))
        found = [cell for cells in pool.map(taken, workers) for cell in cells]
    assert sorted(found) == [(a, b) for a in (1, 2, 3) for b in "xy"]
    assert [one.state for one in workers[0].trials()] == [TrialState.COMPLETE] * 6
    # Who comes later finds nothing left.
    late = SharedStudy(settings(tmp_path))
    assert taken(late) == []
    for one in (*workers, late):
        one.close()


def test_a_silent_workers_cell_is_anothers_and_keeps_its_folder(tmp_path):
    assert not is_begun(settings(tmp_path))
    first, second = (SharedStudy(settings(tmp_path, search={"a": [1]})) for _ in range(2))
    assert is_begun(settings(tmp_path))
    trial, values = first.take()
    assert second.take() is None
    hours_pass(tmp_path)
    again, same = second.take()
    assert same == values
    assert again.number != trial.number
    frozen = next(one for one in second.trials() if one.number == again.number)
    assert folder_name(frozen) == "trial-0000"
    # The first comes back to life, and cannot spoil it.
    first.complete(trial, [1.0], {"measured": {}})
    first.fail(trial, "too late")
    second.complete(again, [2.0], {})
    assert [one.values for one in second.trials("COMPLETE")] == [[2.0]]
    for one in (first, second):
        one.close()


def test_a_cell_that_was_put_back_or_failed_is_trained_again(tmp_path):
    shared = SharedStudy(settings(tmp_path, search={"a": [1, 2]}))
    interrupted, _ = shared.take()
    failed, _ = shared.take()
    shared.put_back(interrupted)
    shared.fail(failed, "no space is left")
    assert taken(shared) == [(1,)]
    shared.close()
    later = SharedStudy(settings(tmp_path, search={"a": [1, 2]}))
    assert taken(later) == [(2,)]
    later.close()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_is_asked_as_often_as_it_should_and_repeats_nothing(tmp_path, sampler):
    search = {"a": {"low": 1, "high": 2}, "b": {"low": 0.1, "high": 1.0, "log": True}}
    several = settings(tmp_path, search=search, sampler=sampler, n_trials=7)
    workers = [SharedStudy(several) for _ in range(2)]
    found = [workers[i % 2].take() for i in range(7)]
    assert [one.take() for one in workers] == [None, None]
    values = [tuple(one[1].values()) for one in found]
    assert len(set(values)) == 7
    assert all(a in (1, 2) and 0.1 <= b <= 1 for a, b in values)
    for one in workers:
        one.close()


def test_the_same_options_have_the_same_values_without_training(tmp_path):
    shared = SharedStudy(settings(tmp_path, search={"a": [1, 2]}, sampler="tpe", n_trials=6))
    assert len(taken(shared)) == 2
    assert len(shared.trials("COMPLETE")) == 6
    shared.close()


def test_another_study_is_refused_and_a_longer_one_is_not(tmp_path):
    plain = {"search": {"a": [1, 2, 3]}, "sampler": "tpe", "n_trials": 2}
    SharedStudy(settings(tmp_path, **plain)).close()
    longer = SharedStudy(settings(tmp_path, **{**plain, "n_trials": 3}))
    assert len(longer.trials("WAITING")) == 3
    longer.close()
    with pytest.raises(ValueError, match="that of another study, which differs in search, seed: name another dirpath"):
        SharedStudy(settings(tmp_path, **{**plain, "search": {"a": [1, 2]}, "seed": 3}))


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("nonsense", "storage 'nonsense' cannot be opened"),
        ("sqlite:////nowhere/at/all.db", "cannot be opened: "),
        ("sqlite:///text.db", "cannot be opened: "),
        ("postgresql://me:secret@localhost:1/db", "cannot be opened"),
        ("oracle9://x", "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_opened(tmp_path, monkeypatch, storage, sentence):
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("this is no database" * 100)
    start = time.monotonic()
    with pytest.raises(ValueError, match=sentence) as error:
        SharedStudy(settings(tmp_path, storage=storage))
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 10


def test_a_study_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "study").mkdir()
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study/study.db")
    optuna.create_study(storage=storage, study_name="study").add_trial(optuna.create_trial(value=1.0))
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(ValueError, match="is none of lit_xai"):
        SharedStudy(settings(tmp_path))


def test_a_password_is_not_shown(tmp_path):
    assert "secret" not in shown_url(settings(tmp_path, storage="postgresql://me:secret@host/db"))
