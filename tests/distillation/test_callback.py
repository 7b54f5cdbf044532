"""Distillation in a real Trainer: the terms that it adds to the loss, and everything that it leaves alone."""

import copy
import pickle
from functools import partial

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from taught import OURS, Conv, Module, Record, assert_equal, data, fit, kd, learn, loader, mlp
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from witness import Witness, module_state, rng_state

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning
from lit_xai.models import MLP, Regressor

Plain = partial(KnowledgeDistillation, optimize_teacher=False)


class Forbidden(nn.Sequential):
    def forward(self, x):
        raise AssertionError("the teacher was called")


# --- what stays as it was ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0, 0.0, [0.0, 0.0]])
def test_alpha_0_is_no_callback(alpha, tmp_path):
    seen = []
    for callbacks in ([], [KnowledgeDistillation(Forbidden(*mlp()), alpha=alpha)]):
        witness = Witness()
        fit(Module(mlp(dropout=0.3)), tmp_path, *callbacks, witness, train=loader(shuffle=True), val=loader(16))
        seen.append(witness.seen())
    assert seen[0] == seen[1]


def make_checkpoint(folder, module):
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=folder)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "teacher.ckpt")
    return str(folder / "teacher.ckpt")


class Draws(Callback):
    def __init__(self):
        self.batches, self.states = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch[0].sum().item())

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(rng_state()["torch"])


@pytest.mark.parametrize("kind", ["instance", "path", "ema", "adapters", "explained"])
def test_it_draws_no_random_number(kind, tmp_path):
    teacher = learn(mlp(24, seed=3))
    callbacks = {
        "instance": lambda: KnowledgeDistillation(mlp(24, dropout=0.5)),
        "path": lambda: KnowledgeDistillation(make_checkpoint(tmp_path, Module(mlp(dropout=0.3, seed=5)))),
        "ema": lambda: KnowledgeDistillation("ema"),
        "adapters": lambda: KnowledgeDistillation(teacher, features=["1"]),
        "explained": lambda: KnowledgeDistillation(teacher, explanation=ExplanationMatching()),
    }
    seen = []
    for added in ([], [callbacks[kind]()]):
        draws = Draws()
        fit(Module(mlp(dropout=0.3)), tmp_path, *added, draws, train=loader(shuffle=True))
        seen.append(draws)
    assert seen[0].batches == seen[1].batches
    assert all(map(torch.equal, seen[0].states, seen[1].states))


class Broken(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3 and self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, RuntimeError("stop"), KeyboardInterrupt()])
@pytest.mark.parametrize("teacher", ["ema", "instance"])
def test_nothing_stays_on_the_module(teacher, error, tmp_path):
    module, plain = Module(Conv()), Module(Conv())
    fit(plain, tmp_path, val=loader(16))  # Lightning leaves attributes of its own
    kept = KnowledgeDistillation(
        Conv(seed=1) if teacher == "instance" else teacher,
        features=["first"],
        explanation=ExplanationMatching("grad_cam", layers=["second"]),
    )
    try:
        fit(module, tmp_path, kept, Broken(error), val=loader(16))
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        assert error is not None
    after, expected = module_state(module), module_state(plain)
    assert not any(set(vars(part)) & OURS for part in module.modules())
    assert all(after[key] == expected[key] for key in ("hooks", "attributes", "modes", "requires_grad"))
    assert isinstance(pickle.loads(pickle.dumps(module.network)), Conv)


def test_copies_and_pickles_made_while_training_are_clean(tmp_path):
    made = []

    class Copy(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            kept, pl_module._trainer = pl_module._trainer, None
            made.extend([copy.deepcopy(pl_module), pickle.loads(pickle.dumps(pl_module))])
            pl_module._trainer = kept

    module = Module()
    fit(module, tmp_path, KnowledgeDistillation(mlp(24)), Copy(), max_epochs=1, limit_train_batches=1)
    for copied in made:
        assert not set(vars(copied)) & OURS
        assert_equal(copied.state_dict(), module.state_dict())
        loss = copied.training_step(next(iter(loader())), 0)
        assert loss.item() == F.cross_entropy(copied(data().tensors[0][:16]), data().tensors[1][:16]).item()


def test_the_teacher_that_was_given_stays_as_it_is(tmp_path):
    teacher = Module(Conv(norm=True))
    teacher.network.norm.eval()
    teacher.network.head.requires_grad_(False)
    before = module_state(teacher)
    fit(
        Module(Conv()),
        tmp_path,
        KnowledgeDistillation(teacher, features=["second"], explanation=ExplanationMatching()),
    )
    after = module_state(teacher)
    for key in ("weights", "buffers"):
        assert_equal(after[key], before[key])
    assert all(after[key] == before[key] for key in before if key not in ("weights", "buffers"))


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [mlp, Conv, lambda: MLP(64, (16,), 10)], ids=["mlp", "conv", "MLP"])
def test_an_identical_teacher_teaches_nothing(network, tmp_path):
    module, record = Module(network()), Record()
    fit(module, tmp_path, Plain(module, alpha=1.0), record)
    assert record.losses[0] == 0
    assert all(loss.abs() < 1e-6 for loss in record.losses)  # probabilities add up to 1 up to rounding
    assert all(value.abs().max() < 1e-6 for gradients in record.gradients for value in gradients.values())


def test_an_identical_teacher_with_norm_folded_and_channels_last_teaches_next_to_nothing(tmp_path):
    network = Conv(norm=True)
    with torch.no_grad():
        network(torch.randn(32, 1, 8, 8))  # statistics of its own
    module, record = Module(network.eval()), Record()
    with pytest.warns(UserWarning, match="eval mode"):
        fit(module, tmp_path, KnowledgeDistillation(module, alpha=1.0), record)
    assert all(loss.abs() < 1e-6 for loss in record.losses)
    assert all(value.abs().max() < 1e-6 for gradients in record.gradients for value in gradients.values())


def decoupled(student, teacher, target, temperature, beta=8.0):
    """Of Zhao et al., with probabilities rather than masked logits."""
    p, q = F.softmax(teacher / temperature, 1), F.softmax(student / temperature, 1)
    rows = torch.arange(len(target))
    pt, qt = p[rows, target], q[rows, target]
    among_two = pt * (pt / qt).log() + (1 - pt) * ((1 - pt) / (1 - qt)).log()
    others = torch.ones_like(p).scatter(1, target[:, None], 0).bool()
    po, qo = p / (1 - pt)[:, None], q / (1 - qt)[:, None]
    among_others = torch.where(others, po * (po / qo).log(), 0).sum(1)
    return (among_two + beta * among_others).mean() * temperature**2


def input_times_gradient(network, x, target):
    x = x.clone().requires_grad_()
    chosen = network(x).gather(1, target[:, None]).sum()
    return x * torch.autograd.grad(chosen, x, create_graph=True)[0]


def explained(student, teacher, x):
    top = teacher(x).argmax(1)
    pair = (input_times_gradient(network, x, top).flatten(1) for network in (student, teacher))
    return 1 - F.cosine_similarity(*pair).mean()


def cam(network, x, target):
    features = network.second(F.relu(network.norm(network.first(x))))
    logits = network.head(F.relu(features).mean((2, 3)))
    chosen = logits.gather(1, target[:, None]).sum()
    weights = torch.autograd.grad(chosen, features, create_graph=True)[0].mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()


def cams(student, teacher, x):
    top = teacher(x).argmax(1)
    return 1 - F.cosine_similarity(*(cam(network, x, top).flatten(1) for network in (student, teacher))).mean()


def attention(features):
    return F.normalize(features.square().mean(1).flatten(1))


def hints(student, teacher, x):
    first = student.first(x), teacher.first(x)
    second = student.second(F.relu(first[0])), teacher.second(F.relu(first[1]))
    return (F.mse_loss(*first) + F.mse_loss(*second)) / 2


CASES = {
    "kd": (
        mlp,
        {"alpha": 0.7, "temperature": 3.0},
        lambda s, t, x, y: 0.3 * F.cross_entropy(s(x), y) + 0.7 * kd(s(x), t(x), 3.0),
    ),
    "dkd": (
        mlp,
        {"alpha": 0.5, "temperature": 2.0, "loss": "decoupled_kl_divergence", "loss_args": {"nontarget_weight": 3.0}},
        lambda s, t, x, y: 0.5 * F.cross_entropy(s(x), y) + 0.5 * decoupled(s(x), t(x), y, 2.0, 3.0),
    ),
    "l1": (
        mlp,
        {"alpha": 0.5, "loss": "l1"},
        lambda s, t, x, y: 0.5 * F.cross_entropy(s(x), y) + 0.5 * F.l1_loss(s(x), t(x)),
    ),
    "a function": (
        mlp,
        {"alpha": 0.5, "loss": "torch.nn.functional.mse_loss"},
        lambda s, t, x, y: 0.5 * F.cross_entropy(s(x), y) + 0.5 * F.mse_loss(s(x), t(x)),
    ),
    "hint": (
        Conv,
        {"alpha": 0.0, "features": ["first", "second"], "feature_weight": 2.0},
        lambda s, t, x, y: F.cross_entropy(s(x), y) + 2 * hints(s, t, x),
    ),
    "attention": (
        Conv,
        {"alpha": 0.9, "features": {"network.first": "first"}, "feature_loss": "attention_transfer"},
        lambda s, t, x, y: (
            0.1 * F.cross_entropy(s(x), y)
            + 0.9 * kd(s(x), t(x))
            + F.mse_loss(attention(s.first(x)), attention(t.first(x)))
        ),
    ),
    "input x gradient": (
        mlp,
        {"alpha": 0.25, "explanation": ExplanationMatching(weight=3.0)},
        lambda s, t, x, y: 0.75 * F.cross_entropy(s(x), y) + 0.25 * kd(s(x), t(x)) + 3 * explained(s, t, x),
    ),
    "grad_cam": (
        Conv,
        {"alpha": 0.0, "explanation": ExplanationMatching("grad_cam", layers=["second"])},
        lambda s, t, x, y: F.cross_entropy(s(x), y) + cams(s, t, x),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_and_its_gradient_are_the_formula(case, tmp_path):
    make, options, formula = CASES[case]
    teacher = make(seed=2)

    class Check(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            student = copy.deepcopy(pl_module.network)
            self.loss = formula(student, copy.deepcopy(teacher), *batch)
            self.gradients = torch.autograd.grad(self.loss, list(student.parameters()), allow_unused=True)

        def on_after_backward(self, trainer, pl_module):
            for found, expected in zip(pl_module.network.parameters(), self.gradients, strict=True):
                expected = torch.zeros_like(found) if expected is None else expected
                torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-6)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"], self.loss.detach(), rtol=1e-5, atol=1e-6)

    fit(Module(make(seed=1)), tmp_path, KnowledgeDistillation(teacher, **options), Check())


def test_regression(tmp_path):
    teacher, student, record = mlp(24, seed=2, classes=2), mlp(classes=2), Record()
    expected, (x, _) = copy.deepcopy(student), data().tensors
    y = torch.randn(64, 2, generator=torch.Generator().manual_seed(5))
    module = Regressor(student)
    train = DataLoader(TensorDataset(x, y), batch_size=64)
    fit(module, tmp_path, KnowledgeDistillation(teacher, alpha=0.5, loss="l2"), record, train=train, max_epochs=1)
    loss = 0.5 * F.mse_loss(expected(x), y) + 0.5 * F.mse_loss(expected(x), teacher(x))
    torch.testing.assert_close(record.losses[0], loss.detach())


def test_schedules_go_from_the_first_epoch_to_the_last(tmp_path):
    teacher, seen = mlp(24, seed=2), []

    class Check(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            alpha, temperature = [(0.2, 1.0), (0.5, 2.0), (0.8, 3.0)][trainer.current_epoch]
            logits = copy.deepcopy(pl_module.network)(batch[0])
            self.loss = (1 - alpha) * F.cross_entropy(logits, batch[1]) + alpha * kd(
                logits, teacher(batch[0]), temperature
            )

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"], self.loss.detach())
            seen.append(batch_idx)

    fit(Module(), tmp_path, KnowledgeDistillation(teacher, alpha=[0.2, 0.8], temperature=[1, 3]), Check(), max_epochs=3)
    assert len(seen) == 12


def test_the_parts_are_logged_and_the_formula_is_printed(tmp_path, caplog):
    logger, callback = TensorBoardLogger(tmp_path, name="tb", version=0), Record()
    explanation = ExplanationMatching(weight=0.5, every_n_steps=2)
    kept = KnowledgeDistillation(
        learn(Conv(16, seed=2)), alpha=[0.9, 0.5], temperature=2, features=["second"], explanation=explanation
    )
    with caplog.at_level("INFO"):
        fit(
            Module(Conv()),
            tmp_path,
            kept,
            callback,
            val=loader(16),
            logger=[logger, CSVLogger(tmp_path)],
            log_every_n_steps=1,
            max_epochs=3,
        )
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    scalars = {tag: events.Scalars(f"distillation/{tag}") for tag in ("task", "logits", "features", "explanation")}
    assert all(len(found) == 3 for found in scalars.values())
    assert [event.value for event in events.Scalars("distillation/alpha")] == pytest.approx([0.9, 0.7, 0.5])
    assert [event.value for event in events.Scalars("distillation/temperature")] == [2, 2, 2]
    assert len(events.Scalars("distillation/teacher_accuracy")) == 1
    steps = [event.step for event in events.Scalars("val/loss")]
    assert all([event.step for event in found] == steps for found in scalars.values())
    losses = torch.stack(callback.losses).view(3, 4).mean(1)
    for epoch, alpha in enumerate([0.9, 0.7, 0.5]):
        parts = {name: found[epoch].value for name, found in scalars.items()}
        # The explanation counts in every second step.
        total = (1 - alpha) * parts["task"] + alpha * 4 * parts["logits"] + parts["features"]
        assert losses[epoch].item() == pytest.approx(total + 0.5 * parts["explanation"] / 2, rel=1e-4)
    formulas = [message for message in caplog.messages if "loss = " in message]
    assert len(formulas) == 1
    assert (
        "(1 - alpha) · the step's loss + alpha · temperature² · kl_divergence(student, teacher) + 1 · hint(second)"
        " + 0.5 · (1 - cosine of input_x_gradient) every 2 steps, alpha [0.9, 0.5], temperature 2." in formulas[0]
    )


# --- where it hooks in ------------------------------------------------------------------------------------------------


class Dict(Module):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "more": batch_idx}


class Skips(Module):
    def training_step(self, batch, batch_idx):
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


class Twice(Module):
    """Two views, and a target that nothing goes back through."""

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            self(batch[0] + 1)
        return F.cross_entropy(self(batch[0]), batch[1]) + F.cross_entropy(self(batch[0] * 2), batch[1])


class ByPart(Module):
    """Calls the network rather than itself."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch[0]), batch[1])


class Direct(Module):
    """Layers on the module itself, functional ReLU, batches that are dicts."""

    def __init__(self):
        super().__init__(nn.Identity())
        del self.network
        self.first, self.last = (part for part in mlp() if isinstance(part, nn.Linear))

    def forward(self, image):
        return self.last(F.relu(self.first(image.flatten(1))))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"]), batch["label"])


class Late(Module):
    """Its layers are built in configure_model."""

    def __init__(self):
        super().__init__(nn.Identity())
        self.network = None

    def configure_model(self):
        self.network = mlp() if self.network is None else self.network


def dicts(batch_size=16):
    return DataLoader([{"image": x, "label": y} for x, y in data()], batch_size=batch_size)


def one(s, t, x, y):
    return 0.5 * F.cross_entropy(s(x), y) + 0.5 * kd(s(x), t(x))


def two(s, t, x, y):
    own = F.cross_entropy(s(x), y) + F.cross_entropy(s(x * 2), y)
    return 0.5 * own + 0.5 * (kd(s(x), t(x)) + kd(s(x * 2), t(x * 2))) / 2


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize(
    ("make", "formula", "options"),
    [
        (Module, one, {}),
        (Dict, one, {}),
        (Skips, one, {}),
        (Twice, two, {}),
        (ByPart, one, {}),
        (Direct, one, {"train": dicts}),
        (Late, one, {}),
        (lambda: Module(torch.compile(mlp(), backend="aot_eager")), one, {}),
        (lambda: ByPart(torch.compile(mlp(), backend="aot_eager")), one, {}),
        (lambda: compiled_in_place(ByPart()), one, {}),
        (Module, one, {"gradient_clip_val": 0.01}),
    ],
    ids=[
        "plain",
        "dict",
        "None",
        "twice",
        "part",
        "direct",
        "late",
        "compiled",
        "part compiled",
        "in place",
        "clipped",
    ],
)
def test_steps_of_every_kind(make, formula, options, tmp_path):
    torch._dynamo.reset()
    teacher, record, module = mlp(24, seed=2), Record(), make()
    student = mlp()
    options = {key: value() if callable(value) else value for key, value in options.items()}
    fit(module, tmp_path, KnowledgeDistillation(teacher, alpha=0.5), record, max_epochs=1, **options)
    x, y = (part[:16] for part in data().tensors)
    loss = formula(student, teacher, x, y)
    torch.testing.assert_close(record.losses[0], loss.detach())
    for found, expected in zip(
        record.gradients[0].values(), torch.autograd.grad(loss, list(student.parameters())), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def compiled_in_place(module):
    module.network.compile(backend="aot_eager")
    return module


@pytest.mark.parametrize("explanation", [None, ExplanationMatching()], ids=["kd", "explained"])
def test_accumulation_is_the_full_batch(explanation, tmp_path):
    ends = []
    for batch_size, n in ((16, 2), (32, 1)):
        module = Module(Conv())
        kept = KnowledgeDistillation(learn(Conv(16, seed=2)), features=["first"], explanation=explanation)
        train = loader(batch_size=batch_size)
        fit(module, tmp_path, kept, train=train, accumulate_grad_batches=n, max_epochs=3)
        ends.append(module.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
@pytest.mark.parametrize("explained", [False, True])
def test_precisions(precision, explained, tmp_path):
    first = []
    for chosen in ("32-true", precision):
        module, record = Module(Conv(norm=True)), Record()
        explanation = ExplanationMatching(weight=10.0) if explained else None
        kept = KnowledgeDistillation(Conv(norm=True, seed=2), features=["second"], explanation=explanation)
        train = loader()
        fit(module, tmp_path, kept, record, train=train, precision=chosen)
        assert all(torch.isfinite(p).all() for p in module.parameters())
        first.append(torch.cat([value.double().flatten() for value in record.gradients[0].values()]))
    assert F.cosine_similarity(*first, dim=0) > (0.999999 if precision == "64-true" else 0.97)


class Manual(Module):
    """Steps its optimizers itself."""

    def __init__(self, network=None, n=1):
        super().__init__(network)
        self.automatic_optimization, self.n = False, n

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers() if self.n > 1 else [self.optimizers()]
        loss = super().training_step(batch, batch_idx)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self):
        *first, last = self.network
        parts = [nn.Sequential(*first), last] if self.n > 1 else [self.network]
        return [torch.optim.SGD(part.parameters(), lr=self.lr, momentum=0.9) for part in parts]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_manual_optimization_learns_the_same(n, every, tmp_path):
    ends = []
    for make in (Module, partial(Manual, n=n)):
        module = make()
        steps = every if make is Module or n == 1 else every * n  # both of its optimizers' steps count
        explanation = ExplanationMatching(every_n_steps=steps)
        fit(module, tmp_path, KnowledgeDistillation(mlp(24, seed=2), explanation=explanation))
        ends.append(module.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-5, atol=1e-6)


class Adversarial(LightningModule):
    """A generator, which is distilled, and a critic."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = mlp(8, classes=4), mlp(seed=3, classes=1)
        self.critic[1] = nn.Linear(4, 16)

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        fake = self.generator(batch[0])
        critic.zero_grad()
        self.manual_backward(self.critic(fake.detach()).mean() - self.critic(batch[0][:, 0, 0, :4]).mean())
        critic.step()
        generator.zero_grad()
        self.manual_backward(-self.critic(self.generator(batch[0])).mean())
        generator.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.generator, self.critic)]


@pytest.mark.parametrize("every", [1, 2])
def test_two_networks_of_which_one_is_distilled(every, tmp_path):
    teacher, (x, _) = mlp(32, seed=9, classes=4), data().tensors

    def distance(module):
        with torch.no_grad():
            return kd(module.generator(x), teacher(x), 1.0).item()

    module = Adversarial()
    before = distance(module)
    explanation = ExplanationMatching(every_n_steps=every)
    kept = KnowledgeDistillation(teacher, alpha=0.9, temperature=1.0, module="generator", explanation=explanation)
    fit(module, tmp_path, kept, max_epochs=10)
    assert distance(module) < 0.5 * before
    with pytest.raises(Exception, match=r"trains 'generator' and 'critic' by .* with module=, one of"):
        fit(Adversarial(), tmp_path, KnowledgeDistillation(teacher))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])
def test_both_packages(package, tmp_path):
    class Theirs(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = mlp()

        forward = Module.forward
        training_step = Module.training_step
        configure_optimizers = lambda self: torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)  # noqa: E731

    ends = []
    for make, trainer in ((Theirs, package.Trainer), (Module, Trainer)):
        module = make()
        trainer(
            max_epochs=1,
            callbacks=[KnowledgeDistillation(mlp(24, seed=2))],
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        ).fit(module, loader())
        ends.append(module.state_dict())
    assert_equal(*ends)


def test_two_teachers_add_up(tmp_path):
    first, second, record = mlp(24, seed=2), MLP(64, (24,), 10), Record()
    student, (x, y) = mlp(), (part[:16] for part in data().tensors)
    callbacks = [KnowledgeDistillation(first, alpha=0.5), KnowledgeDistillation(second, alpha=0.2, temperature=1.0)]
    fit(Module(), tmp_path, *callbacks, record, max_epochs=1)
    loss = 0.8 * one(student, first, x, y) + 0.2 * kd(student(x), second(x), 1.0)
    torch.testing.assert_close(record.losses[0], loss.detach())


# --- teachers made on the way -----------------------------------------------------------------------------------------


def test_the_average_is_the_running_mean_of_the_weights(tmp_path):
    seen, decays = [], []

    class Check(Callback):
        def __init__(self):
            self.average = None

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if self.average is None:
                self.average = copy.deepcopy(pl_module.network)
            logits = copy.deepcopy(pl_module.network)(batch[0])
            self.distilled = kd(logits, self.average(batch[0]))
            self.loss = 0.1 * F.cross_entropy(logits, batch[1]) + 0.9 * self.distilled

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"], self.loss.detach(), rtol=1e-4, atol=1e-6)
            seen.append(self.distilled.item())
            decay = min(0.5, (1 + trainer.global_step) / (10 + trainer.global_step))
            with torch.no_grad():
                for average, value in zip(self.average.parameters(), pl_module.parameters(), strict=True):
                    average.copy_(decay * average + (1 - decay) * value)
            decays.append(decay)

    fit(Module(lr=1.0), tmp_path, KnowledgeDistillation("ema", ema_decay=0.5), Check(), max_epochs=4)
    assert max(decays) == 0.5
    assert max(seen) > 0.001  # there was something to tell apart


@pytest.mark.parametrize("first", ["pruning", "distillation"])
def test_dense_is_the_model_just_before_the_first_cut(first, tmp_path):
    seen = {}

    class Check(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                seen["dense"] = copy.deepcopy(pl_module.network)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            own = F.cross_entropy(copy.deepcopy(pl_module.network)(batch[0]), batch[1])
            self.loss = own
            if trainer.current_epoch >= 1:
                logits = copy.deepcopy(pl_module.network)(batch[0])
                self.loss = 0.1 * own + 0.9 * kd(logits, seen["dense"](batch[0]))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"], self.loss.detach(), rtol=1e-4, atol=1e-6)
            seen[trainer.current_epoch] = pl_module.network[1].out_features

    pruning = StructuredPruning(0.5, start_epoch=1, end_epoch=2, every_n_epochs=1, round_to=1, report_latency=False)
    kept = KnowledgeDistillation("dense")
    order = [pruning, kept] if first == "pruning" else [kept, pruning]
    fit(Module(mlp(32)), tmp_path, *order, Check(), max_epochs=4)
    assert [seen[epoch] for epoch in range(4)] == [32, 24, 16, 16]


def test_the_average_is_pruned_along(tmp_path):
    pruning = StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    module, record = Module(mlp(32)), Record()
    explanation = ExplanationMatching()
    fit(module, tmp_path, pruning, KnowledgeDistillation("ema", explanation=explanation), record, max_epochs=3)
    assert module.network[1].out_features == 16
    assert all(torch.isfinite(loss) for loss in record.losses)
