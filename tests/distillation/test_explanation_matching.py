"""The teacher's explanations as a term of the loss: against a second implementation, and that they are learned."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from refusals import refused
from taught import Conv, Module, Record, fit, kd, mlp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import ExplanationMatching, KnowledgeDistillation
from lit_xai.data import Digits
from lit_xai.models import Classifier, TextTransformer
from lit_xai.network.recording import recorded


def saliency(network, x, target):
    x = x.clone().requires_grad_()
    return x, torch.autograd.grad(network(x).gather(1, target[:, None]).sum(), x, create_graph=True)[0]


def distance(student, teacher, x):
    target = teacher(x).argmax(1)
    maps = ((a * b).flatten(1) for a, b in (saliency(network, x, target) for network in (student, teacher)))
    of_student, of_teacher = maps
    return 1 - (F.normalize(of_student) * F.normalize(of_teacher.detach())).sum(1).mean()


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_n_steps_it_is_a_term_of_the_loss(every, accumulate, tmp_path):
    teacher, seen = Conv(seed=2), []

    class Check(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            student = copy.deepcopy(pl_module.network)
            own, distilled = F.cross_entropy(student(batch[0]), batch[1]), kd(student(batch[0]), teacher(batch[0]))
            self.loss = 0.5 * own + 0.5 * distilled
            if trainer.global_step % every == 0:
                self.loss = self.loss + 2.0 * distance(student, teacher, batch[0])
                seen.append(trainer.global_step)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"] * accumulate, self.loss.detach(), rtol=1e-4, atol=1e-5)

    explanation = ExplanationMatching(weight=2.0, every_n_steps=every)
    kept = KnowledgeDistillation(teacher, alpha=0.5, explanation=explanation)
    fit(Module(Conv()), tmp_path, kept, Check(), accumulate_grad_batches=accumulate)
    assert len(set(seen)) == -(-(8 // accumulate) // every)


@pytest.mark.parametrize("method", ["input_x_gradient", "grad_cam"])
def test_an_identical_student_has_nothing_to_learn(method, tmp_path):
    module, record = Module(Conv()), Record()
    explanation = ExplanationMatching(method, layers=["first", "second"] if method == "grad_cam" else None)
    kept = KnowledgeDistillation(module, alpha=1.0, explanation=explanation, optimize_teacher=False)
    fit(module, tmp_path, kept, record)
    assert all(loss.abs() < 1e-6 for loss in record.losses)
    assert all(value.abs().max() < 1e-6 for gradients in record.gradients for value in gradients.values())


def test_the_gradient_is_right_in_float64(tmp_path):
    """By finite differences of the whole loss, in a network without kinks."""

    class Smooth(nn.Module):
        def __init__(self, width, seed):
            super().__init__()
            self.inner = mlp(width, seed)
            self.inner[2] = nn.Tanh()

        def forward(self, x):
            return self.inner(x)

    teacher, record = Smooth(12, 3), Record()
    student = Smooth(8, 1).double()
    kept = KnowledgeDistillation(teacher, alpha=0.5, explanation=ExplanationMatching(weight=3.0))
    fit(Module(Smooth(8, 1)), tmp_path, kept, record, max_epochs=1, precision="64-true")
    x, y = record.batches[0]
    teacher = teacher.double()

    def loss():
        distilled = kd(student(x), teacher(x))
        return (0.5 * F.cross_entropy(student(x), y) + 0.5 * distilled + 3 * distance(student, teacher, x)).item()

    weight = student.inner[1].weight
    for i, j in ((0, 0), (3, 17), (7, 63)):
        around = []
        for change in (1e-5, -2e-5):
            weight.data[i, j] += change
            around.append(loss())
        weight.data[i, j] += 1e-5
        found = record.gradients[0]["network.inner.1.weight"][i, j].item()
        assert found == pytest.approx((around[0] - around[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        ("input_x_gradient", None),
        ("grad_cam", ["second"]),
        ("grad_cam", {"network.second": "first"}),
        ("grad_cam", ["first", "second"]),
    ],
)
def test_layers_by_name_or_in_pairs(method, layers, tmp_path):
    record = Record()
    explanation = ExplanationMatching(method, layers=layers)
    kept = KnowledgeDistillation(Conv(12, seed=2), alpha=0.0, explanation=explanation)
    fit(Module(Conv()), tmp_path, kept, record)
    plain = Record()
    fit(Module(Conv()), tmp_path, plain)
    assert all(0.001 < with_it - without < 2 for with_it, without in zip(record.losses[:1], plain.losses, strict=False))


def test_activations_may_be_changed_in_place(tmp_path):
    class Sequence(nn.Sequential):
        def __init__(self, inplace, seed):
            network = Conv(seed=seed)
            first, second = nn.ReLU(inplace), nn.ReLU(inplace)
            pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.head
            super().__init__(network.first, first, network.second, second, *pooled)

    losses = []
    for inplace, layers in ((True, ["0", "2"]), (False, ["1", "3"])):  # the convolution's output is the ReLU's by then
        record, explanation = Record(), ExplanationMatching("grad_cam", layers=layers)
        kept = KnowledgeDistillation(Sequence(inplace, 2), explanation=explanation)
        fit(Module(Sequence(inplace, 1)), tmp_path, kept, record)
        losses.append(torch.stack(record.losses))
    torch.testing.assert_close(*losses)


def test_attention_can_be_differentiated_twice(tmp_path):
    class Attends(nn.Module):
        def __init__(self, seed):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.query, self.head = nn.Linear(8, 8), nn.Linear(8, 10)

        def forward(self, x):
            tokens = self.query(x[:, 0])
            return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1))

    record = Record()
    kept = KnowledgeDistillation(Attends(1), explanation=ExplanationMatching())
    fit(Module(Attends(2)), tmp_path, kept, record)
    assert all(torch.isfinite(loss) for loss in record.losses)


def similarity(student, teacher, x):
    return 1 - distance(student, teacher, x).item()


def test_it_improves_the_method_that_is_matched(tmp_path):
    digits = Digits(batch_size=64)
    digits.setup("fit")
    x = next(iter(digits.val_dataloader()))[0]

    def trained(width, *callbacks, epochs=3):
        seed_everything(width, verbose=False)
        model = Classifier(Conv(width), 10)
        fit(model, tmp_path, *callbacks, train=digits.train_dataloader(), limit_train_batches=20, max_epochs=epochs)
        return model.network

    teacher = trained(16, epochs=5)
    found = {}
    for weight in (0.0, 1.0):
        explanation = ExplanationMatching(weight=weight)
        kept = KnowledgeDistillation(teacher, alpha=0.5, explanation=explanation, optimize_teacher=False)
        found[weight] = similarity(trained(8, kept), teacher, x)
    assert found[1.0] > found[0.0] + 0.1, found


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"method": "gradcam"}, ("method expected input_x_gradient or grad_cam", "Did you mean 'grad_cam'")),
        ({"method": 1}, ("method expected",)),
        ({"weight": -1}, ("weight expected a number of at least 0",)),
        ({"weight": float("nan")}, ("weight expected",)),
        ({"weight": "much"}, ("weight expected",)),
        ({"every_n_steps": 0}, ("every_n_steps expected a positive integer",)),
        ({"every_n_steps": 1.5}, ("every_n_steps expected",)),
        ({"every_n_steps": True}, ("every_n_steps expected",)),
        ({"method": "grad_cam"}, ("layers expected at least one layer for grad_cam",)),
    ],
)
def test_refused_when_made(arguments, parts):
    with refused("explanation: ", *parts):
        ExplanationMatching(**arguments)


class Tokens(Module):
    def __init__(self, seed=0, embeds=True):
        super().__init__()
        torch.manual_seed(seed)
        enters = [nn.Embedding(11, 6)] if embeds else [OneHot()]
        self.network = nn.Sequential(*enters, nn.Flatten(), nn.Linear(24 if embeds else 44, 10))


class OneHot(nn.Module):
    def forward(self, ids):
        return F.one_hot(ids, 11).float()


def test_tokens_have_no_gradient_but_where_they_enter_an_embedding(tmp_path):
    tokens = TensorDataset(torch.arange(64).reshape(16, 4) % 11, torch.arange(16) % 10)
    train = DataLoader(tokens, batch_size=8)
    with refused("input_x_gradient expected an input in floating point, or tokens", "layers="):
        kept = KnowledgeDistillation(Tokens(1, embeds=False), explanation=ExplanationMatching())
        fit(Tokens(embeds=False), tmp_path, kept, train=train)
    for explanation in (ExplanationMatching(), ExplanationMatching("grad_cam", layers=["network.0"])):
        fit(Tokens(), tmp_path, KnowledgeDistillation(Tokens(1), explanation=explanation), train=train)
    with refused("layers expected the embedding of tokens", "'network.2'"):
        kept = KnowledgeDistillation(Tokens(1), explanation=ExplanationMatching(layers=["network.2"]))
        fit(Tokens(), tmp_path, kept, train=train)


def test_layers_without_positions_are_refused(tmp_path):
    explanation = ExplanationMatching("grad_cam", layers=["head"])
    with refused("grad_cam expected activations with positions"):
        fit(Module(Conv()), tmp_path, KnowledgeDistillation(Conv(), explanation=explanation))


def test_layers_that_were_not_called_are_refused(tmp_path):
    network = Conv()
    network.unused = nn.Conv2d(1, 1, 1)
    explanation = ExplanationMatching("grad_cam", layers={"unused": "first"})
    with refused("layers: 'unused' expected to return a tensor in every step"):
        fit(Module(network), tmp_path, KnowledgeDistillation(Conv(), explanation=explanation))


QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def texts(seed, dim=16):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextTransformer(50, dim=dim, depth=1, heads=2, max_length=8, dropout=0.0, embedding_dropout=0.0)


class OfTexts(Module):
    """Its batches hold ids and masks."""

    validation_step = LightningModule.validation_step

    def forward(self, ids, mask):
        return self.network(ids, mask)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0], batch[1]), batch[2])

    def train_dataloader(self):
        draw = torch.Generator().manual_seed(0)
        mask = (torch.arange(8) < torch.randint(3, 9, (32, 1), generator=draw)).long()
        ids = torch.randint(1, 50, (32, 8), generator=draw) * mask
        return DataLoader(TensorDataset(ids, mask, torch.arange(32) % 2), 16)


def at_words(network, ids, mask, target):
    """Second implementation: the gradient by the rows of the table that the ids stand for."""
    words = F.embedding(ids, network.words.weight).detach().requires_grad_()
    with no_words(network, words):
        logits = network(ids, mask).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(logits, words)
    return (words * gradient).sum(-1)


@contextlib.contextmanager
def no_words(network, words):
    handle = network.words.register_forward_hook(lambda *_: words)
    yield
    handle.remove()


@pytest.mark.parametrize("layers", [None, ["words"], {"network.words": "words"}])
def test_tokens_are_explained_at_their_embedding(layers, tmp_path):
    teacher, seen = texts(2, dim=32), []  # of another width

    class Check(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            ids, mask, y = batch
            target = teacher(ids, mask).argmax(1)
            maps = [at_words(network, ids, mask, target) for network in (pl_module.network, teacher)]
            own = F.cross_entropy(pl_module(ids, mask), y).detach()
            self.loss = own + 2.0 * (1 - F.cosine_similarity(*maps, dim=1).mean())
            assert (maps[0][mask == 0] == 0).all()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"], self.loss, rtol=1e-3, atol=1e-4)
            seen.append(batch_idx)

    explanation = ExplanationMatching(weight=2.0, layers=layers)
    kept = KnowledgeDistillation(teacher, alpha=0.0, explanation=explanation)
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[kept, Check()], accelerator="cpu", **QUIET)
    trainer.fit(OfTexts(texts(0)))
    assert seen == [0, 1, 0, 1]


def test_grad_cam_of_tokens_weighs_their_channels():
    network = texts(0)
    ids, mask = torch.randint(1, 50, (2, 8)), torch.ones(2, 8, dtype=torch.long)
    with recorded({"": network}, {"block": network.blocks[0]}) as calls:
        logits = network(ids, mask)
    target = torch.tensor([0, 1])
    (found,) = ExplanationMatching("grad_cam", layers=["block"]).attribute(logits, calls[0], ("block",), target, True)
    tokens = calls[0].layers["block"]
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), tokens)
    torch.testing.assert_close(found, (gradient.mean(1, keepdim=True) * tokens).sum(-1).relu())
