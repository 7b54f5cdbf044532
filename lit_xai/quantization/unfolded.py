r"""Training that goes on after BatchNorms were folded as it would have with their statistics frozen.

A folded weight is :math:`W' = s W`, with :math:`s` its BatchNorm's :math:`\gamma / \sqrt{\sigma^2 + \epsilon}`. To the
optimizer that is another parameter: the same learning rate moves it :math:`1 / s^2` times as far (with Adam
:math:`1 / s`), which makes runs diverge, and momenta are in the wrong unit. So the optimizer is shown the gradient by
:math:`W`, which is :math:`s` times that by :math:`W'`, and what it changes is taken :math:`s` times.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import find_network, module_names
from lit_xai.quantization.folding import per_weight


def fold_scales(network: nn.Module, pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Return by what each layer's weight is multiplied when it is folded, shaped to be multiplied with it.

    Args:
        network: before it is folded.
        pairs: names of layer and BatchNorm, from :func:`~lit_xai.quantization.folding.find_foldable`.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, eps=0.0))
        >>> network[1].running_var.fill_(4.0)
        tensor([4., 4.])
        >>> fold_scales(network, [("0", "1")])["0"]
        tensor([[0.5000],
                [0.5000]])
    """
    modules, found = module_names(find_network(network)), {}
    for layer, norm in pairs:
        one: Any = modules[norm]
        scale = (one.running_var.detach() + one.eps).rsqrt()
        scale = scale if one.weight is None else scale * one.weight.detach()
        found[layer] = per_weight(modules[layer], scale).clone()
    return found


class UnfoldedUpdates:
    """Has optimizers change folded weights as they would the ones before; until :meth:`stop`.

    Args:
        weights: the folded weights and, for each, what :func:`fold_scales` returned for it.
        optimizers: whose parameters they are. L-BFGS, which looks along a line, is left alone.

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
        learnt = [(weight, scale.to(weight)) for weight, scale in weights if weight.requires_grad]
        self._scales: Mapping[int, Tensor] = {id(weight): scale for weight, scale in learnt}
        self._before: dict[int, list[Tensor]] = {}
        self._handles: list[Any] = []
        led = set()
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                continue
            led |= {id(p) for p in self._of(optimizer)}
            self._handles.append(optimizer.register_step_pre_hook(self._keep))
            self._handles.append(optimizer.register_step_post_hook(self._scale))
        for weight, scale in learnt:
            if id(weight) in led:
                self._handles.append(weight.register_hook(scale.mul))

    def stop(self) -> None:
        """Let optimizers do as they like."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _of(self, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
        return [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._scales]

    def _keep(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._before[id(optimizer)] = [weight.detach().clone() for weight in self._of(optimizer)]

    @torch.no_grad()
    def _scale(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        weights, before = self._of(optimizer), self._before.pop(id(optimizer), [])
        for weight, old in zip(weights, before, strict=False):
            weight.copy_(torch.lerp(old, weight, self._scales[id(weight)].expand_as(weight)))
