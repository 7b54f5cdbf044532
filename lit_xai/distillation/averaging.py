"""A running average of a module's weights."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_xai.network.copying import copy_network


class RunningAverage:
    """Tarvainen and Valpola 2017, Mean teachers, https://arxiv.org/abs/1703.01780; buffers are copied.

    Args:
        pl_module: whose weights it starts from.
        decay: what is kept of the average in a step; less in the first ones.
    """

    def __init__(self, pl_module: LightningModule, decay: float) -> None:
        self.module: nn.Module = copy_network(pl_module)
        self._decay = decay

    @torch.no_grad()
    def update(self, pl_module: LightningModule, step: int) -> None:
        """Take in the weights after an optimizer's step.

        Args:
            pl_module: in the same structure.
            step: how many there were.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_tensors(self.module), _tensors(pl_module), strict=True):
            if isinstance(value, nn.Parameter) and value.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
