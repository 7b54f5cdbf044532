r"""Optimizer updates after BatchNorms were folded, as they would be with the BatchNorms' statistics frozen.

Runs that begin today train with their BatchNorms; those that began with version 0.1 folded them, and continue so.

A folded weight is :math:`W' = s W`, with :math:`s` its BatchNorm's :math:`\gamma / \sqrt{\sigma^2 + \epsilon}`. To the
optimizer that is another parameter: the same learning rate moves it :math:`1 / s^2` times as far (with Adam
:math:`1 / s`), which makes runs diverge, and its momenta are in the wrong unit. So the optimizer gets the gradient with
respect to :math:`W`, which is :math:`s` times that with respect to :math:`W'`, and its update is multiplied by
:math:`s`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class UnfoldedUpdates:
    """Have optimizers update folded weights as they would the unfolded ones, until :meth:`stop`.

    Args:
        weights: the folded weights and, for each, the factor of its fold, shaped to be multiplied with it.
        optimizers: those of the weights. L-BFGS is left alone: its line search evaluates the loss within a step.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> updates = UnfoldedUpdates([(layer.weight, torch.tensor([[0.5]]))], [optimizer])
        >>> before = float(layer.weight.detach())
        >>> layer(torch.ones(1, 1)).sum().backward()  # the gradient by the weight is 1
        >>> optimizer.step()
        >>> round(before - float(layer.weight.detach()), 4)  # 0.1 * 0.5 ** 2
        0.025
        >>> updates.stop()
    """

    def __init__(
        self, weights: Iterable[tuple[nn.Parameter, Tensor]], optimizers: Iterable[torch.optim.Optimizer]
    ) -> None:
        trained = [(weight, scale.to(weight)) for weight, scale in weights if weight.requires_grad]
        self._scales: Mapping[int, Tensor] = {id(weight): scale for weight, scale in trained}
        self._before: dict[int, list[Tensor]] = {}
        self._handles: list[Any] = []
        optimized = set()
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                continue
            optimized |= {id(p) for p in self._of(optimizer)}
            self._handles.append(optimizer.register_step_pre_hook(self._keep))
            self._handles.append(optimizer.register_step_post_hook(self._scale))
        for weight, scale in trained:
            if id(weight) in optimized:
                # dL/dW = s * dL/dW', as W' = s W. On the parameter, so that it is part of backward and comes before
                # clipping.
                self._handles.append(weight.register_hook(scale.mul))

    def stop(self) -> None:
        """Restore the optimizers' own updates."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _of(self, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
        return [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._scales]

    def _keep(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # The update is only known as a difference: the weight after the step less the weight before.
        self._before[id(optimizer)] = [weight.detach().clone() for weight in self._of(optimizer)]

    @torch.no_grad()
    def _scale(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        weights, before = self._of(optimizer), self._before.pop(id(optimizer), [])
        for weight, old in zip(weights, before, strict=False):
            # W' + s * (updated - W'): the step in units of W becomes one in units of W'.
            weight.copy_(torch.lerp(old, weight, self._scales[id(weight)].expand_as(weight)))
