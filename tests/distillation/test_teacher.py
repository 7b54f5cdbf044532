"""Teachers of every kind: their sources, their outputs, and that they stay as they are."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from refusals import refused
from taught import Conv, Module, Record, Sized, assert_equal, data, fit, kd, learn, loader, mlp
from torch import nn
from torch.utils.data import DataLoader

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning
from lit_xai.distillation.output_cache import OutputCache
from lit_xai.distillation.teacher import Teacher, locate
from lit_xai.distillation.teacher_source import read_teacher
from lit_xai.models import Classifier
from lit_xai.network.recording import Call
from lit_xai.structure.recipe import dense_copy, recipe_of

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


# --- sources --------------------------------------------------------------------------------------------------------


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
    expected = kd(copy.deepcopy(learner)(X[:16]), teacher(X[:16]), 4.0)
    torch.testing.assert_close(first_loss(str(path), tmp_path, learner, **options), expected.detach())


def test_the_class_may_be_an_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_teacher.py").write_text(
        "from taught import Sized\n\nclass Own(Sized):\n    def __init__(self, width):\n        super().__init__(width)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_teacher import Own

    teacher = Own(24)
    path = saved(teacher, tmp_path)
    expected = kd(mlp()(X[:16]), teacher(X[:16]), 4.0)
    torch.testing.assert_close(first_loss(path, tmp_path, teacher_class="own_teacher.Own"), expected.detach())


@pytest.mark.parametrize("make", [Module, partial(Sized, 16)], ids=["by copy", "by hyperparameters"])
def test_from_a_pruned_checkpoint(make, tmp_path):
    teacher = make()
    pruning = StructuredPruning(0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False)
    path = saved(teacher, tmp_path, pruning)
    assert teacher.network[1].out_features == 8
    student = type(teacher)()
    expected = kd(copy.deepcopy(student)(X[:16]), teacher(X[:16]), 4.0)
    torch.testing.assert_close(first_loss(path, tmp_path, student), expected.detach())
    read = read_teacher(path, None, type(teacher)())
    assert_equal(read.state_dict(), teacher.state_dict())


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: module.network], ids=["module", "network"])
def test_from_an_instance(wrap, tmp_path):
    teacher = wrap(Module(mlp(24, seed=3)))
    expected = kd(mlp()(X[:16]), teacher(X[:16]), 4.0)
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
            ("as Module", "size mismatch"),
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
        (Sized, ("cannot be loaded as Sized", "teacher_class=")),
        ("taught.Szied", ("teacher_class='taught.Szied'", "Did you mean 'Sized'")),
        ("no.such.Thing", ("teacher_class expected an import path",)),
    ],
)
def test_classes_that_are_refused(given, parts, tmp_path):
    with refused(*parts):
        read_teacher(saved(Deep(), tmp_path), given, Module())


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_outputs_are_those_of_the_network(optimize, inference):
    network = Conv(norm=True, seed=2)
    network(torch.randn(64, 1, 8, 8))
    network.train()
    expected = copy.deepcopy(network).eval()
    teacher = Teacher(copy.deepcopy(network), layers=["first", "second"], optimize=optimize)
    with torch.inference_mode(inference):
        x = X[:16].clone()
        outputs = teacher.outputs(Call("", (x,)), ["first", "second"])
        logits = teacher.logits(Call("", (x,)))
    torch.testing.assert_close(outputs.logits, expected(X[:16]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, outputs.logits)
    torch.testing.assert_close(outputs.layers["first"], expected.first(X[:16]), rtol=1e-5, atol=1e-6)
    assert not outputs.logits.requires_grad
    if not inference:
        (outputs.logits * torch.ones(10, requires_grad=True)).sum().backward()  # it can be part of a loss
    is_folded = not any(isinstance(part, nn.BatchNorm2d) for part in teacher.network.modules())
    assert not is_folded  # a layer whose output is recorded stays as it is
    again = Teacher(copy.deepcopy(network), optimize=optimize)
    again.logits(Call("", (X[:16],)))
    assert isinstance(again.network.norm, nn.Identity) == optimize


def test_folding_is_no_slower_and_equal(tmp_path):
    network = Conv(norm=True, seed=2)
    network(torch.randn(64, 1, 8, 8))
    found = [Teacher(copy.deepcopy(network), optimize=optimize).logits(Call("", (X,))) for optimize in (False, True)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_its_explanation_is_of_its_top_class():
    network = Conv(seed=2)
    teacher = Teacher(copy.deepcopy(network), optimize=False)
    outputs = teacher.explain(Call("", (X[:8],)), ExplanationMatching(), ["first"])
    x = X[:8].clone().requires_grad_()
    logits = network(x)
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), x)
    assert torch.equal(outputs.top_class, logits.argmax(1))
    torch.testing.assert_close(outputs.attribution[0], x.detach() * gradient)
    torch.testing.assert_close(outputs.layers["first"], network.first(X[:8]))
    assert not outputs.logits.requires_grad
    assert all(p.grad is None for p in teacher.network.parameters())


def test_inputs_inside_a_dict():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp(seed=2)

        def forward(self, batch, scale=None):
            return self.inner(batch["image"]) * scale["by"]

    network = Nested()
    call = Call("", ({"image": X[:8].double()},), {"scale": {"by": torch.tensor(2.0)}})
    outputs = Teacher(copy.deepcopy(network)).explain(call, ExplanationMatching())
    torch.testing.assert_close(outputs.logits, network.inner(X[:8]) * 2)
    assert outputs.attribution[0].shape == (8, 1, 8, 8)


def test_the_precision_of_the_student(tmp_path):
    class Check(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            (kept,) = (one for one in trainer.callbacks if isinstance(one, KnowledgeDistillation))
            assert {p.dtype for p in kept._source.teacher.network.parameters()} == {torch.float64}

    record = Record()
    kept = KnowledgeDistillation(mlp(24, seed=2), alpha=1.0)
    fit(Module(), tmp_path, kept, Check(), record, precision="64-true", max_epochs=1)
    expected = kd(mlp().double()(X[:16].double()), mlp(24, seed=2).double()(X[:16].double()), 4.0)
    torch.testing.assert_close(record.losses[0], expected.detach())


def test_layers_are_named_from_either_side():
    root = Module(Conv())
    assert locate(root, "first", "teacher") == locate(root, "network.first", "teacher") == "network.first"
    assert locate(root.network, "network.first", "teacher") == "first"
    with refused("'frist' names no layer of the teacher Module", "first"):
        locate(root, "frist", "teacher")


def test_a_dense_copy_has_room_for_what_was_cut(tmp_path):
    module = Module(mlp(16))
    fit(
        module,
        tmp_path,
        StructuredPruning(0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False),
        max_epochs=1,
    )
    dense = dense_copy(module)
    assert (module.network[1].out_features, dense.network[1].out_features) == (8, 16)
    assert len(recipe_of(module).steps) == 1


@pytest.mark.slow  # it compiles C++
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler about itself
@pytest.mark.parametrize("optimize", [False, True])
def test_compiled(optimize, tmp_path):
    options = {"optimize_teacher": optimize, "explanation": ExplanationMatching()}
    compiled, plain = (
        first_loss(Conv(16, norm=True, seed=2), tmp_path, Module(Conv()), compile_teacher=compiled, **options)
        for compiled in (True, False)
    )
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_compiling_happens_whatever_else_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: asked.append(self))
    for optimize in (False, True):
        teacher = Teacher(mlp(), optimize=optimize, compiled=True)
        teacher.logits(Call("", (X,)))
        teacher.logits(Call("", (X,)))
    assert len(asked) == 2


# --- the cache --------------------------------------------------------------------------------------------------------


class Counts(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.asked = []

    def forward(self, x):
        self.asked.append(len(x))
        return self.network(x)

    def __deepcopy__(self, memo):
        copied = type(self)(copy.deepcopy(self.network, memo))
        copied.asked = self.asked
        return copied


@pytest.mark.parametrize("where", ["memory", "file"])
def test_the_cache_saves_the_teacher_and_changes_nothing(where, tmp_path):
    found = {}
    for cache in (None, "memory" if where == "memory" else str(tmp_path / "outputs.npz")):
        teacher, record = Counts(learn(mlp(24, seed=2))), Record()
        kept = KnowledgeDistillation(teacher, cache=cache)
        fit(Module(), tmp_path, kept, record, train=loader(shuffle=True), val=loader(16), max_epochs=4)
        found[cache] = teacher.asked, torch.stack(record.losses)
    (asked, losses), (cached_asked, cached) = found.values()
    torch.testing.assert_close(cached, losses, rtol=1e-6, atol=1e-6)
    # The validation's one batch is asked of the teacher once; its samples are among those of the first epoch.
    assert len(asked) == 4 * 4 + 1
    assert len(cached_asked) == 4
    if where == "file":
        teacher, record = Counts(learn(mlp(24, seed=2))), Record()
        kept = KnowledgeDistillation(teacher, cache=str(tmp_path / "outputs.npz"))
        fit(Module(), tmp_path, kept, record, train=loader(shuffle=True), val=loader(16), max_epochs=4)
        torch.testing.assert_close(torch.stack(record.losses), losses, rtol=1e-6, atol=1e-6)
        assert teacher.asked == []


def test_samples_augmented_anew_are_asked_again(tmp_path):
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, index):
            return X[index] + 0.1 * torch.randn(1, 8, 8), Y[index]

    losses = []
    for cache in (None, "memory"):
        record = Record()
        kept = KnowledgeDistillation(mlp(24, seed=2), cache=cache)
        fit(Module(), tmp_path, kept, record, train=DataLoader(Noisy(), batch_size=8), max_epochs=3)
        losses.append(torch.stack(record.losses))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)


def test_the_cache_of_another_teacher_is_refused(tmp_path):
    path = tmp_path / "outputs.npz"
    fit(Module(), tmp_path, KnowledgeDistillation(mlp(24, seed=2), cache=str(path)))
    before = path.read_bytes()
    with refused(f"cache='{path}' holds outputs of another teacher", "delete it"):
        fit(Module(), tmp_path, KnowledgeDistillation(mlp(24, seed=3), cache=str(path)))
    assert path.read_bytes() == before
    path.write_bytes(before[:100])
    with refused(f"cache='{path}'", "damaged"):
        fit(Module(), tmp_path, KnowledgeDistillation(mlp(24, seed=2), cache=str(path)))


def test_a_batch_that_is_partly_known_is_asked_whole():
    network = Counts(mlp())
    teacher = Teacher(network, optimize=False)
    teacher.cache = OutputCache(teacher.hash)
    teacher.logits(Call("", (X[:8],)))
    found = teacher.logits(Call("", (X[4:12],)))
    torch.testing.assert_close(found, network.network(X[4:12]))
    teacher.logits(Call("", (X[:12],)))
    assert network.asked == [8, 8]


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_a_teacher_that_cannot_be_called_like_the_student_is_refused(tmp_path):
    class ByName(Module):
        def forward(self, image):
            return self.network(image)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(image=batch[0]), batch[1])

    with pytest.raises(ValueError, match=r"teacher Sequential cannot be called like the student, with \(image=\)"):
        fit(ByName(), tmp_path, KnowledgeDistillation(mlp(24)))
    fit(ByName(), tmp_path, KnowledgeDistillation(ByName(mlp(24))))
