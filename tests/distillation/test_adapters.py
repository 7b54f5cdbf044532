"""Adapters: only where widths differ, trained with the student, and gone with the run."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from refusals import refused
from taught import Conv, Module, data, fit, kd

from lit_xai import KnowledgeDistillation
from lit_xai.distillation.adapters import Adapters


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6), (4, 3, 2, 5, 6)])
def test_equal_shapes_stay_as_they_are(shape):
    adapters, student, teacher = Adapters(1e-3), torch.randn(shape), torch.randn(shape)
    features, target = adapters("a", student, teacher)
    assert features is student
    assert target is teacher
    assert list(adapters.parameters()) == []


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ((4, 3), (4, 7), (4, 7)),
        ((4, 3, 5), (4, 7, 5), (4, 7, 5)),
        ((4, 5, 3), (4, 5, 7), (4, 5, 7)),  # tokens
        ((4, 3, 8, 8), (4, 7, 8, 8), (4, 7, 8, 8)),
        ((4, 3, 8, 8), (4, 7, 4, 6), (4, 7, 4, 6)),
        ((4, 3, 4, 4), (4, 7, 8, 6), (4, 7, 4, 4)),
        ((4, 3, 4, 4), (4, 3, 8, 8), (4, 3, 4, 4)),
        ((4, 3, 2, 4, 4), (4, 7, 2, 8, 8), (4, 7, 2, 4, 4)),
    ],
)
def test_other_widths_and_sizes_meet(student, teacher, expected):
    features, target = Adapters(1e-3)("a", torch.randn(student), torch.randn(teacher))
    assert tuple(features.shape) == tuple(target.shape) == expected


def test_it_is_one_linear_map_over_channels():
    adapters, student = Adapters(1e-3), torch.randn(4, 3, 5, 6)
    features, _ = adapters("a", student, torch.randn(4, 7, 5, 6))
    weight, bias = adapters.parameters()
    expected = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], student) + bias[:, None, None]
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((4, 3), (4, 3, 5)), ((4,), (4,)), ((4, 3, 5), (4, 7, 6)), ((4, 3), (5, 3)), ((4, 3, 8, 8), (5, 7, 8, 8))],
)
def test_what_differs_in_more_is_refused(student, teacher):
    with refused("features: 'a' expected outputs", str(list(student)), str(list(teacher))):
        Adapters(1e-3)("a", torch.randn(student), torch.randn(teacher))


def test_nothing_is_drawn():
    state = torch.get_rng_state()
    first, second = (Adapters(1e-3)("a", torch.ones(4, 3), torch.ones(4, 7))[0] for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, second)


def test_scaled_gradients_and_infinite_ones():
    found = []
    for scale in (1.0, 1024.0):
        adapters = Adapters(1e-2)
        features, target = adapters("a", torch.ones(4, 3), torch.ones(4, 7))
        (F.mse_loss(features, target) * scale).backward()
        adapters.step(scale)
        found.append([p.detach().clone() for p in adapters.parameters()])
        assert all(p.grad is None for p in adapters.parameters())
    assert all(map(torch.equal, *found))
    before = [p.detach().clone() for p in adapters.parameters()]
    features, target = adapters("a", torch.ones(4, 3), torch.ones(4, 7))
    (F.mse_loss(features, target) * torch.inf).backward()
    adapters.step(1024.0)
    assert all(map(torch.equal, adapters.parameters(), before))


def test_a_student_that_lost_channels_gets_another():
    adapters = Adapters(1e-3)
    adapters("a", torch.ones(4, 3), torch.ones(4, 7))
    adapters("a", torch.ones(4, 2), torch.ones(4, 7))
    assert [tuple(p.shape) for p in adapters.parameters()] == [(7, 2), (7,)]


def test_its_state_is_plain_and_training_continues_from_it():
    def steps(adapters, n):
        for i in range(n):
            generator = torch.Generator().manual_seed(i)
            features, target = adapters("a", torch.randn(4, 3, generator=generator), torch.ones(4, 7))
            F.mse_loss(features, target).backward()
            adapters.step()

    first, second = Adapters(1e-2), Adapters(1e-2)
    steps(first, 3)
    state = copy.deepcopy(first.state_dict())
    second.load_state_dict(state)
    assert second.state_dict() == state  # before it was needed
    steps(first, 2)
    steps(second, 2)
    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_a_fit_they_learn_by_adam(accumulate, tmp_path):
    teacher, x = Conv(12, seed=2), data().tensors[0]

    class Check(Callback):
        """Does the same by hand, from the same start."""

        def __init__(self):
            self.layer = self.optimizer = self.total = None

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            student = copy.deepcopy(pl_module.network)
            if self.layer is None:
                probe = Adapters(0.01)
                probe("first", student.first(x), teacher.first(x))
                self.layer = copy.deepcopy(probe._layers["first"])
                self.optimizer = torch.optim.Adam(self.layer.parameters(), lr=0.01)
            loss = F.mse_loss(self.layer(student.first(batch[0])), teacher.first(batch[0]))
            total = 0.1 * F.cross_entropy(student(batch[0]), batch[1]) + 2 * loss
            self.total = total + 0.9 * kd(student(batch[0]), teacher(batch[0]))
            (2 * loss / accumulate).backward()
            if (batch_idx + 1) % accumulate == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.testing.assert_close(outputs["loss"] * accumulate, self.total.detach(), rtol=1e-4, atol=1e-5)

    module = Module(Conv())
    kept = KnowledgeDistillation(teacher, features=["first"], feature_weight=2.0, adapter_lr=0.01)
    fit(module, tmp_path, kept, Check(), accumulate_grad_batches=accumulate, max_epochs=3)
