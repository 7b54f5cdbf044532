from pathlib import Path

import pytest

from lit_xai.cli.files import check_files, is_file_name, require_file


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.ckpt").touch()
    Path("mine.yaml").touch()
    Path("shards.ckpt").mkdir()


@pytest.mark.parametrize(
    "options",
    [
        ["--config", "base", "-c", "mine.yaml", "--config={trainer: {max_epochs: 3}}"],
        ["--ckpt_path=a.ckpt"],
        ["--ckpt_path=no.ckpt", "--ckpt_path", "a.ckpt"],  # the last one counts
        ["--ckpt_path=last"],
        ["--ckpt_path=hpc"],
        ["--ckpt_path=registry:model:v1"],
        ["--ckpt_path=s3://bucket/x.ckpt"],
        ["--ckpt_path=shards.ckpt"],
        ["--ckpt_path=null", "--init_from=a.ckpt"],
        ["--init_from=no.ckpt", "--print_config"],
        ["--ckpt_path=no.ckpt", "--help"],
        ["--config"],  # no value: the command's parser says so
        ["--confi", "nope", "--model.ckpt_path=no.ckpt", "surplus", "-x", "--optimizer.lr", "-1"],
    ],
)
def test_what_is_there_or_somebody_elses_to_judge_passes(options):
    check_files(["fit", *options])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (["fit", "--config", "base", "-cnope"], ValueError, "no config 'nope'"),
        (["fit", "--config=base", "--config=nope.yaml", "--print_config"], ValueError, "no config 'nope.yaml'"),
        (["fit", "--init_from", "no.ckpt"], FileNotFoundError, "no file 'no.ckpt'"),
        (["fit", "--init_from=shards.ckpt"], IsADirectoryError, "'shards.ckpt' is a folder"),
        (["predict", "--ckpt_path=no.ckpt"], FileNotFoundError, "no file 'no.ckpt'"),
        (["fit", "--init_from=a.ckpt", "--ckpt_path=last"], ValueError, "give one of them"),
    ],
)
def test_what_is_not_there_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        check_files(options)


def test_only_fit_uses_init_from():
    check_files(["validate", "--init_from=no.ckpt", "--ckpt_path=a.ckpt"])


def test_the_nearest_file_of_its_folder_is_named():
    with pytest.raises(FileNotFoundError, match=r"no file 'aa\.ckpt'\. Did you mean 'a\.ckpt'"):
        require_file("aa.ckpt")


def test_a_path_object_names_a_file_too():
    assert is_file_name(Path("a.ckpt"))
    assert not is_file_name(None)
