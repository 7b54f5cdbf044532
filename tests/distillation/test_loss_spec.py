"""The protocol of losses: names, import paths, signatures and attributes, also of losses of other packages."""

import copy
import functools
import sys

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from refusals import refused
from taught import Conv, Module, Record, data, fit
from torch import nn

from lit_xai import KnowledgeDistillation
from lit_xai.distillation.loss_spec import LossSpec, resolve_loss, takes, takes_any_width
from lit_xai.distillation.losses import (
    FEATURE_LOSSES,
    LOSSES,
    attention_transfer,
    decoupled_kl_divergence,
    hint,
    kl_divergence,
    l1,
)


def test_names():
    assert all(resolve_loss(name, "loss", LOSSES) is function for name, function in LOSSES.items())
    assert resolve_loss("torch.nn.functional.mse_loss", "loss", LOSSES) is F.mse_loss
    assert resolve_loss("lit_xai.distillation.losses.hint", "loss", FEATURE_LOSSES) is hint
    module = nn.MSELoss()
    assert resolve_loss(module, "loss", LOSSES) is module


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("kl_divergance", "but got 'kl_divergance'. Did you mean 'kl_divergence'"),
        ("zzz", "loss expected a function, its import path, or one of kl_divergence, .*, huber, but got 'zzz'.$"),
        ("hint", "one of kl_divergence, decoupled_kl_divergence, l1, l2, huber, but got 'hint'"),
        ("torch.nn.functional.mse_lost", "loss='torch.nn.functional.mse_lost': .* Did you mean 'mse_loss'"),
        ("nowhere.at_all", "loss expected an import path"),
        ("math.pi", "but got 'math.pi', which is of type float.$"),
        ("sys.path", "but got 'sys.path', which is of type list.$"),
        (3, "but got 3"),
        (None, "but got None"),
        ("torch.nn.MSELoss", "but got the class MSELoss: give an instance"),
    ],
)
def test_no_such_loss(loss, message):
    with pytest.raises(ValueError, match=message):
        resolve_loss(loss, "loss", LOSSES)


class Weighted(nn.Module):
    def forward(self, student, teacher, temperature):
        return (student - teacher).sum() * temperature


class Callable:
    def __call__(self, student, teacher, *, target):
        return target


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (kl_divergence, ["temperature"]),
        (decoupled_kl_divergence, ["temperature", "target"]),
        (l1, []),
        (functools.partial(kl_divergence, temperature=4.0), []),
        (functools.partial(decoupled_kl_divergence, temperature=4.0), ["target"]),
        (functools.partial(functools.partial(decoupled_kl_divergence, temperature=4.0), target_weight=2.0), ["target"]),
        (F.mse_loss, []),
        (nn.MSELoss(), []),
        (nn.KLDivLoss(reduction="batchmean"), []),
        (Weighted(), ["temperature"]),
        (Callable(), ["target"]),
        (lambda student, teacher, **options: 0, ["temperature", "target"]),
        (lambda *both: 0, []),
        (torch.dist, []),
        (min, []),
    ],
)
def test_takes(function, expected):
    assert [name for name in ("temperature", "target") if takes(function, name)] == expected


def test_a_partial_with_attributes_hides_nothing_of_the_one_inside():
    inner = functools.partial(kl_divergence, temperature=4.0)
    inner.note = "Python does not flatten this one"
    assert not takes(functools.partial(inner, class_dim=-1), "temperature")


def similarity(student, teacher, *, power=1.0):
    pair = (F.normalize(layer.flatten(1)) for layer in (student, teacher))
    return F.mse_loss(*((rows @ rows.T).abs() ** power for rows in pair))


similarity.any_width = True


class Similarity(nn.Module):
    any_width = True

    def forward(self, student, teacher):
        return similarity(student, teacher)


@functools.wraps(similarity)
def decorated(*args, **kwargs):
    return similarity(*args, **kwargs)


def marked(loss):
    loss.any_width = True
    return loss


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (hint, False),
        (attention_transfer, True),
        (functools.partial(attention_transfer, channel_dim=-1), True),
        (functools.partial(functools.partial(attention_transfer), channel_dim=-1), True),
        (functools.partial(marked(functools.partial(hint))), True),
        (resolve_loss("lit_xai.distillation.losses.attention_transfer", "feature_loss", FEATURE_LOSSES), True),
        (similarity, True),
        (decorated, True),
        (Similarity(), True),
        (functools.partial(Similarity()), True),
        (nn.MSELoss(), False),
        (lambda student, teacher: 0, False),
    ],
)
def test_any_width(function, expected):
    assert takes_any_width(function) is expected


def trained(folder, student, teacher, **options):
    """Fit for an epoch; return the callback and the losses."""
    kept, record = KnowledgeDistillation(teacher, alpha=0.0, features=["first"], **options), Record()
    fit(Module(student), folder, kept, record, max_epochs=1)
    return kept, torch.stack(record.losses)


class Tokens(nn.Module):
    """``(N, 1, 8, 8)`` to 10 classes, with a layer of tokens ``(N, L, C)``."""

    def __init__(self, width, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.head = nn.Linear(8, width), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.first(x[:, 0]).relu().mean(1))


@pytest.mark.parametrize(
    "options",
    [
        {"feature_loss": functools.partial(attention_transfer, channel_dim=-1)},
        {"feature_loss": "attention_transfer", "feature_loss_args": {"channel_dim": -1}},
        {
            "feature_loss": "lit_xai.distillation.losses.attention_transfer",
            "feature_loss_args": {"channel_dim": -1},
        },
    ],
    ids=["partial", "name", "import path"],
)
def test_attention_transfer_with_arguments_trains_no_adapter(options, tmp_path):
    student, teacher, batch = Tokens(6, 1), Tokens(12, 2), data().tensors
    x, y = (part[:16] for part in batch)
    first = [network.first(x[:, 0]) for network in (student, teacher)]
    expected = F.cross_entropy(student(x), y) + attention_transfer(*first, channel_dim=-1)
    kept, losses = trained(tmp_path, student, teacher, **options)
    assert list(kept._adapters.parameters()) == []
    torch.testing.assert_close(losses[0], expected.detach())


def test_arguments_of_a_feature_loss_reach_it(tmp_path):
    found = [
        trained(tmp_path, Conv(8), Conv(8, seed=2), feature_loss="torch.nn.functional.huber_loss", **options)[1]
        for options in ({}, {"feature_loss_args": {"delta": 0.01}})
    ]
    x, y = (part[:16] for part in data().tensors)
    for losses, delta in zip(found, (1.0, 0.01), strict=True):
        student, teacher = Conv(8), Conv(8, seed=2)
        expected = F.cross_entropy(student(x), y) + F.huber_loss(student.first(x), teacher.first(x), delta=delta)
        torch.testing.assert_close(losses[0], expected.detach())


MY_LOSS = '''
"""Similarity-preserving distillation, Tung and Mori 2019, https://arxiv.org/abs/1907.09682."""

from torch.nn.functional import mse_loss, normalize


def my_loss(student, teacher, *, power=1.0):
    pair = (normalize(layer.flatten(1)) for layer in (student, teacher))
    return mse_loss(*((rows @ rows.T).abs() ** power for rows in pair))


my_loss.any_width = True
'''


def test_a_feature_loss_of_ones_own_is_one_short_file(tmp_path, monkeypatch):
    """The file imports nothing of lit_xai, and the loss trains layers of different widths without an adapter."""
    (tmp_path / "own_losses.py").write_text(MY_LOSS)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(MY_LOSS.splitlines()) <= 60
    student, teacher = Conv(8), Conv(12, seed=2)

    class Check(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            network = copy.deepcopy(pl_module.network)
            term = similarity(network.first(batch[0]), teacher.first(batch[0]), power=2.0)
            self.loss = F.cross_entropy(network(batch[0]), batch[1]) + 3 * term
            self.gradients = torch.autograd.grad(self.loss, list(network.parameters()))

        def on_after_backward(self, trainer, pl_module):
            for parameter, expected in zip(pl_module.network.parameters(), self.gradients, strict=True):
                torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"], self.loss.detach(), rtol=1e-5, atol=1e-6)

    kept = KnowledgeDistillation(
        teacher,
        alpha=0.0,
        features=["first"],
        feature_loss="own_losses.my_loss",
        feature_loss_args={"power": 2.0},
        feature_weight=3.0,
    )
    fit(Module(student), tmp_path, kept, Check())
    assert list(kept._adapters.parameters()) == []


def test_a_loss_on_logits_of_ones_own_has_a_temperature_and_labels(tmp_path, monkeypatch):
    (tmp_path / "own_logit_losses.py").write_text(
        "def weighted(student, teacher, target, *, temperature, power=1):\n"
        "    rows = (student - teacher).abs().pow(power).mean(1) / temperature\n"
        "    return (rows * (target + 1)).mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    student, teacher, record = Conv(8), Conv(8, seed=2), Record()
    x, y = (part[:16] for part in data().tensors)
    expected = 9 * ((student(x) - teacher(x)).square().mean(1) / 3 * (y + 1)).mean()
    kept = KnowledgeDistillation(
        teacher, alpha=1.0, temperature=3.0, loss="own_logit_losses.weighted", loss_args={"power": 2}
    )
    fit(Module(student), tmp_path, kept, record, max_epochs=1)
    torch.testing.assert_close(record.losses[0], expected.detach())


def test_import_paths_of_0_1(monkeypatch):
    module = "lit_xai.functional.distillation"
    monkeypatch.delitem(sys.modules, module, raising=False)  # the first import of a run warns
    with pytest.warns(FutureWarning, match="lit_xai.functional.distillation is now lit_xai.distillation.losses"):
        kept = KnowledgeDistillation(
            "ema", loss=f"{module}.kl_divergence", features=["first"], feature_loss=f"{module}.l2"
        )
    assert kept._terms.loss.function is kl_divergence
    assert kept._terms.features.loss.name == "l2"


@pytest.mark.parametrize(
    ("loss", "args", "parts"),
    [
        ("hint", {"channel_dim": -1}, ("feature_loss_args: hint takes no 'channel_dim'",)),
        ("attention_transfer", {"student": 1}, ("feature_loss_args: attention_transfer takes no 'student'",)),
        (
            functools.partial(attention_transfer, channel_dim=-1),
            {"channel_dim": 1},
            ("feature_loss_args: attention_transfer takes no 'channel_dim'",),
        ),
    ],
)
def test_arguments_that_a_loss_does_not_take(loss, args, parts):
    with refused(*parts):
        LossSpec(loss, "feature_loss", FEATURE_LOSSES, args)
    with refused(*parts):
        KnowledgeDistillation("ema", features=["first"], feature_loss=loss, feature_loss_args=args)


def powered(student, teacher, power, *, scale=1.0):
    return scale * (student - teacher).abs().pow(power).mean()


def labelled(student, teacher, target, temperature):
    return (student - teacher).abs().mean()


@pytest.mark.parametrize(
    ("argument", "loss", "args", "parts"),
    [
        ("loss", powered, {}, ("loss_args expected 'power', which powered requires, but got {}: give it",)),
        ("feature_loss", powered, {"scale": 2.0}, ("feature_loss_args expected 'power'", "but got {'scale': 2.0}")),
        ("feature_loss", labelled, {"temperature": 1.0}, ("feature_loss_args expected 'target', which labelled",)),
        ("loss", powered, {"powr": 2}, ("loss_args: powered takes no 'powr'. Did you mean 'power'?",)),
        ("loss", lambda both: both, {}, ("loss expected a function of student and teacher", "<lambda>(both)")),
        ("loss", lambda *, student, teacher: student, {}, ("called by position, but got <lambda>(student, teacher).",)),
    ],
)
def test_calls_that_do_not_fit_are_refused_when_made(argument, loss, args, parts):
    with refused(*parts):
        LossSpec(loss, argument, {}, args)


def test_calls_that_fit():
    LossSpec(labelled, "loss", {})
    LossSpec(powered, "feature_loss", {}, {"power": 2})
    LossSpec(functools.partial(powered, power=2), "feature_loss", {})
    LossSpec(lambda *both: 0, "loss", {})
    LossSpec(torch.dist, "loss", {})


def test_a_loss_returns_one_tensor():
    spec = LossSpec(lambda student, teacher: (student - teacher).mean().item(), "feature_loss", {})
    with refused("feature_loss expected a function that returns one tensor, but <lambda> returned float", "item()"):
        spec(torch.ones(2, requires_grad=True), torch.ones(2))


def test_a_loss_that_teaches_nothing_is_one_warning(recwarn):
    spec = LossSpec(lambda student, teacher: (student.detach() - teacher).abs().mean(), "loss", {})
    student, teacher = torch.ones(2, requires_grad=True), torch.zeros(2)
    for _ in range(2):
        assert spec(student, teacher) == 1
    assert [str(one.message)[:40] for one in recwarn] == ["loss: <lambda> returned a constant, from"]
    recwarn.clear()
    another = LossSpec(spec.function, "loss", {})
    another(student.detach(), teacher)  # a layer of the student that is frozen
    with torch.no_grad():
        another(student, teacher)
    assert not recwarn.list
