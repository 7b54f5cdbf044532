"""Small real runs with the library's callbacks: some end well, others are wrecked on purpose.

Each is a :class:`Run` of real digits, seconds long. ``HEALTHY`` and ``WRECKED`` name them for the tests.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import ExplanationMatching, KnowledgeDistillation, QuantizationAwareTraining, StructuredPruning
from lit_xai.data import Digits
from lit_xai.models import MLP, ResNet
from lit_xai.structure.kinds import StepKind, register_kind
from lit_xai.trainer.structural_callback import StructuralCallback

STEPS = 20  # in an epoch of 64 images


@functools.cache
def digits():
    data = Digits(batch_size=2000)
    data.setup("fit")
    train, val = (next(iter(loader)) for loader in (data.train_dataloader(), data.val_dataloader()))
    return *train, *val


def resnet():
    return ResNet(depth=8, width=8, in_channels=1)


def mlp(**options):
    return MLP(in_features=64, hidden=[48, 32], out_features=10, **options)


def conv():
    """Without a norm."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


def deep():
    return MLP(in_features=64, hidden=[32] * 5, out_features=10)


class Classify(LightningModule):
    """A user's module."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.network = run.network()

    def forward(self, x):
        return self.network(x)

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = self.run.optimizer(self.parameters())
        if self.run.schedule is None:
            return optimizer
        schedule = self.run.schedule(optimizer, self.run.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ByHand(Classify):
    """Optimizes by hand, and returns nothing from its step."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()
        if self.run.schedule is not None:
            self.lr_schedulers().step()


class Auxiliary(Classify):
    """Adds another term from an epoch of its own on."""

    def loss(self, batch):
        logits = self(batch[0])
        extra = 3 + logits.pow(2).mean() / 100 if self.current_epoch >= 3 else 0
        return F.cross_entropy(logits, batch[1]) + extra


class LikelihoodOfInk(Classify):
    """A regression with a Gaussian likelihood, whose loss goes below zero."""

    def loss(self, batch):
        mean, log_var = self(batch[0])[:, :2].unbind(1)
        target = 4 * batch[0].mean((1, 2, 3))
        return F.gaussian_nll_loss(mean, target, log_var.clamp(-8, 8).exp())


class Ink(Classify):
    """A regression with a squared error."""

    def loss(self, batch):
        return F.mse_loss(self(batch[0])[:, 0], 4 * batch[0].mean((1, 2, 3)))


class Contrastive(Classify):
    """A loss that is small from the beginning and noisy."""

    def loss(self, batch):
        return F.triplet_margin_loss(*(self(batch[0]).tensor_split(3)[i][: len(batch[0]) // 3] for i in range(3)))


class Adversarial(Classify):
    """A generator and a discriminator, trained by turns with two optimizers."""

    automatic_optimization = False
    by_batch = False

    def __init__(self, run):
        super().__init__(run)
        self.network = MLP(in_features=64, hidden=[64, 64], out_features=64)
        self.judge = MLP(in_features=64, hidden=[32], out_features=1)

    def training_step(self, batch, batch_idx):
        real = batch[0].flatten(1)
        generator, discriminator = self.optimizers()
        if not self.by_batch or batch_idx % 2:
            fake = self(torch.randn_like(real)).detach()
            logits = self.judge(torch.cat([real, fake]))
            labels = torch.cat([torch.ones(len(real), 1), torch.zeros(len(real), 1)])
            discriminator.zero_grad()
            self.manual_backward(F.binary_cross_entropy_with_logits(logits, labels))
            discriminator.step()
        if not self.by_batch or batch_idx % 2 == 0:
            logits = self.judge(self(torch.randn_like(real)))
            generator.zero_grad()
            self.manual_backward(F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)))
            generator.step()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), 1e-3, betas=(0.5, 0.9)) for part in (self.network, self.judge)]


class AdversarialByBatch(Adversarial):
    by_batch = True


class Scale(StepKind):
    """Multiply a weight, as a step with a mistake in it might."""

    name, label = "watched.scale", "scaled"

    def apply_(self, network, step, optimizers=()):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(step["factor"])

    def undo_(self, network, step):
        pass


register_kind(Scale())


class ScaleOnce(StructuralCallback):
    """A user's own structural callback."""

    def __init__(self, factor, epoch=4):
        super().__init__()
        self.factor, self.epoch = factor, epoch

    def change(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.take_step(trainer, pl_module, {"kind": "watched.scale", "factor": self.factor})


def sgd(lr=0.05):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True)


def adam(lr=3e-3):
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr)


def one_cycle(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=steps)


def cosine(optimizer, steps):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def restarts(optimizer, steps):
    return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, steps // 4)


def raised(factor, epoch=4):
    def schedule(optimizer, steps):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor if step >= epoch * STEPS else 1)

    return schedule


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        callbacks: makes the library's.
        schedule: of the learning rate by steps, from an optimizer and the run's steps.
        pretrained: epochs of plain training before it.
        noise: share of the labels that are random.
        scaled: train in float16 with a gradient scaler, which Lightning offers on GPUs alone.
    """

    callbacks: Callable[[], list[Any]]
    network: Callable[[], nn.Module] = resnet
    module: type[Classify] = Classify
    optimizer: Any = field(default_factory=adam)
    schedule: Any = None
    epochs: int = 8
    batch_size: int = 64
    pretrained: int = 0
    noise: float = 0.0
    validates: bool = True
    scaled: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def steps(self):
        return self.epochs * (len(digits()[0]) // self.batch_size)

    def loader(self):
        x, y, *_ = digits()
        generator = torch.Generator().manual_seed(self.seed)
        is_random = torch.rand(len(y), generator=generator) < self.noise
        y = torch.where(is_random, torch.randint(10, y.shape, generator=generator), y)
        return DataLoader(TensorDataset(x, y), self.batch_size, shuffle=True, drop_last=True)

    def fit(self, folder, *extra, ckpt_path=None):
        """Return the Trainer after the fit."""
        callbacks = self.callbacks()
        torch.manual_seed(self.seed)
        module = self.module(self)
        if self.pretrained:
            train(module, self.loader(), self.pretrained)
        trainer = Trainer(
            **{
                "max_epochs": self.epochs,
                "accelerator": "cpu",
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "default_root_dir": folder,
                "callbacks": [*callbacks, *extra],
                "plugins": [MixedPrecision("16-mixed", "cpu")] if self.scaled else None,
            }
            | self.options
        )
        x, y = digits()[2:]
        val = DataLoader(TensorDataset(x, y), 360)
        trainer.fit(module, self.loader(), val if self.validates else None, ckpt_path=ckpt_path)
        return trainer


def train(module, loader, epochs):
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            module.loss(batch).backward()
            optimizer.step()


@functools.cache
def teacher():
    run = Run(list)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Classify(run)
        train(module, run.loader(), 6)
    return module.network.eval()


def prune(ratio=0.7, **options):
    return lambda: [StructuredPruning(ratio, round_to=1, report_latency=False, **options)]


def qat(start=0.5, **options):
    return lambda: [QuantizationAwareTraining(start, **options)]


def distill(source=None, **options):
    return lambda: [KnowledgeDistillation(teacher() if source is None else source, **options)]


def both(*makers):
    return lambda: [callback for make in makers for callback in make()]


CLIP = {"gradient_clip_val": 1.0}

HEALTHY = {
    "cut 70%": Run(prune()),
    "cut 70% of an MLP": Run(prune(), mlp),
    "cut 70% at once": Run(prune(start_epoch=4, end_epoch=4)),
    "cut 70% late": Run(prune(start_epoch=6, end_epoch=6)),
    "cut 70% at the first epoch": Run(prune(start_epoch=0, end_epoch=0)),
    "cut 70%, SGD one-cycle": Run(prune(), optimizer=sgd(0.1), schedule=one_cycle),
    "cut 70%, SGD cosine": Run(prune(), optimizer=sgd(0.05), schedule=cosine),
    "cut 70% at once, SGD": Run(prune(start_epoch=4, end_epoch=4), optimizer=sgd(0.05)),
    "cut 70%, by hand": Run(prune(), module=ByHand),
    "cut 70%, by hand, unvalidated": Run(prune(), mlp, module=ByHand, validates=False),
    "cut 70%, unvalidated": Run(prune(), validates=False),
    "cut 70% globally": Run(prune(global_pruning=True)),
    "cut 90%, MLP": Run(prune(0.9), mlp, epochs=12),
    "cut 70%, sparse before": Run(prune(regularize="bn_scale")),
    "cut 70%, warm restarts": Run(prune(), optimizer=sgd(0.1), schedule=restarts),
    "cut 70%, restarts, MLP": Run(prune(start_epoch=3, end_epoch=3), mlp, optimizer=sgd(0.1), schedule=restarts),
    "cut 70%, three epochs": Run(prune(), epochs=3),
    "cut 70%, two epochs": Run(prune(start_epoch=1, end_epoch=1), epochs=2),
    "cut 70%, batches of 8": Run(prune(), mlp, batch_size=8, epochs=3),
    "cut 70%, batches of 1": Run(prune(), mlp, batch_size=1, epochs=2, optimizer=sgd(0.001)),
    "cut 70%, 20% noise": Run(prune(), noise=0.2),
    "cut 70%, 50% noise": Run(prune(), noise=0.5, epochs=12),
    "cut 70%, 80% noise, MLP": Run(prune(), mlp, noise=0.8),
    "cut 70%, dropout": Run(prune(), lambda: mlp(dropout=0.5)),
    "cut 70%, accumulated": Run(prune(), options={"accumulate_grad_batches": 3}),
    "cut 70%, accumulating less": Run(
        both(prune(start_epoch=4, end_epoch=4), lambda: [GradientAccumulationScheduler({0: 8, 4: 1})]), mlp
    ),
    "cut 70%, bf16": Run(prune(), options={"precision": "bf16-mixed"}),
    "cut 70%, fp16": Run(prune(), mlp, scaled=True),
    "cut 70%, pretrained": Run(prune(start_epoch=1, end_epoch=3, every_n_epochs=1), pretrained=6),
    "cut 70% at once, pretrained": Run(prune(start_epoch=1, end_epoch=1), pretrained=8, optimizer=sgd(0.02)),
    "cut 70% at the first step, pretrained": Run(prune(start_epoch=0, end_epoch=0), pretrained=8),
    "cut 70%, pretrained a little": Run(prune(start_epoch=2, end_epoch=2), pretrained=2),
    "cut 70%, pretrained a little, SGD": Run(prune(start_epoch=2, end_epoch=2), pretrained=2, optimizer=sgd(0.02)),
    "cut 70%, pretrained a little, MLP": Run(prune(start_epoch=2, end_epoch=2), mlp, pretrained=2),
    "QAT of 4 bits, pretrained": Run(qat(2, bits=4), pretrained=6, optimizer=adam(1e-3)),
    "QAT of 3 bits, pretrained": Run(qat(1, bits=3), mlp, pretrained=20, optimizer=adam(1e-3), epochs=5),
    "QAT of 4 bits, memorized": Run(qat(1, bits=4), mlp, pretrained=40, optimizer=adam(1e-4), epochs=5),
    "cut 70%, auxiliary loss": Run(prune(start_epoch=1, end_epoch=1), module=Auxiliary),
    "cut 70%, auxiliary loss, MLP": Run(prune(start_epoch=2, end_epoch=2), mlp, module=Auxiliary),
    "cut 70%, likelihood": Run(prune(), mlp, module=LikelihoodOfInk),
    "cut 70%, squared error": Run(prune(), mlp, module=Ink),
    "cut 70%, squared error, ResNet": Run(prune(), module=Ink),
    "cut 70%, triplets": Run(prune(), mlp, module=Contrastive),
    "cut 70%, adversarial": Run(prune(module="network"), module=Adversarial),
    "cut 70%, adversarial by batch": Run(prune(module="network"), module=AdversarialByBatch),
    "QAT from 0.25": Run(qat(0.25)),
    "QAT from 0.5": Run(qat(0.5), optimizer=sgd(0.05), schedule=cosine, options=CLIP),
    "QAT from 0.7": Run(qat(0.7), mlp),
    "QAT from 0.25, clipped one-cycle": Run(qat(0.25), optimizer=sgd(0.1), schedule=one_cycle, options=CLIP),
    "QAT of 4 bits": Run(qat(0.5, bits=4)),
    "QAT of 3 bits, MLP": Run(qat(0.5, bits=3), mlp),
    "QAT, pretrained, from the first step": Run(qat(0), pretrained=6, epochs=4),
    "QAT, by hand, unvalidated": Run(qat(), module=ByHand, validates=False),
    "QAT, squared error": Run(qat(), mlp, module=Ink),
    "cut 70%, then QAT": Run(both(prune(0.7, end_epoch=3), qat(0.7)), epochs=10),
    "cut 70%, taught by the dense, then QAT": Run(both(prune(), distill("dense", temperature=2.0), qat(0.7))),
    "cut 70%, taught by the dense": Run(both(distill("dense"), prune(start_epoch=4, end_epoch=4)), mlp),
    "taught": Run(distill()),
    "taught, MLP": Run(distill(alpha=0.5), mlp),
    "taught, alpha rising": Run(distill(alpha=[0.0, 0.9], temperature=2.0), mlp),
    "taught at temperature 8": Run(distill(temperature=8.0)),
    "taught, noise": Run(distill(), noise=0.5),
    "taught by its average": Run(distill("ema", alpha=0.3, ema_decay=0.99)),
    "taught explanations": Run(distill(explanation=ExplanationMatching(every_n_steps=2), alpha=0.5), epochs=6),
    "taught by hand": Run(distill(alpha=0.5), mlp, module=ByHand),
    "taught, two epochs": Run(distill(), epochs=2),
}

WRECKED = {
    "QAT, rate x 1000": Run(qat(), optimizer=sgd(0.02), schedule=raised(1000)),
    "QAT, rate x 1000, Adam": Run(qat(), optimizer=adam(3e-3), schedule=raised(1000)),
    "QAT, rate x 1000, late": Run(qat(0.5), optimizer=sgd(0.02), schedule=raised(1000, 5)),
    "QAT of 2 bits": Run(qat(0.5, bits=2), optimizer=sgd(0.1), schedule=raised(30)),
    "QAT of 2 bits, MLP": Run(qat(0.5, bits=2), mlp, optimizer=sgd(0.05), schedule=raised(40)),
    "QAT, pretrained": Run(qat(1), pretrained=6, optimizer=sgd(0.02), schedule=raised(100, 1), epochs=6),
    "QAT, pretrained, from the first step": Run(
        qat(0), mlp, pretrained=6, optimizer=sgd(0.02), schedule=raised(100, 1), epochs=6
    ),
    "QAT, by hand, unvalidated": Run(qat(), module=ByHand, validates=False, optimizer=sgd(0.02), schedule=raised(100)),
    "cut 90%, rate x 100": Run(prune(0.9, start_epoch=4, end_epoch=4), optimizer=sgd(0.02), schedule=raised(100)),
    "cut 90%, rate x 100, MLP": Run(
        prune(0.9, start_epoch=4, end_epoch=4), mlp, optimizer=sgd(0.02), schedule=raised(100)
    ),
    "cut 95% globally": Run(
        prune(0.95, start_epoch=4, end_epoch=4, global_pruning=True), mlp, optimizer=sgd(0.02), schedule=raised(50)
    ),
    "cut 90%, four cuts": Run(prune(0.9), optimizer=sgd(0.02), schedule=raised(100, 2)),
    "cut 90%, pretrained": Run(
        prune(0.9, start_epoch=1, end_epoch=1), pretrained=6, optimizer=sgd(0.02), schedule=raised(100, 1)
    ),
    "cut 70%, by hand": Run(
        prune(start_epoch=4, end_epoch=4),
        mlp,
        module=ByHand,
        optimizer=sgd(0.02),
        schedule=raised(100),
        validates=False,
    ),
    "cut 70%, squared error": Run(
        prune(start_epoch=4, end_epoch=4), mlp, module=Ink, optimizer=adam(1e-3), schedule=raised(1000)
    ),
    "cut 70% late": Run(prune(start_epoch=6, end_epoch=6), optimizer=sgd(0.02), schedule=raised(100, 6)),
    "not a number": Run(lambda: [ScaleOnce(float("nan"))], mlp),
    "weights of zero": Run(lambda: [ScaleOnce(0.0)], mlp),
    "weights x 1000": Run(lambda: [ScaleOnce(1000.0)], mlp, optimizer=sgd(0.02)),
    "taught at temperature 20": Run(distill(alpha=0.99, temperature=20.0), conv, optimizer=sgd(1.0)),
    "taught at temperature 20, deep": Run(distill(alpha=0.99, temperature=20.0), deep, optimizer=sgd(0.3)),
    "taught, by hand": Run(distill(), conv, module=ByHand, optimizer=sgd(1.0)),
    "taught, rate 1": Run(distill(), mlp, optimizer=sgd(1.0), validates=False),
    "taught to infinity": Run(distill(), deep, optimizer=sgd(1.0)),
    "taught by the dense": Run(
        both(distill("dense", alpha=0.99, temperature=20.0), prune(start_epoch=4, end_epoch=4)),
        mlp,
        optimizer=sgd(0.02),
        schedule=raised(50),
    ),
    "cut, then QAT": Run(both(prune(0.5, end_epoch=2), qat(0.5)), optimizer=sgd(0.02), schedule=raised(100)),
}
