"""DeepLift's multipliers as rules for functions, in place of Captum's rules for some classes of modules.

Captum 0.9 replaces gradients by hooks on modules of ten classes. Two of them in direct sequence share a tensor and
overwrite each other's hooks, windows of a MaxPool that overlap lose contributions, ``nn.Softmax`` is normalized over
the whole batch, a module that is used twice fails, and what is a function or a subclass silently keeps its plain
gradient. Here a mode watches the functions that the network calls, whoever calls them, and gives each that is not
linear a backward pass of its own, such that its contributions add up to the change of its output:

- rescale (Shrikumar et al. 2017, https://arxiv.org/abs/1704.02685): functions of one number, change of output by change
  of input;
- midpoint: products of two values, the gradient halfway between sample and baseline, which is exact for polynomials of
  degree 2;
- crossing (as in SHAP, https://arxiv.org/abs/1705.07874): maxima, a rise to where the sample's maximum is and a fall to
  where the baseline's was;
- what is composed of these, such as softmax and layer norm, is taken apart.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_xai.attribution.adapter import Forward, SplitInputs
from lit_xai.attribution.composed import COMPOSED
from lit_xai.attribution.functions import LINEAR, MAXIMA, MINIMA, ONE_NUMBER, OPENED, PRODUCTS, RULED, Call

Pullback = Callable[[Tensor], tuple[Tensor, ...]]


class Rescaling(TorchFunctionMode):
    """Give functions DeepLift's multipliers as their gradients, for batches of samples and baselines one after another.

    What depends on the samples is told by ``requires_grad``; parameters should not have it.

    Args:
        eps: changes of an input below this count as none, and get the plain gradient.
        places: the dimension along which samples and baselines stand in each argument of a rule, in the order of the
            calls, as :meth:`find_places` returned it.

    Attributes:
        unruled: names of functions that got their plain gradient without being known as linear.

    Example:
        >>> places = Rescaling.find_places(lambda: torch.relu(torch.ones(2, 2, requires_grad=True)))
        >>> x, baseline = torch.tensor([[2.0, -1.0]]), torch.tensor([[-2.0, -1.0]])
        >>> both = torch.cat([x, baseline]).requires_grad_()
        >>> with Rescaling(places=places):
        ...     logits = torch.relu(both)
        >>> torch.autograd.grad(logits[0].sum(), both)[0][0]
        tensor([0.5000, 0.0000])
    """

    def __init__(self, eps: float = 1e-10, places: list[int | None] | None = None) -> None:
        super().__init__()
        self.eps = eps
        self._places = None if places is None else iter(places)
        self._found: list[int | None] = []
        self.unruled: dict[str, None] = {}

    @classmethod
    def find_places(cls, run: Callable[[], Any]) -> list[int | None]:
        """Return where samples and baselines stand in each argument of a rule: in halves of which dimension.

        Networks move the batch around: attention turns ``(N, L, E)`` into ``(L, N, E)``.

        Args:
            run: calls the network on a batch whose second half repeats the first.
        """
        mode = cls()
        with mode, torch.enable_grad():
            run()
        return mode._found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        base = name.rstrip("_") if name.endswith("_") and not name.endswith("__") else name
        call = Call(func, args, kwargs)
        if base not in RULED or not call.depends():
            if base not in LINEAR and call.depends():
                self.unruled[name] = None
            return func(*args, **kwargs)
        in_place = kwargs.pop("inplace", False) or base != name
        if not in_place:
            return self._ruled(base, call)
        # A copy: the rule needs the value that is overwritten.
        func = func if base == name else _out_of_place(base, func)
        return args[0].copy_(self._ruled(base, Call(func, (args[0].clone(), *args[1:]), kwargs)))

    def _ruled(self, name: str, call: Call) -> Any:
        if name in COMPOSED:
            with self:
                return COMPOSED[name](*call.args, **call.kwargs)
        if name in OPENED:
            with self:
                return _without_own_check(call.func)(*call.args, **call.kwargs)
        if name in PRODUCTS and len(call.values()) == 1:
            return call.plain()
        places = [self._place(value) for value in call.values()]
        data = [i for i, place in enumerate(places) if place is not None]
        if not data:
            self.unruled[name] = None
            return call.plain()
        if name in PRODUCTS:
            return call.plain() if len(data) == 1 else self._midpoint(call, data, places)
        if name in ONE_NUMBER and len(data) == 1:
            return self._rescale(call, data[0], places[data[0]])
        if name in MAXIMA | MINIMA:
            return self._crossing(call, data, places, torch.maximum if name in MAXIMA else torch.minimum)
        self.unruled[name] = None
        return call.plain()

    def _place(self, value: Tensor) -> int | None:
        if self._places is not None:
            return next(self._places, None)
        with torch.no_grad():
            even = (d for d, size in enumerate(value.shape) if size % 2 == 0 and size)
            place = next((d for d in even if _is_repeated(value, d)), None)
        self._found.append(place)
        return place

    def _rescale(self, call: Call, i: int, place: int | None) -> Tensor:
        inner, out = call.traced([i])
        if out.shape != inner[0].shape:  # broadcast against a constant
            inner, out = call.traced([i], call.values()[i].expand(out.shape))
        change, change_out = _change(inner[0], place), _change(out, place)

        def pullback(given: Tensor) -> tuple[Tensor, ...]:
            (plain,) = torch.autograd.grad(out, inner, given, retain_graph=True)
            part = _samples(given, place) * change_out
            return (_half(self._multiplier(part, change, _samples(plain, place)), place),)

        return _Ruled.apply([out.detach()], pullback, call.values()[i].expand(out.shape))

    def _midpoint(self, call: Call, data: list[int], places: list[int | None]) -> Tensor:
        values = call.values()
        mean = [torch.cat([_mean(values[i].detach(), places[i])] * 2, places[i] or 0) for i in data]
        inner, out = call.traced(data, *mean)

        def pullback(given: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(out, inner, given, retain_graph=True)

        return _Ruled.apply([call.plain_detached()], pullback, *(values[i] for i in data))

    def _crossing(self, call: Call, data: list[int], places: list[int | None], most: Callable[..., Tensor]) -> Any:
        inner, result = call.traced(data)
        out = result if isinstance(result, Tensor) else result[0]
        place = self._place(out)
        if place is None:  # a maximum over the samples themselves
            self.unruled[getattr(call.func, "__name__", "")] = None
            return call.plain()
        sample, baseline = out.detach().chunk(2, place)
        crossed = most(sample, baseline)
        # Now: the network may write to its tensors before the backward pass.
        changes = [_change(value, places[i]) for value, i in zip(inner, data, strict=True)]

        def pullback(given: Tensor) -> tuple[Tensor, ...]:
            given = _samples(given, place)
            parts = torch.cat([given * (crossed - baseline), given * (sample - crossed)], place)
            routed = torch.autograd.grad(out, inner, parts, retain_graph=True)
            plain = torch.autograd.grad(out, inner, torch.cat([given, given], place), retain_graph=True)
            found = []
            for change, part, gradient, i in zip(changes, routed, plain, data, strict=True):
                one, other = part.chunk(2, places[i] or 0)
                multiplier = self._multiplier(one + other, change, _samples(gradient, places[i]))
                found.append(_half(multiplier, places[i]))
            return tuple(found)

        ruled = _Ruled.apply([out.detach()], pullback, *(call.values()[i] for i in data))
        return ruled if isinstance(result, Tensor) else type(result)((ruled, *(part.detach() for part in result[1:])))

    def _multiplier(self, part: Tensor, change: Tensor, plain: Tensor) -> Tensor:
        """Return the part of the output's change per change of the input, and the plain gradient where there is none.

        Not `< least`: masked scores of attention are infinite on both sides, and their change is no number.
        """
        least = max(self.eps, torch.finfo(change.dtype).tiny)  # 1e-10 is 0 in float16
        return torch.where(change.abs() >= least, part / change, plain)


class _Ruled(torch.autograd.Function):
    """A value whose gradient is what a rule says."""

    @staticmethod
    def forward(ctx: Any, out: list[Tensor], pullback: Pullback, *data: Tensor) -> Tensor:
        # In a list: of a tensor argument autograd would return a view, to which the network could not write.
        ctx.pullback = pullback
        return out[0]

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        with torch.enable_grad():
            return None, None, *ctx.pullback(given[0])


def _is_repeated(value: Tensor, dim: int) -> bool:
    one, other = value.chunk(2, dim)
    return torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def _samples(value: Tensor, place: int | None) -> Tensor:
    """Return the half that belongs to the samples."""
    return value.chunk(2, place or 0)[0]


def _change(value: Tensor, place: int | None) -> Tensor:
    """Return samples minus baselines."""
    sample, baseline = value.detach().chunk(2, place or 0)
    return sample - baseline


def _mean(value: Tensor, place: int | None) -> Tensor:
    sample, baseline = value.chunk(2, place or 0)
    return (sample + baseline) / 2


def _half(multiplier: Tensor, place: int | None) -> Tensor:
    """Return the samples' gradient, filled up: nobody asks for that of the baselines."""
    return torch.cat([multiplier, torch.zeros_like(multiplier)], place or 0)


def _out_of_place(base: str, func: Callable[..., Any]) -> Callable[..., Any]:
    return next((getattr(owner, base) for owner in (torch, F, Tensor) if hasattr(owner, base)), func)


def _without_own_check(func: Any) -> Callable[..., Any]:
    """Return a function of ``torch.nn.functional`` whose body runs at once, rather than through modes as a whole."""
    never = {name: lambda *_: False for name in func.__globals__ if name.startswith("has_torch_function")}
    opened = types.FunctionType(func.__code__, {**func.__globals__, **never}, func.__name__, func.__defaults__)
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened


class RescaledForward(Forward):
    """The network as Captum's DeepLift calls it, with the rules of :class:`Rescaling` in place of Captum's.

    Args:
        network: the module, whose parameters lose ``requires_grad`` unless ``by_layer``.
        arguments: what it is called with.
        eps: as for :class:`Rescaling`.
        by_layer: whether a layer is explained, which may come before anything that depends on the inputs (an
            embedding).
        options: passed to :class:`~lit_xai.attribution.adapter.Forward`.
    """

    def __init__(
        self, network: nn.Module, arguments: SplitInputs, *, eps: float = 1e-10, by_layer: bool = False, **options: Any
    ) -> None:
        super().__init__(network, arguments, **options)
        self._eps = eps
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.requires_grad and by_layer)
        values = arguments.rows(slice(0, 1))
        twice = [_noisy_pair(values[i]) for i in (*arguments.explained, *arguments.along)]
        self._places = Rescaling.find_places(lambda: self._logits(*twice))

    def apply(self, fn: Callable[[nn.Module], None]) -> "RescaledForward":
        """Do nothing: this is how Captum's DeepLift would attach its own rules to the modules."""
        return self

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits of samples and baselines, or of either alone where no gradients are wanted."""
        if not torch.is_grad_enabled():
            return super().forward(*tensors)
        with Rescaling(self._eps, self._places) as rules:
            logits = super().forward(*tensors)
        self.unruled |= rules.unruled
        sample, baseline = logits.detach().chunk(2)
        self._change = sample - baseline
        return logits

    def delta(self, attributions: Any, target: int | Tensor | None) -> Tensor:
        """Return the sum of each sample's attributions minus the change of its output in the latest pass, ``(N,)``.

        Args:
            attributions: ``(N, ...)``, or a tuple of such.
            target: as Captum got it.
        """
        parts = (attributions,) if isinstance(attributions, Tensor) else attributions
        sums = torch.stack([part.detach().reshape(len(part), -1).sum(1) for part in parts]).sum(0)
        # (N * baselines, ...), those of a sample next to each other -> (N, ...)
        change = self._change.reshape(len(sums), -1, *self._change.shape[1:]).mean(1)
        if isinstance(target, int):
            change = change[:, target]
        elif target is not None:
            change = change.gather(1, target.expand(len(sums))[:, None])[:, 0]
        return sums - change


def _noisy_pair(value: Tensor) -> Tensor:
    """Return one sample twice, floats with noise: two of its features should not be equal by chance."""
    if not value.is_floating_point():
        return torch.cat([value, value])
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    noisy = value.detach() + noise * value.detach().abs().mean().clamp(min=1e-3)
    return torch.cat([noisy, noisy]).requires_grad_()
