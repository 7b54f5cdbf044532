"""Student and teacher on the same validation data."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from taught import Module, data, fit, learn, loader, mlp
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import KnowledgeDistillation
from lit_xai.distillation.comparison import _score
from lit_xai.models import Regressor

X, Y = data().tensors


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        (torch.eye(3), torch.tensor([0, 1, 0]), ("accuracy", 2.0)),
        (torch.eye(2).view(1, 2, 2).expand(3, 2, 2), torch.tensor([[0, 1]] * 2 + [[0, 0]]), ("accuracy", 2.5)),
        (torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0]), ("mse", 5.0)),
        (torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]]), ("mse", 2.0)),
    ],
)
def test_scores(logits, target, expected):
    name, value = _score(logits, target)
    assert (name, value.item()) == expected


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(4, 3), torch.zeros(4)),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)),  # a language model's tokens
    ],
)
def test_outputs_without_a_metric_are_skipped(logits, target):
    assert _score(logits, target) is None


def metrics(folder):
    lines = (folder / "csv" / "metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    return {name: [line.split(",")[i] for line in lines[1:] if line.split(",")[i]] for i, name in enumerate(columns)}


def test_the_teachers_accuracy_is_logged_once_and_is_its_accuracy(tmp_path):
    teacher = learn(mlp(24, seed=2), steps=5)
    with torch.no_grad():
        expected = (teacher(X).argmax(1) == Y).float().mean().item()
    logger = CSVLogger(tmp_path, name="", version="csv")
    fit(
        Module(lr=1e-4),
        tmp_path,
        KnowledgeDistillation(teacher),
        val=loader(batch_size=10),
        logger=logger,
        log_every_n_steps=1,
        max_epochs=3,
    )
    (found,) = metrics(tmp_path)["distillation/teacher_accuracy"]
    assert float(found) == pytest.approx(expected)


def test_a_worse_teacher_is_warned_of_once(tmp_path):
    student = Module(learn(mlp(32)))
    with pytest.warns(UserWarning, match=r"student is ahead of its teacher, accuracy 1 against 0") as caught:
        fit(student, tmp_path, KnowledgeDistillation(mlp(24, seed=2), alpha=0.01), val=loader(16), max_epochs=4)
    assert sum("ahead of its teacher" in str(warning.message) for warning in caught) == 1


def test_numbers_are_compared_by_their_error(tmp_path):
    teacher, logger = mlp(24, seed=2, classes=1), CSVLogger(tmp_path, name="", version="csv")
    with torch.no_grad():
        y = teacher(X) + 0.1
    batches = DataLoader(TensorDataset(X, y), batch_size=16)
    kept = KnowledgeDistillation(teacher, loss="l2")
    fit(Regressor(mlp(classes=1)), tmp_path, kept, train=batches, val=batches, logger=logger, log_every_n_steps=1)
    (found,) = metrics(tmp_path)["distillation/teacher_mse"]
    assert float(found) == pytest.approx(F.mse_loss(teacher(X), y).item(), rel=1e-4)


def test_validation_without_labels_is_skipped(tmp_path):
    class Unlabelled(Module):
        def validation_step(self, batch, batch_idx):
            self(batch[0])

    fit(Unlabelled(), tmp_path, KnowledgeDistillation(mlp(24)), val=DataLoader(TensorDataset(X), batch_size=16))
