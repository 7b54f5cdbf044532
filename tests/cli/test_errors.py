import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_xai.cli.errors import is_users_own, setup_sentence
from lit_xai.models import ResNet


def caught(call):
    try:
        call()
    except Exception as error:
        # The frames of this file are a user's; those below them are what the rules are about.
        return error.with_traceback(error.__traceback__.tb_next.tb_next)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ResNet(depth=9), "depth expected 6n + 2"),
        (lambda: Trainer(accelerator="gpuu"), "invalid accelerator name"),
        (lambda: EarlyStopping("x", mode="up"), "`mode` can be min, max, got up"),
        (lambda: Path("no/such/file").read_text(), "cannot use 'no/such/file': No such file or directory."),
    ],
)
def test_what_is_written_for_users_is_one_sentence(call, words):
    sentence = setup_sentence(caught(call))
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "call",
    [
        lambda: json.dumps(object()),  # a TypeError of the standard library
        lambda: exec(compile("raise ValueError('mine')", "/home/somebody/train.py", "exec")),
        lambda: compile("1 +", "/home/somebody/train.py", "exec"),
    ],
)
def test_what_is_not_keeps_its_traceback(call):
    assert setup_sentence(caught(call)) is None


def test_an_error_that_passed_through_the_users_file_is_the_users_own():
    error = caught(lambda: exec(compile("import json; json.loads('{')", "/home/somebody/train.py", "exec")))
    assert is_users_own(error)
    assert not is_users_own(caught(lambda: ResNet(depth=9)))


def test_from_training_on_the_traceback_stays(tmp_path, monkeypatch):
    # An error that would be one sentence before: raised in a Lightning file, of a kind that speaks to users.
    namespace = {"__name__": "lightning.pytorch.somewhere"}
    exec("def training_step(self, batch, batch_idx): raise ValueError('in the first step')", namespace)
    monkeypatch.setattr(BoringModel, "training_step", namespace["training_step"])
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(accelerator="cpu", fast_dev_run=True, enable_model_summary=False, enable_progress_bar=False)
    error = caught(lambda: trainer.fit(BoringModel()))
    assert str(error) == "in the first step"
    assert setup_sentence(error) is None
