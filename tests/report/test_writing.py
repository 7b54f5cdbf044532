import hashlib
import json
import shutil

import numpy as np
import pytest
from reports import FACTS, record

from lit_xai.report.record import Record
from lit_xai.report.writing import CARD, FILES, MADE, MANIFEST, NUMBERS, PAGE, check_new, root_digest, verify, write


def small(**changes):
    """Return a record of which a report is made at once: figures take most of the time."""
    return record(**{"n": 60, "labels": False, "explained": False, "latency": False, "costs": False, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "one"
    return folder, write(small(**FACTS), folder)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written[0], tmp_path / "copy")


def sign(folder):
    """Make a manifest for the files as they are, as somebody might who changed them."""
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES if name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({"files": files, "root": root_digest(folder)}))


def test_two_builds_are_equal_byte_for_byte(tmp_path):
    roots = {write(record(n=120, **FACTS), tmp_path / name) for name in "ab"}
    assert len(roots) == 1
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert verify(tmp_path / "a", roots.pop()) == []


def test_a_report_can_be_written_over_itself(folder, written):
    (folder / "model.ckpt").write_text("of the run")
    (folder / "checkpoints").mkdir()
    assert write(Record.load(folder), folder) == written[1]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "checkpoints", "model.ckpt"])
    assert verify(folder) == []


def test_the_root_is_that_of_sha256sum(written):
    folder, root = written
    names = sorted(set(FILES) - {MANIFEST})
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == root
    assert root_digest(folder) == root == json.loads((folder / MANIFEST).read_text())["root"]


@pytest.mark.parametrize("name", MADE)
def test_one_changed_digit_is_found(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    (folder / name).write_text(text.replace("60", "61", 1), encoding="utf-8")
    found = verify(folder)
    assert len(found) == 2
    assert "is not what its samples and facts give" in found[0]
    assert "another hash" in found[1]


def test_a_file_and_its_manifest_changed_alike_are_found(folder, written):
    text = (folder / PAGE).read_text(encoding="utf-8").replace("Inconclusive", "Passed")
    (folder / PAGE).write_text(text, encoding="utf-8")
    sign(folder)
    assert [sentence for sentence in verify(folder) if PAGE in sentence]


def test_samples_and_report_and_manifest_changed_alike_are_found_by_the_digest(folder, written):
    write(small(change=0.0, **FACTS), folder)
    assert verify(folder) == []
    assert "has the root digest" in verify(folder, written[1])[0]


def test_changed_samples_are_found(folder):
    one = Record.load(folder)
    outputs = np.concatenate([-one.candidate.outputs[:9], one.candidate.outputs[9:]])
    networks = (*one.networks[:-1], type(one.candidate)(one.candidate.name, outputs))
    Record(networks, one.task, facts=one.facts).save(folder)
    sign(folder)
    found = verify(folder)
    assert all(any(name in sentence for sentence in found) for name in (PAGE, NUMBERS, CARD))


@pytest.mark.parametrize("name", FILES)
def test_rubbish_and_nothing_are_found(folder, name):
    (folder / name).write_bytes(b"\x00rubbish")
    assert verify(folder)
    (folder / name).unlink()
    assert verify(folder) == [f"{folder / name} is missing"]


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": [], "root": 1}', '{"files": {"a": "b"}, "root": "c"}'])
def test_a_manifest_of_another_kind_is_found(folder, text):
    (folder / MANIFEST).write_text(text)
    assert len(verify(folder)) == 1


def test_nothing_is_written_of_a_record_that_cannot_be_shown(tmp_path):
    with pytest.raises(ValueError, match="expected a requirement"):
        write(small(requirements={"accuracy": "drop<0.1"}), tmp_path / "new" / "report")
    broken = small()
    broken.candidate.outputs[3] = np.nan
    with pytest.raises(ValueError, match="finite numbers, but got NaN or infinity for 1 of 60 samples"):
        write(broken, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_earlier_report_is_not_written_over_by_accident(folder):
    with pytest.raises(ValueError, match="earlier report"):
        check_new(folder)
    check_new(folder, overwrite=True)
    with pytest.raises(ValueError, match="file"):
        check_new(folder / PAGE)
