from pathlib import Path

import pytest

from lit_xai.cli.configs import find_config, known_configs


def test_a_file_comes_first_then_the_working_folder_then_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = Path(find_config("base"))
    assert shipped.is_file()
    assert shipped.parent.name == "configs"
    Path("configs").mkdir()
    Path("configs/base.yaml").touch()
    Path("configs/mine.yaml").touch()
    assert find_config("base") == find_config("base.yaml") == str(Path("configs/base.yaml"))
    assert find_config("mine") == str(Path("configs/mine.yaml"))
    Path("base").touch()
    assert find_config("base") == "base"
    assert "mine" in known_configs()
    assert known_configs() == sorted({*known_configs()})


@pytest.mark.parametrize(
    "value", ["s3://bucket/config.yaml", "{trainer: {max_epochs: 1}}", "trainer:\n  x: 1", "-", f"{{{300 * 'x'}: 1}}"]
)
def test_what_is_no_name_is_left_alone(value):
    assert find_config(value) == value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("attribution", r"no config 'attribution': no such file in this folder, and .* Did you mean 'attributions'\?"),
        ("diggits.yaml", r"no config 'diggits\.yaml': no such file in this folder, and .* Did you mean 'digits'\?"),
        ("nope.yaml", r"no config 'nope\.yaml': no such file in this folder, and no such name\. Known by name: "),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_with_all(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words) as error:
        find_config(name)
    assert all(name in str(error.value) for name in known_configs())


def test_a_file_of_this_folder_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("seed_everything: 1\n")
    assert find_config("own") == "own.yaml"
