"""What a run has to reach, written down: hashed, read as it was written, and refused where it was changed."""

import json
from dataclasses import replace

import pytest

from lit_xai.report.statement import STATED, Statement, read_statement, refuse_unfinished


@pytest.fixture
def stated():
    return Statement.now({"accuracy": "drop<=0.01"}, 0, "train.py", {"torch": "2.13"}, ["Net", "ModelReport(n=40)"])


def test_it_is_read_as_it_was_written(stated, tmp_path):
    stated.write(tmp_path)
    assert read_statement(tmp_path) == stated
    assert read_statement(tmp_path / "nowhere") is None


def test_readings_and_failures_come_later_and_have_no_part_in_the_checksum(stated):
    later = replace(stated, readings=3, failure="No room.")
    assert later.sha256 == stated.sha256
    assert (later.read_once_more().readings, later.read_once_more().failure) == (4, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [("requirements", {"accuracy": "drop<=0.5"}), ("time", "2020-01-01T00:00:00+00:00"), ("step", 3), ("command", "x")],
)
def test_a_statement_that_was_changed_is_refused(stated, tmp_path, name, value):
    stated.write(tmp_path)
    file = tmp_path / STATED
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(ValueError, match=r"stated\.json was changed since it was written"):
        read_statement(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"requirements": 3}', "\x00"])
def test_what_is_no_statement_is_one_sentence(tmp_path, text):
    (tmp_path / STATED).write_text(text)
    with pytest.raises(ValueError, match=r"stated\.json[^\n]*\Z"):
        refuse_unfinished(tmp_path)


def test_what_was_stated_within_a_run_says_so(stated):
    late = replace(stated, step=7)
    assert not late.is_before
    assert late.sentence().startswith("Stated after 7 steps, on ")
