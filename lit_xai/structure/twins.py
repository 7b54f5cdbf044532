"""Parts of a module that follow the weights of another part: target networks, momentum encoders, averages.

Nothing in a module says so. What tells a follower is that it has the architecture of a part that is trained, that no
optimizer trains it, as it is given to none or has no gradients, and that its weights move all the same: the training
step writes to them, or they stay near those of that part, or are loaded from it. A frozen teacher of the same
architecture has the first two, and stays whole.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import plain_name
from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.kinds import Step
from lit_xai.structure.recipe import recipe_of

NEAR = 0.5
"""The cosine of the weights of two parts from which on one may follow the other: independent ones are near 0."""


class Twins:
    """The untrained parts of a module that may follow one of its trained parts, cut in step with it.

    While it is attached, such a part can also be loaded with the state of a part that was cut or quantized: it is cut
    first, and stays in float.

    Args:
        module: with the weights that its training starts from.
        optimizers: returns those that train it now.
        take_step: takes a step on the module, and records it.
        written: names of the parameters that the training step writes to, as far as that is known.
        untaught: names of those that the loss has no gradient for, whatever optimizer they are given to.

    Example:
        >>> module = nn.ModuleDict({"net": nn.Linear(3, 2), "target": nn.Linear(3, 2)})
        >>> optimizer = torch.optim.SGD(module["net"].parameters())
        >>> twins = Twins(module, lambda: [optimizer], take_step=print)
        >>> step = {"kind": "prune", "kept": [["net.weight", 1, 3, [0, 2]]], "attributes": []}
        >>> twins.resting(step)
        {'target': 'net'}
        >>> module["target"].load_state_dict(module["net"].state_dict())
        <All keys matched successfully>
        >>> twins.in_step(step)["kept"]
        [['net.weight', 1, 3, [0, 2]], ['target.weight', 1, 3, [0, 2]]]
        >>> twins.detach()
    """

    def __init__(
        self,
        module: nn.Module,
        optimizers: Callable[[], Iterable[torch.optim.Optimizer]],
        take_step: Callable[[Step], object],
        written: Collection[str] = (),
        untaught: Collection[str] = (),
    ) -> None:
        self._module, self._optimizers, self._take_step = module, optimizers, take_step
        self._written, self._untaught = frozenset(written), frozenset(untaught)
        self._models = _models(module, self._trained())
        self._start = {name: _digest(self._part(name)) for name in self._models}
        self._names = {name: set(self._part(name).state_dict()) for name in self._models}
        self._loads = {name: self._loader(name) for name in self._models}
        for name, load in self._loads.items():
            wrap(self._part(name), "load_state_dict", load)

    def detach(self) -> None:
        """Leave the methods of the parts as they were."""
        for name, load in self._loads.items():
            unwrap(self._part(name), "load_state_dict", load)
        self._loads = {}

    def in_step(self, step: Step) -> Step:
        """Return a cut with the same cut of the parts that follow those it cuts; other steps as they are."""
        for name in self._untrained():
            more = _renamed(step, self._model(name), name)
            if more["kept"] and self._follows(name):
                step = {**step, **{key: [*step[key], *entries] for key, entries in more.items()}}
        return step

    def resting(self, step: Step) -> dict[str, str]:
        """Return the parts that have not moved so far, with the part like them that a step cuts."""
        resting = {name: self._model(name) for name in self._untrained() if not self._follows(name)}
        return {name: model for name, model in resting.items() if _renamed(step, model, name)["kept"]}

    def compared(self, others: Mapping[str, Collection[str]]) -> dict[str, str]:
        """Return the trained parts whose outputs have to keep their width, with the part that may follow each.

        A follower loses the channels that its model loses. Where its result goes into a follower of the next part, that
        expects no more; whatever else takes it, such as a loss that compares it with what a third part gives, does.

        Args:
            others: names of parts whose results reach the loss beside the network's, each with the parts that take its
                result.

        Example:
            >>> module = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("encoder", "average")})
            >>> optimizer = torch.optim.SGD(module["encoder"].parameters())
            >>> Twins(module, lambda: [optimizer], take_step=print).compared({"average": ()})
            {'encoder': 'average'}
        """
        untrained = self._untrained()
        compared: dict[str, str] = {}
        for called, takers in others.items():
            if takers and all(_outer(one, untrained) is not None for one in takers):
                continue
            outer = _outer(called, untrained)
            # A part of a follower, a follower, or one inside of another part, of which it is not known what becomes.
            pairs = [(outer, called)] if outer is not None else [(n, n) for n in untrained if _is_in_part(n, called)]
            compared |= {f"{self._model(name)}{part.removeprefix(name)}": part for name, part in pairs}
        return compared

    def _part(self, name: str) -> nn.Module:
        return self._module.get_submodule(name)

    def _untrained(self) -> list[str]:
        # Asked anew: finetuning callbacks give frozen parts to an optimizer during the run.
        trained = self._trained()
        return [name for name in self._models if not _is_in(self._part(name), trained)]

    def _trained(self) -> set[int]:
        """Return the ids of the parameters that an optimizer trains: those that it is given and that have gradients."""
        named = {id(one): plain_name(name) for name, one in self._module.named_parameters()}
        trained = set()
        for optimizer in self._optimizers():
            for one in (one for group in optimizer.param_groups for one in group["params"] if one.requires_grad):
                # A step that was not watched may teach what the watched one did not.
                if named.get(id(one)) not in self._untaught or one.grad is not None or optimizer.state.get(one):
                    trained.add(id(one))
        return trained

    def _follows(self, name: str) -> bool:
        # In a resumed run an earlier cut tells, where the weights have not moved again yet.
        is_cut = any(_is_about(entry, name) for step in recipe_of(self._module).steps for entry in _kept(step))
        if any(_is_in_part(one, name) for one in self._written):
            return True
        if is_cut or torch.equal(_digest(self._part(name)), self._start[name]):
            return is_cut
        return _cosine(self._part(name), self._part(self._model(name))) > NEAR

    def _model(self, name: str) -> str:
        """Return the part that another follows: of several with its shapes, the one with the nearest weights."""
        part = self._part(name)
        alike = [one for one in self._models[name] if _shapes_of(self._part(one)) == _shapes_of(part)]
        return max(alike or self._models[name], key=lambda one: _cosine(part, self._part(one)))

    def _loader(self, name: str) -> Callable[..., Any]:
        def load(method: Callable[..., Any], state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
            for model in self._models[name]:
                if _shapes(state_dict) == _shapes_of(self._part(model)):
                    # Of what quantization adds to a part, a follower has nothing.
                    state_dict = {key: value for key, value in state_dict.items() if key in self._names[name]}
                    if _shapes(state_dict) != _shapes_of(self._part(name)):
                        self._catch_up(model, name)
                    break
            return method(state_dict, *args, **options)

        return load

    def _catch_up(self, model: str, name: str) -> None:
        """Take the cuts of a part on one that is about to be loaded with its weights."""
        for step in recipe_of(self._module).steps:
            missing = _renamed(step, model, name)
            if missing["kept"] and not any(_is_about(entry, name) for entry in step["kept"]):
                self._take_step({**step, **missing})


def _kept(step: Step) -> list[Any]:
    return step["kept"] if step["kind"] == "prune" else []


def _is_about(entry: list[Any], name: str) -> bool:
    return _is_in_part(entry[0], name)


def _is_in_part(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _outer(name: str, parts: Iterable[str]) -> str | None:
    """Return which of several parts is one, or has it inside."""
    return next((part for part in parts if _is_in_part(name, part)), None)


def _renamed(step: Step, model: str, name: str) -> dict[str, list[Any]]:
    """Return what a cut says about one part, under the name of another."""
    entries = {"kept": _kept(step), "attributes": step["attributes"] if step["kind"] == "prune" else []}
    return {
        key: [[f"{name}{entry[0].removeprefix(model)}", *entry[1:]] for entry in found if _is_about(entry, model)]
        for key, found in entries.items()
    }


def _is_in(part: nn.Module, trained: set[int]) -> bool:
    return any(id(parameter) in trained for parameter in part.parameters())


def _models(module: nn.Module, trained: set[int]) -> dict[str, list[str]]:
    """Return the trained parts of the class and shapes of each untrained part; of nested ones, the outermost."""
    parts = {name: part for name, part in module.named_modules() if name and any(True for _ in part.parameters())}
    models: dict[str, list[str]] = {}
    for name, part in parts.items():
        if _is_in(part, trained) or any(name.startswith(f"{outer}.") for outer in models):
            continue
        alike = [one for one, other in parts.items() if type(other) is type(part) and _is_in(other, trained)]
        alike = [one for one in alike if _shapes_of(parts[one]) == _shapes_of(part)]
        if alike:
            models[name] = alike
    return models


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def _shapes_of(part: nn.Module) -> dict[str, tuple[int, ...]]:
    return _shapes(part.state_dict())


@torch.no_grad()
def _digest(part: nn.Module) -> Tensor:
    """Return two numbers for each parameter, which hardly any update leaves as they are."""
    values = [parameter.detach().double() for parameter in part.parameters()]
    return torch.stack([torch.stack([value.sum(), value.square().sum()]).cpu() for value in values])


@torch.no_grad()
def _cosine(one: nn.Module, other: nn.Module) -> float:
    """Return the cosine of the weights of two parts, over parameters of one shape."""
    pairs = [(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True) if p.shape == q.shape]
    dot, first, second = (
        sum(float((a.double() * b.double()).sum()) for a, b in products)
        for products in (pairs, [(p, p) for p, _ in pairs], [(q, q) for _, q in pairs])
    )
    return dot / ((first * second) ** 0.5 or 1.0)
