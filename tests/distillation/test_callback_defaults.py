"""The defaults harm no standard recipe: gradients are bounded as those of labels are, and runs end as well."""

import inspect
from functools import partial
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from lit_xai import KnowledgeDistillation
from lit_xai.data import Digits
from lit_xai.distillation.loss_spec import LossSpec
from lit_xai.distillation.losses import LOSSES
from lit_xai.distillation.terms import Terms
from lit_xai.models import Classifier

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")

DEFAULTS = {name: p.default for name, p in inspect.signature(KnowledgeDistillation.__init__).parameters.items()}
SCALES = st.floats(0.01, 100.0)


def gradient_norms(student, teacher, labels, alpha, temperature):
    """The length of the gradient of each sample's loss with respect to its logits."""
    terms = Terms(LossSpec(DEFAULTS["loss"], "loss", LOSSES), None)
    student = student.requires_grad_()
    own = F.cross_entropy(student, labels)
    taught = terms.scale(temperature) * terms.loss(student, teacher, temperature=temperature)
    loss = (1 - alpha) * own + alpha * taught
    return torch.autograd.grad(loss, student)[0].norm(dim=1) * len(labels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 100), SCALES, SCALES)
def test_no_gradient_is_larger_than_labels_alone_can_make_it(seed, classes, of_student, of_teacher):
    """That of the cross entropy is p - y: at most the square root of 2."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        scale * torch.randn(8, classes, generator=generator, dtype=torch.float64) for scale in (of_student, of_teacher)
    )
    labels = torch.randint(classes, (8,), generator=generator)
    norms = gradient_norms(student, teacher, labels, DEFAULTS["alpha"], DEFAULTS["temperature"])
    assert norms.max() <= 2**0.5 * (1 + 1e-9)


def test_a_high_temperature_makes_larger_ones():
    student, teacher = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 20.0]])
    assert gradient_norms(student, teacher, torch.tensor([1]), 0.9, 4.0) > 3.5 * 2**0.5


# --- runs -------------------------------------------------------------------------------------------------------------

sgd = partial(SGD, lr=0.1, momentum=0.9, nesterov=True)
RECIPES = {
    "SGD one-cycle": {"optimizer": sgd, "lr_scheduler": partial(OneCycleLR, max_lr=0.1)},
    "SGD cosine": {"optimizer": sgd, "lr_scheduler": CosineAnnealingLR},
    "AdamW": {"optimizer": partial(AdamW, lr=3e-3), "lr_scheduler": CosineAnnealingLR},
}


def cnn(width=8):
    """No BatchNorm, whose scale invariance forgives large steps."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * width, 10)),
    )


@pytest.fixture(scope="module")
def digits():
    data = Digits(batch_size=64, drop_last=True)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    """Four times as wide, trained for longer, and sure of itself: its logits spread over some 40."""
    return train(cnn(32), "AdamW", 0, digits, tmp_path_factory.mktemp("teacher"), max_epochs=20)


def train(network, recipe, seed, data, folder, *callbacks, max_epochs=8):
    """A real run; nothing is clipped."""
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    seed_everything(seed, verbose=False)
    trainer.fit(Classifier(network, 10, lr_scheduler_interval="step", **RECIPES[recipe]), data.train_dataloader())
    return network.eval()


@torch.no_grad()
def accuracy(network, data):
    x, y = map(torch.cat, zip(*data.val_dataloader(), strict=True))
    return (network(x).argmax(1) == y).float().mean().item()


def students(recipe, seeds, teacher, data, folder, **options):
    """The accuracies of students alone and of the same students with the teacher."""
    alone, taught = [], []
    for seed in seeds:
        for found, callbacks in ((alone, []), (taught, [KnowledgeDistillation(teacher, **options)])):
            torch.manual_seed(seed)
            found.append(accuracy(train(cnn(), recipe, seed, data, folder, *callbacks), data))
    return alone, taught


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_ends_as_well_as_without_a_teacher(recipe, digits, teacher, tmp_path):
    (alone,), (taught,) = students(recipe, [0], teacher, digits, tmp_path)
    assert accuracy(teacher, digits) > 0.95
    assert alone > 0.9
    assert taught >= alone - 0.03


@pytest.mark.filterwarnings("ignore:.*has wrecked this training")
def test_the_same_run_collapses_at_a_high_temperature(digits, teacher, tmp_path):
    """So that the test above can fail; at 4 it depends on the machine which seeds do."""
    (alone,), (taught,) = students("SGD cosine", [0], teacher, digits, tmp_path, alpha=0.99, temperature=20.0)
    assert taught < alone - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_mean_of_runs_is_within_a_point_of_that_without_a_teacher(recipe, digits, teacher, tmp_path):
    alone, taught = students(recipe, range(8), teacher, digits, tmp_path)
    assert mean(taught) >= mean(alone) - 0.01
    assert min(b - a for a, b in zip(alone, taught, strict=True)) >= -0.03
