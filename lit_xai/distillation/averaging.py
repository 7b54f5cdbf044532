"""A running average of a module's weights."""

import torch
from torch import Tensor, nn

from lit_xai.network.copying import copy_network


class RunningAverage:
    """The exponential moving average of weights; buffers are copied.

    Tarvainen and Valpola 2017, Mean teachers are better role models, https://arxiv.org/abs/1703.01780.

    Args:
        module: whose weights it starts from.
        decay: the share of the average that a step keeps; the first steps keep less.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module: nn.Module = copy_network(module)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Update the average after an optimizer step.

        Args:
            module: with the new weights, in the same structure.
            step: the number of steps so far.
        """
        # The first steps move the weights most: at full decay their start would weigh on the average for long.
        decay = min(self._decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_tensors(self.module), _tensors(module), strict=True):
            # Running statistics are averages already, and counters cannot be averaged.
            if isinstance(value, nn.Parameter) and value.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        # average + (1 - decay) * (value - average), in one call for all parameters.
        torch._foreach_lerp_(averages, values, 1 - decay)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
