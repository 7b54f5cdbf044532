"""A teacher: its outputs, its explanations, its cache, and what it cannot be called with."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from refusals import refused
from taught import Conv, Module, Record, data, fit, kd, learn, loader, mlp
from torch import nn
from torch.utils.data import DataLoader

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning
from lit_xai.distillation.output_cache import OutputCache
from lit_xai.distillation.teacher import Teacher, locate
from lit_xai.network.recording import Call
from lit_xai.structure.recipe import dense_copy, recipe_of

X, Y = data().tensors


def first_loss(teacher, folder, student=None, **options):
    record, module = Record(), Module() if student is None else student
    fit(module, folder, KnowledgeDistillation(teacher, alpha=1.0, **options), record, max_epochs=1)
    return record.losses[0]


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_outputs_are_those_of_the_network(optimize, inference):
    network = Conv(norm=True, seed=2)
    network(torch.randn(64, 1, 8, 8))
    network.train()
    expected = copy.deepcopy(network).eval()
    teacher = Teacher(copy.deepcopy(network), layers={"first": "features", "second": "features"}, optimize=optimize)
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
    expected = kd(mlp().double()(X[:16].double()), mlp(24, seed=2).double()(X[:16].double()))
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


def test_compiled_once_with_and_without_optimization(monkeypatch):
    seen = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: seen.append(self))
    for optimize in (False, True):
        teacher = Teacher(mlp(), optimize=optimize, compiled=True)
        teacher.logits(Call("", (X,)))
        teacher.logits(Call("", (X,)))
    assert len(seen) == 2


# --- the cache --------------------------------------------------------------------------------------------------------


class Counts(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return self.network(x)

    def __deepcopy__(self, memo):
        copied = type(self)(copy.deepcopy(self.network, memo))
        copied.seen = self.seen
        return copied


@pytest.mark.parametrize("where", ["memory", "file"])
def test_the_cache_saves_the_teacher_and_changes_nothing(where, tmp_path):
    found = {}
    for cache in (None, "memory" if where == "memory" else str(tmp_path / "outputs.npz")):
        teacher, record = Counts(learn(mlp(24, seed=2))), Record()
        kept = KnowledgeDistillation(teacher, cache=cache)
        fit(Module(), tmp_path, kept, record, train=loader(shuffle=True), val=loader(16), max_epochs=4)
        found[cache] = teacher.seen, torch.stack(record.losses)
    (seen, losses), (cached_seen, cached) = found.values()
    torch.testing.assert_close(cached, losses, rtol=1e-6, atol=1e-6)
    # The teacher sees the only validation batch once; its samples are among those of the first epoch.
    assert len(seen) == 4 * 4 + 1
    assert len(cached_seen) == 4
    if where == "file":
        teacher, record = Counts(learn(mlp(24, seed=2))), Record()
        kept = KnowledgeDistillation(teacher, cache=str(tmp_path / "outputs.npz"))
        fit(Module(), tmp_path, kept, record, train=loader(shuffle=True), val=loader(16), max_epochs=4)
        torch.testing.assert_close(torch.stack(record.losses), losses, rtol=1e-6, atol=1e-6)
        assert teacher.seen == []


def test_newly_augmented_samples_run_again(tmp_path):
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


def test_a_batch_that_is_partly_cached_runs_as_a_whole():
    network = Counts(mlp())
    teacher = Teacher(network, optimize=False)
    teacher.cache = OutputCache(teacher.hash)
    teacher.logits(Call("", (X[:8],)))
    found = teacher.logits(Call("", (X[4:12],)))
    torch.testing.assert_close(found, network.network(X[4:12]))
    teacher.logits(Call("", (X[:12],)))
    assert network.seen == [8, 8]


# --- another form in evaluation ---------------------------------------------------------------------------------------


class Scored(nn.Module):
    """Maps in training, scores in evaluation mode."""

    def __init__(self, seed=0):
        super().__init__()
        self.body = Conv(norm=True, seed=seed)
        self.drop = nn.Dropout()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        maps = self.drop(self.body(x))
        if not self.training:
            return {"score": maps.amax(1)}
        self.seen += 1
        return {"maps": maps}


class Scoring(Module):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0])["maps"], batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("score", self(batch[0])["score"].mean())


@pytest.mark.parametrize("options", [{}, {"optimize_teacher": False}, {"cache": "memory"}])
def test_a_teacher_with_another_form_in_evaluation_runs_the_code_of_training(options, tmp_path, caplog):
    teacher = Scored(seed=2)
    teacher(torch.randn(64, 1, 8, 8))
    before = copy.deepcopy(teacher.state_dict())
    kept, record, student = KnowledgeDistillation(teacher, alpha=1.0, **options), Record(), Scoring(Scored())
    with caplog.at_level("INFO"):
        fit(student, tmp_path, kept, record, val=loader(16))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    told = [line for line in caplog.messages if "its own code runs as in training" in line]
    assert len(told) == 1
    assert ("not cached" in told[0]) == ("cache" in options)


@pytest.mark.parametrize("teacher", ["ema", "dense"])
def test_averages_and_dense_networks_with_another_form_in_evaluation_teach(teacher, tmp_path):
    pruning = StructuredPruning(0.25, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    others = [pruning] if teacher == "dense" else []
    found = []
    for alpha in (0.0, 0.5):
        record = Record()
        callbacks = [KnowledgeDistillation(teacher, alpha=alpha)] if alpha else []
        fit(Scoring(Scored()), tmp_path, *callbacks, *copy.deepcopy(others), record, val=loader(16))
        found.append(torch.stack(record.losses))
    assert not torch.equal(*found)


def test_logits_by_the_code_of_training_are_those_of_the_layers_in_evaluation():
    network = Scored(seed=2)
    network(torch.randn(64, 1, 8, 8))
    expected = copy.deepcopy(network).eval().body(X[:8])
    teacher, call = Teacher(network, output="maps", optimize=False), Call("", (X[:8],))
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):
        found = teacher.suited(call, torch.zeros(8, 10), lambda: teacher.outputs(call))
        torch.testing.assert_close(found.logits, expected, rtol=1e-5, atol=1e-6)
    assert teacher.has_training_code
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())
    other = Teacher(Scored(seed=2), output="maps", optimize=False)
    with refused("teacher", "score"):  # the first error stands
        other.suited(call, torch.zeros(8, 7), lambda: other.outputs(call))
    assert not other.has_training_code


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
