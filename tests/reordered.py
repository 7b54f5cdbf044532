"""A module whose optimizers group parameters as real projects do, and a kind of step that moves parameters."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.structure.kinds import StepKind, check_entries, register_kind

Moments = dict[str, dict[str, torch.Tensor]]


class MoveLast(StepKind):
    """Put a module's child behind its siblings: every parameter in between changes its place."""

    name, label = "reordered.move_last", "moved"

    def check(self, step: dict[str, Any]) -> None:
        check_entries(step, child=str, place=int)

    def apply_(self, network: nn.Module, step: dict[str, Any], optimizers: Iterable[Any] = ()) -> None:
        if step["child"] not in network._modules:
            raise ValueError(f"The recipe does not fit: there is no {step['child']!r}.")
        network._modules[step["child"]] = network._modules.pop(step["child"])

    def undo_(self, network: nn.Module, step: dict[str, Any]) -> None:
        children = list(network._modules.items())
        children.insert(step["place"], children.pop())
        network._modules.clear()
        network._modules.update(children)


register_kind(MoveLast())


class Grouped(LightningModule):
    """Two convolutions with BatchNorm, one with a bias and one without, and a head.

    Args:
        groups: ``"one"``, ``"decay"`` (weight decay for matrices alone) or ``"two"`` optimizers, each with these.
    """

    def __init__(self, groups: str = "decay"):
        super().__init__()
        self.save_hyperparameters()
        self.groups = groups
        self.first = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(6, affine=False)
        self.third = nn.Conv2d(6, 6, 3, padding=1)
        self.third_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        self.automatic_optimization = groups != "two"
        self.resumed_with: Moments = {}

    def forward(self, x):
        x = self.first_norm(self.first(x)).relu()
        x = self.second_norm(self.second(x)).relu()
        x = self.third_norm(self.third(x)).relu()
        return self.head(x.mean((2, 3)))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        if not self.automatic_optimization:
            optimizers = self.optimizers()
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in optimizers:
                optimizer.step()
        return loss

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(32, 1, 8, 8, generator=generator)
        return DataLoader(TensorDataset(x, torch.arange(32) % 3), batch_size=8)

    def configure_optimizers(self):
        if self.groups == "one":
            return torch.optim.AdamW(self.parameters(), lr=0.01)
        if self.groups == "decay":
            return torch.optim.AdamW(split(self.parameters()), lr=0.01)
        head = {id(parameter) for parameter in self.head.parameters()}
        body = [parameter for parameter in self.parameters() if id(parameter) not in head]
        return [torch.optim.AdamW(split(p), lr=0.01) for p in (body, self.head.parameters())]

    def on_train_start(self):
        self.resumed_with = moments(self)


def split(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    every = list(parameters)
    return [
        {"params": [p for p in every if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in every if p.dim() <= 1], "weight_decay": 0.0},
    ]


def moments(pl_module: LightningModule) -> Moments:
    """Return every optimizer's state by the names of the parameters that it belongs to."""
    optimizers = pl_module.optimizers(use_pl_optimizer=False)
    found = {}
    for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in pl_module.named_parameters():
            if id(parameter) in held:
                state = optimizer.state.get(parameter, {})
                found[name] = {key: torch.as_tensor(value).clone() for key, value in state.items()}
    return found


def decays(pl_module: LightningModule) -> dict[str, float]:
    """Return the weight decay of every parameter by name."""
    optimizers = pl_module.optimizers(use_pl_optimizer=False)
    groups = [g for one in (optimizers if isinstance(optimizers, list) else [optimizers]) for g in one.param_groups]
    names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
