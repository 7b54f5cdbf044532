"""Tests of verdicts on folders: exit codes, formats, and folders that were changed."""

import json
from xml.etree import ElementTree

import pytest
from report.test_record import record

from lit_xai.report.checking import check_folder, compare_reports, find_report, rebuild, short_names
from lit_xai.report.writing import root_digest, write


@pytest.fixture
def folder(tmp_path):
    write(record(), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("requirements", "code"),
    [
        ({"size": "ratio<=0.5"}, 0),
        ({"size": "ratio<=0.1"}, 10),
        ({"accuracy": "drop<=0.01"}, 11),
        ({}, 0),
    ],
)
def test_the_exit_code_is_the_verdict(tmp_path, requirements, code):
    write(record(facts={"requirements": requirements}), tmp_path)
    assert check_folder(tmp_path)[1] == code
    assert check_folder(tmp_path, verify_all=True, digest=root_digest(tmp_path))[1] == code


def test_formats(folder):
    text, _ = check_folder(folder)
    assert text.startswith("Verdict: ")
    plain = json.loads(check_folder(folder, "json")[0])
    suite = ElementTree.fromstring(check_folder(folder, "junit")[0])
    assert plain["outcome"] in text
    assert int(suite.get("tests")) == len(plain["lines"]) == 1


@pytest.mark.parametrize("name", ["report.html", "report.json", "samples.npz", "model_card.md"])
def test_a_changed_file_is_found_also_beside_a_new_manifest(folder, name):
    digest = root_digest(folder)
    content = bytearray((folder / name).read_bytes())
    content[-10] ^= 1
    (folder / name).write_bytes(content)
    assert check_folder(folder, verify_all=True)[1] == 12
    assert check_folder(folder, digest=digest)[1] == 12
    for form in ("json", "junit"):
        assert name in check_folder(folder, form, verify_all=True)[0]


def test_samples_exchanged_with_all_that_is_made_of_them_are_found_by_the_digest(folder, tmp_path):
    digest = root_digest(folder)
    write(record(n=50), folder)
    assert check_folder(folder, verify_all=True)[1] != 12
    text, code = check_folder(folder, digest=digest)
    assert code == 12
    assert digest in text


def test_a_report_is_made_anew(folder):
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    rebuild(folder)
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_what_is_no_report_is_one_sentence(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected the folder of a run with [^\n]*`lit-xai compare`[^\n]*\Z"):
        check_folder(tmp_path / "run")


def test_a_run_is_a_folder_with_one_report_below_it(folder, tmp_path):
    assert find_report(tmp_path) == find_report(folder) == folder
    assert check_folder(tmp_path)[1] == check_folder(folder)[1]
    write(record(), tmp_path / "logs" / "other")
    with pytest.raises(ValueError, match=r"holds 2 reports: name one of [^\n]*other, [^\n]*run\.\Z"):
        find_report(tmp_path)


def test_several_reports_are_compared_in_a_folder_of_their_own(folder, tmp_path):
    write(record(), tmp_path / "other")
    text, code = compare_reports([folder, tmp_path / "other"], tmp_path / "runs")
    assert code == 0
    assert "On the Pareto front: reference, run, other." in text
    with pytest.raises(ValueError, match=r"holds comparison\.html"):
        compare_reports([folder, tmp_path / "other"], tmp_path / "runs")
    assert compare_reports([folder, tmp_path / "other"], tmp_path / "runs", overwrite=True)[1] == 0
    with pytest.raises(ValueError, match="expected different reports"):
        compare_reports([folder, folder], tmp_path / "again")


def test_names_are_what_paths_differ_in(tmp_path):
    assert short_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a", "b"]
    assert short_names([tmp_path / "a", tmp_path / "a" / "b"]) == ["a", "a/b"]
