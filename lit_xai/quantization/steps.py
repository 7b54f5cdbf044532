"""The structural steps of quantization: insert fake-quantizers; fold BatchNorms, which runs of 0.1 did before that."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import nn

from lit_xai.network.calling import find_network, module_names
from lit_xai.network.spelling import nearest
from lit_xai.quantization.fake_quantizers import NAME, remove_fake_quantizers_
from lit_xai.quantization.folding import check_pairs, fold_batch_norms_, replace_
from lit_xai.quantization.plan import PlanEntries, check_plan, check_plan_fits
from lit_xai.quantization.quantization import prepare_
from lit_xai.structure.following import exchange_
from lit_xai.structure.kinds import Step, StepKind, check_entries
from lit_xai.structure.recipe import Recipe
from lit_xai.structure.schema import ListOf, Positive, Row, entries, shown

NORMS: Mapping[str, Any] = {
    cls.__name__: cls for cls in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
}
"""The BatchNorms that are built again where a fold is undone."""


_Factor = Annotated[float, Ge(0)]
# The class, and with it the key, is the BatchNorm's; the bias is the layer's.
_FACTS = entries(
    {
        "class": str,
        "num_features": Positive,
        "eps": _Factor,
        "momentum": _Factor | None,
        "affine": bool,
        "bias": bool,
    }
)
PAIRS = Annotated[list[Any], ListOf(Annotated[Any, Row((str, str, _FACTS))])]
"""Names of layers and BatchNorms, with what the latter were."""


def fold_step(network: nn.Module, pairs: Iterable[tuple[str, str]], prefix: str = "") -> Step:
    """Return the step that folds BatchNorms into layers: ``{"kind": "fold", "pairs": [[layer, norm, facts]]}``.

    The facts describe the BatchNorm, so that the step can be undone.

    Args:
        network: the module, before it is folded.
        pairs: names of layer and BatchNorm, from :func:`~lit_xai.quantization.folding.find_foldable`.
        prefix: of the network's names in the module that the step is for.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8))
        >>> [(layer, norm, facts["class"]) for layer, norm, facts in fold_step(network, [("0", "1")])["pairs"]]
        [('0', '1', 'BatchNorm1d')]
    """
    modules, entries = module_names(find_network(network)), []
    for layer, norm in pairs:
        module: Any = modules[norm]
        facts = {
            "class": type(module).__name__,
            "num_features": module.num_features,
            "eps": module.eps,
            "momentum": module.momentum,
            "affine": module.affine,
            "bias": modules[layer].bias is not None,  # the layer's
        }
        entries.append([f"{prefix}{layer}", f"{prefix}{norm}", facts])
    return {"kind": "fold", "pairs": entries}


class Fold(StepKind):
    """Fold BatchNorms into the layers before them."""

    name, label, order, stays_float = "fold", "folded", 20, False

    def check(self, step: Step) -> None:
        """Refuse a step whose pairs are none."""
        check_entries(step, pairs=PAIRS)

    def apply_(self, network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
        """Fold; parameters that remain stay the same objects, as optimizers hold references to them.

        A layer without a bias takes over its BatchNorm's, whose gradient is the same: optimizers keep its state.

        Raises:
            ValueError: the network has no such pair; nothing is changed then.
        """
        named = _checked(network, step, folded=False)
        layers: list[Any] = [named[layer] for layer, _, _ in step["pairs"]]
        norms: list[Any] = [named[norm] for _, norm, _ in step["pairs"]]
        # Chosen before the fold, which replaces all of these parameters with new objects.
        biases = [
            layer.bias if layer.bias is not None else norm.bias for layer, norm in zip(layers, norms, strict=True)
        ]
        weights = [layer.weight for layer in layers]
        fold_batch_norms_(network, [(layer, norm) for layer, norm, _ in step["pairs"]])
        gone, added = [], []
        for layer, norm, weight, bias in zip(layers, norms, weights, biases, strict=True):
            # The new values go into the old objects, which optimizers, their state and gradient hooks refer to.
            layer.weight = _with_value(weight, layer.weight)
            if bias is None:  # neither had one
                added.append((layer.bias, weight))
            else:
                layer.bias = _with_value(bias, layer.bias)
            # A BatchNorm's scale, and its bias where the layer had one, leave the optimizers; their updates would have
            # no effect.
            gone += [parameter for parameter in norm.parameters() if parameter is not bias]
        # A bias that neither had is a new parameter: it joins the group of its layer's weight.
        exchange_(optimizers, gone, added)

    def undo_(self, network: nn.Module, step: Step) -> None:
        """Put BatchNorms back, newly initialized: their statistics and weights are lost.

        Raises:
            ValueError: the network does not have the structure that the step led to.
        """
        named = _checked(network, step, folded=True)
        for name, norm, facts in step["pairs"]:
            layer: Any = named[name]
            options = {key: facts[key] for key in ("eps", "momentum", "affine")}
            fresh = NORMS[facts["class"]](facts["num_features"], **options)
            replace_(network, named[norm], fresh.to(layer.weight).train(named[norm].training))
            if not facts["bias"]:
                layer.bias = None


def _with_value(parameter: nn.Parameter, value: nn.Parameter) -> nn.Parameter:
    with torch.no_grad():
        parameter.copy_(value)
    return parameter


def _checked(network: nn.Module, step: Step, folded: bool) -> dict[str, nn.Module]:
    named = module_names(network)
    for layer, norm, facts in step["pairs"]:
        missing = next((name for name in (layer, norm) if name not in named), None)
        if missing is not None:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: it has no {missing!r}.{nearest(missing, named)}"
            )
        reason = _folded_refusal(named[layer], named[norm], facts) if folded else _refusal(named[norm], facts)
        if reason:
            raise ValueError(f"The recipe does not fit {type(network).__name__}: {norm!r} {reason}.")
    if not folded:
        check_pairs(network, [(layer, norm) for layer, norm, _ in step["pairs"]])
        differs = next((layer for layer, _, f in step["pairs"] if _has_bias(named[layer]) != f["bias"]), None)
        if differs is not None:
            raise ValueError(f"The recipe does not fit {type(network).__name__}: {differs!r} expected another bias.")
    return named


def _has_bias(layer: Any) -> bool:
    return layer.bias is not None


def _refusal(norm: Any, facts: Mapping[str, Any]) -> str:
    if type(norm).__name__ != facts["class"]:
        return f"expected {facts['class']}, but got {type(norm).__name__}"
    # Another size is told by the weights, which follow.
    for fact in ("eps", "momentum", "affine"):
        if getattr(norm, fact, None) != facts[fact]:
            return f"expected {fact} {facts[fact]!r}, but got {shown(getattr(norm, fact, None))}"
    return ""


def _folded_refusal(layer: Any, norm: nn.Module, facts: Mapping[str, Any]) -> str:
    if type(norm) is not nn.Identity:
        return f"expected Identity, but got {type(norm).__name__}"
    if facts["class"] not in NORMS:
        return f"expected one of {', '.join(NORMS)} to put back, but got {facts['class']!r}"
    bias = getattr(layer, "bias", None)
    if bias is None or tuple(bias.shape) != (facts["num_features"],):
        return f"expected a layer with a bias of {facts['num_features']} before it"
    return ""


def quantize_step(plan: dict[str, Any], module: str = "") -> Step:
    """Return the step that inserts fake-quantizers as planned: ``{"kind": "quantize", "module", "plan"}``.

    Args:
        plan: from :func:`~lit_xai.quantization.quantization.plan_quantization`.
        module: the network's name in the module that the step is for.

    Example:
        >>> quantize_step({"sites": [], "float_layers": [], "scheme": {}}, "network")["kind"]
        'quantize'
    """
    return {"kind": "quantize", "module": module, "plan": plan}


class Quantize(StepKind):
    """Insert fake-quantizers."""

    name, label, order, once, stays_float, in_place = "quantize", "quantized", 30, True, False, False

    def check(self, step: Step) -> None:
        """Refuse a step whose plan is none, or contradicts its own scheme."""
        check_entries(step, module=str, plan=PlanEntries)
        check_plan(step["plan"])

    def apply_(self, network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
        """Insert fake-quantizers, which observe and do not quantize yet.

        Raises:
            ValueError: the step was written for another network; nothing is changed then.
        """
        part = _part(network, step)
        # Checked before insertion, so that a recipe for another network changes nothing.
        try:
            check_plan_fits(part, step["plan"])
        except ValueError as error:
            raise ValueError(f"The recipe does not fit {type(network).__name__}: {error}") from None
        prepare_(part, step["plan"])

    def undo_(self, network: nn.Module, step: Step) -> None:
        """Remove them.

        Raises:
            ValueError: the network has none.
        """
        part = _part(network, step)
        if not hasattr(part, NAME):
            raise ValueError(f"The recipe does not fit {type(network).__name__}: it has no {NAME!r}.")
        remove_fake_quantizers_(part)


def _part(network: nn.Module, step: Step) -> nn.Module:
    try:
        return find_network(network, step["module"])
    except ValueError as error:
        raise ValueError(f"The recipe does not fit {type(network).__name__}: {error}") from None


def quantize_steps(recipe: Recipe) -> list[Step]:
    """Return the steps of a recipe that insert fake-quantizers: one, or none."""
    return [step for step in recipe.steps if step["kind"] == Quantize.name]
