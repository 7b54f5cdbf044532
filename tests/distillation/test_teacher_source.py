"""Sources of teachers: checkpoints of every kind, modules, and files that are refused."""

import copy
from functools import partial

import pytest
import torch
from refusals import refused
from taught import Module, Record, Sized, assert_equal, data, fit, kd, mlp
from torch import nn

from lit_xai import KnowledgeDistillation, StructuredPruning
from lit_xai.distillation.teacher_source import read_teacher
from lit_xai.models import Classifier
from lit_xai.network.recording import Call

X, Y = data().tensors


class Deep(Module):
    """Another class than the student's, without hyperparameters."""

    def __init__(self):
        super().__init__(nn.Sequential(*mlp(20, seed=4)[:-1], nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 10)))


class Arguments(Sized):
    """Cannot be built without its argument, which its checkpoint holds."""

    def __init__(self, width):
        super().__init__(width)


def saved(module, folder, *callbacks, name="teacher.ckpt", **options):
    fit(module, folder, *callbacks, **{"max_epochs": 1} | options).save_checkpoint(folder / name)
    return folder / name


def first_loss(teacher, folder, student=None, **options):
    record, module = Record(), Module() if student is None else student
    fit(module, folder, KnowledgeDistillation(teacher, alpha=1.0, **options), record, max_epochs=1)
    return record.losses[0]


@pytest.mark.parametrize(
    ("make", "student", "options"),
    [
        (Module, Module, {}),  # its own class, which does not say how it is built
        (partial(Sized, 24), Sized, {}),  # its own class, which does
        (partial(Arguments, 24), partial(Arguments, 8), {}),
        (Deep, Module, {"teacher_class": Deep}),
        (partial(Arguments, 24), Module, {"teacher_class": Arguments}),
        (partial(Classifier, mlp(seed=3), 10), partial(Classifier, mlp(), 10), {}),
    ],
    ids=["own", "own with hyperparameters", "own with arguments", "another", "another with arguments", "Classifier"],
)
def test_from_a_checkpoint(make, student, options, tmp_path):
    teacher = make()
    path = saved(teacher, tmp_path)
    learner = student()
    expected = kd(copy.deepcopy(learner)(X[:16]), teacher(X[:16]))
    torch.testing.assert_close(first_loss(str(path), tmp_path, learner, **options), expected.detach())


def test_the_class_may_be_an_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_teacher.py").write_text(
        "from taught import Sized\n\nclass Own(Sized):\n    def __init__(self, width):\n        super().__init__(width)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_teacher import Own

    teacher = Own(24)
    path = saved(teacher, tmp_path)
    expected = kd(mlp()(X[:16]), teacher(X[:16]))
    torch.testing.assert_close(first_loss(path, tmp_path, teacher_class="own_teacher.Own"), expected.detach())


@pytest.mark.parametrize("make", [Module, partial(Sized, 16)], ids=["by copy", "by hyperparameters"])
def test_from_a_pruned_checkpoint(make, tmp_path):
    teacher = make()
    pruning = StructuredPruning(0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False)
    path = saved(teacher, tmp_path, pruning)
    assert teacher.network[1].out_features == 8
    student = type(teacher)()
    expected = kd(copy.deepcopy(student)(X[:16]), teacher(X[:16]))
    torch.testing.assert_close(first_loss(path, tmp_path, student), expected.detach())
    read = read_teacher(path, None, type(teacher)())
    assert_equal(read.state_dict(), teacher.state_dict())


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: module.network], ids=["module", "network"])
def test_from_an_instance(wrap, tmp_path):
    teacher = wrap(Module(mlp(24, seed=3)))
    expected = kd(mlp()(X[:16]), teacher(X[:16]))
    torch.testing.assert_close(first_loss(teacher, tmp_path), expected.detach())


def test_reading_draws_nothing_and_leaves_the_student(tmp_path):
    path, student = saved(Arguments(24), tmp_path), Arguments(8)
    before, state = copy.deepcopy(student.state_dict()), torch.get_rng_state()
    read_teacher(path, None, student)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(student.state_dict(), before)


@pytest.mark.parametrize(
    ("write", "parts"),
    [
        (lambda path: None, ("there is no file '", "teacher.ckpt'.", "Did you mean '", "teachr.ckpt'?")),
        (lambda path: path.write_bytes(b"PK\x03\x04half"), ("is damaged, or no checkpoint of a Lightning Trainer",)),
        (lambda path: path.write_bytes(b""), ("is damaged, or no checkpoint of a Lightning Trainer",)),
        (
            lambda path: torch.save({"state_dict": {}, "more": Call}, path),
            ("holds an object of lit_xai.network.recording.Call", "load it yourself and give the module"),
        ),
        (lambda path: torch.save([1, 2], path), ("is no checkpoint", "'state_dict'")),
        (lambda path: torch.save(mlp().state_dict(), path), ("is no checkpoint", "'state_dict'", "weights alone")),
        (lambda path: torch.save({"state_dict": mlp().state_dict()}, path), ("cannot be loaded as Module", "give the")),
        (
            lambda path: torch.save({"state_dict": Module(mlp(8)).state_dict()}, path),
            ("as Module", "'network.1.weight' has shape (8, 64) in the file, but (16, 64) in the model"),
        ),
    ],
    ids=["missing", "half", "empty", "objects", "list", "weights", "foreign", "other size"],
)
def test_files_that_are_refused(write, parts, tmp_path):
    (tmp_path / "teachr.ckpt").touch()
    write(tmp_path / "teacher.ckpt")
    with refused("teacher", str(tmp_path), *parts):
        read_teacher(str(tmp_path / "teacher.ckpt"), None, Module())


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (Sized, ("cannot be loaded as Sized", "teacher_class=", "Train it with lit-xai fit", "builds its network")),
        ("taught.Szied", ("teacher_class='taught.Szied'", "Did you mean 'Sized'")),
        ("no.such.Thing", ("teacher_class expected an import path",)),
    ],
)
def test_classes_that_are_refused(given, parts, tmp_path):
    with refused(*parts):
        read_teacher(saved(Deep(), tmp_path), given, Module())
