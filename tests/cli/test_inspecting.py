"""``lit-xai inspect``."""

import pytest

from lit_xai.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


def test_a_model_is_inspected_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "--config", "base", "--config", "digits"]) == 0
    said = capsys.readouterr().out
    assert "step                       the network is `Classifier`, called with Tensor[8, 1, 8, 8] float32" in said
    assert "StructuredPruning          9 layers in 6 groups can lose channels" in said
    assert "QuantizationAwareTraining  10 layers compute in integers" in said
    assert not list(tmp_path.iterdir())
    assert "inspect" in _help(capsys)


def _help(capsys):
    assert main(["--help"]) == 0
    return capsys.readouterr().out
