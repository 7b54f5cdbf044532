"""What a teacher costs in a training step, as multiples of the student's own step, within one run.

    python benchmarks/distillation_cost.py [--repeats 7]

ResNet-20 taught by ResNet-56, random 3x32x32 images, batch 128, one thread; a real Trainer, the median over rounds that
alternate of the median batch. "Bare" does by hand in training_step, without the library, the very passes that matching
explanations needs: the teacher's forward and its gradient by the input, the student's forward, that of its top logit's
gradient, and the backward pass through both.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.callbacks import ExplanationMatching, KnowledgeDistillation
from lit_xai.distillation.teacher import Teacher
from lit_xai.models import ResNet
from lit_xai.network.recording import Call

BATCH, BATCHES = 128, 4


class Plain(LightningModule):
    """A student's ordinary step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the cross entropy."""
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Bare(Plain):
    """The passes that KD with matched explanations needs, written out."""

    def __init__(self, network: nn.Module, teacher: nn.Module) -> None:
        super().__init__(network)
        self.teacher = [teacher.eval().requires_grad_(False)]  # in a list it is no part of the module

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss with the teacher's share."""
        x, y = batch
        shown = x.detach().requires_grad_()
        theirs = self.teacher[0](shown)
        top = theirs.detach().argmax(1, keepdim=True)
        (gradient,) = torch.autograd.grad(theirs.gather(1, top).sum(), shown)
        wanted = (shown * gradient).detach().flatten(1)
        own = x.detach().requires_grad_()
        logits = self.network(own)
        (gradient,) = torch.autograd.grad(logits.gather(1, top).sum(), own, create_graph=True)
        found = (own * gradient).flatten(1)
        kd = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(theirs.detach() / 4, 1), reduction="batchmean")
        matched = (1 - F.cosine_similarity(found, wanted)).mean()
        return 0.1 * F.cross_entropy(logits, y) + 0.9 * 16 * kd + matched


class Clock(Callback):
    """Times each batch of the second epoch: caches are filled in the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop."""
        if trainer.current_epoch:
            self.seconds.append(time.perf_counter() - self._start)


class Given(Callback):
    """Gives the teacher's logits for nothing, so that only what happens to the student is left."""

    def __init__(self, distillation: KnowledgeDistillation) -> None:
        self.distillation = distillation

    def on_train_start(self, *_: Any) -> None:
        """Put a constant in the teacher's place."""
        logits = torch.randn(BATCH, 10)
        self.distillation._source.teacher.logits = lambda call: logits  # type: ignore[union-attr, method-assign]  # there by now


def step(module: LightningModule, callbacks: list[Callback]) -> float:
    """Time a step of a fit."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(BATCHES * BATCH, 3, 32, 32), torch.randint(10, (BATCHES * BATCH,)))
    clock = Clock()
    trainer = Trainer(
        max_epochs=2,
        callbacks=[*callbacks, clock],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, BATCH))
    return median(clock.seconds)


def taught(teacher: nn.Module, given: bool = False, **options: Any) -> list[Callback]:
    """Return the callbacks of a distillation."""
    distillation = KnowledgeDistillation(teacher, **options)
    return [distillation, *([Given(distillation)] if given else [])]


def forwards(teacher: nn.Module) -> dict[str, Callable[[], float]]:
    """Return the teacher's forward, as it is and as the callback runs it."""
    x, ready = torch.randn(BATCH, 3, 32, 32), Teacher(ResNet(56).eval())
    teacher.eval()

    def plain() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            teacher(x)
        return time.perf_counter() - start

    def ours() -> float:
        start = time.perf_counter()
        ready.logits(Call("", (x,)))
        return time.perf_counter() - start

    return {"teacher's forward, no_grad": plain, "teacher's forward, ours": ours}


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    teacher = ResNet(56)
    matching = {"explanation": ExplanationMatching()}
    cases: dict[str, Callable[[], float]] = {
        **forwards(teacher),
        "student's step": lambda: step(Plain(ResNet(20)), []),
        "KD, outputs given": lambda: step(Plain(ResNet(20)), taught(teacher, given=True)),
        "KD, cached": lambda: step(Plain(ResNet(20)), taught(teacher, cache="memory")),
        "KD": lambda: step(Plain(ResNet(20)), taught(teacher)),
        "KD + explanation, bare": lambda: step(Bare(ResNet(20), teacher), []),
        "KD + explanation": lambda: step(Plain(ResNet(20)), taught(teacher, **matching)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, run in cases.items():
            found = run()
            if repeat:  # the first round warms up
                seconds[name].append(found)
    floor = median(seconds["student's step"])
    for name, found in seconds.items():
        print(f"{name:28}{median(found) * 1e3:8.1f} ms {median(found) / floor:6.2f} of the student's step")
    for name, other in (
        ("teacher's forward, ours", "teacher's forward, no_grad"),
        ("KD, outputs given", "student's step"),
        ("KD, cached", "student's step"),
        ("KD + explanation", "KD + explanation, bare"),
    ):
        ratio = median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))
        print(f"{name} / {other}: {ratio:.3f}")


if __name__ == "__main__":
    main()
