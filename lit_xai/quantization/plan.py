"""The plan of a quantization as a file holds it: which tensors become which integers."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from annotated_types import Ge, Le
from torch import nn
from typing_extensions import TypedDict

from lit_xai.network.calling import module_names
from lit_xai.network.check import refusal
from lit_xai.network.spelling import nearest
from lit_xai.quantization.folding import check_pairs
from lit_xai.quantization.quantization import check_scheme, most_bits
from lit_xai.quantization.tables import is_table
from lit_xai.structure.schema import Checked, ListOf, NonNegative, Row, closed, shown


def _check_bits(value: Any) -> Any:
    if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
        raise ValueError("layers by name")
    check_scheme(dict(value) if isinstance(value, dict) else value, "any", "unsigned")
    return value


@closed
class SchemeEntries(TypedDict):
    """The arguments that a plan was made with."""

    bits: Annotated[Any, Checked(_check_bits)]
    cpu: str
    activations: str


@closed
class SiteEntries(TypedDict):
    """One tensor to quantize, see :data:`~lit_xai.quantization.observers.Site`."""

    name: str
    layer: str
    low: Annotated[int, Ge(-128), Le(0)]
    high: Annotated[int, Ge(0), Le(255)]
    channels: NonNegative
    inputs: NotRequired[str]


@closed
class PlanEntries(TypedDict):
    """See :data:`~lit_xai.quantization.quantization.Plan`. 0.1 wrote no norms, as it had folded them."""

    sites: Annotated[list[Any], ListOf(SiteEntries)]
    float_layers: Annotated[list[Any], ListOf(str)]
    norms: NotRequired[Annotated[list[Any], ListOf(Annotated[Any, Row((str, str))])]]
    scheme: SchemeEntries


def check_plan(plan: Mapping[str, Any]) -> None:
    """Refuse a plan that contradicts its own scheme: integers of other widths, inputs that are no site.

    Args:
        plan: has the entries of :class:`PlanEntries`.

    Raises:
        ValueError: names the site.
    """
    scheme = plan["scheme"]
    check_scheme(scheme["bits"], scheme["cpu"], scheme["activations"])
    names = [site["name"] for site in plan["sites"]]
    if len(set(names)) < len(names):
        raise refusal(
            "The sites of a 'quantize' step", "names that differ", next(n for n in names if names.count(n) > 1)
        )
    weights, tables = (_weight_limits(scheme, most) for most in (most_bits(scheme["cpu"], scheme["activations"]), 8))
    activations = {"unsigned": [(0, 255)], "symmetric": [(-128, 127)], "float": []}[scheme["activations"]]
    for site in plan["sites"]:
        name, is_weight = site["name"], site["name"].endswith("/weight")
        # A name is a key of a ModuleDict; those of the network's own functions have no layer before them.
        if "." in name or not name or is_weight != (site["channels"] > 0):
            raise refusal("The name of a site of a 'quantize' step", "that of a weight or an activation", shown(name))
        allowed = activations if not is_weight else tables if is_table(name) else weights
        if (site["low"], site["high"]) not in allowed:
            limits = (site["low"], site["high"])
            raise refusal(f"The integers of site {name!r}", f"those of the scheme {shown(dict(scheme))}", limits)
        if site.get("inputs", name) not in names:
            raise refusal(f"The inputs of site {name!r}", "another site", site["inputs"])


def _weight_limits(scheme: Mapping[str, Any], most: int) -> list[tuple[int, int]]:
    bits = {8, *scheme["bits"].values()} if isinstance(scheme["bits"], Mapping) else {scheme["bits"]}
    return [(-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in {min(n, most) for n in bits}]


def check_plan_fits(network: nn.Module, plan: Mapping[str, Any]) -> None:
    """Refuse a plan for another network.

    Raises:
        ValueError: names the first layer that the network does not have, or that is too small.
    """
    modules = {"": network, **module_names(network)}
    norms = plan.get("norms", ())
    names = itertools.chain((site["layer"] for site in plan["sites"]), plan["float_layers"], *norms)
    missing = next((name for name in names if name not in modules), None)
    if missing is not None:
        raise ValueError(f"it has no {missing!r}.{nearest(missing, modules)}")
    # Another size is told by the weights, which follow: this keeps the memory within that of the network.
    largest = max((parameter.numel() for parameter in network.parameters()), default=0)
    other = next((site for site in plan["sites"] if site["channels"] > largest), None)
    if other is not None:
        raise ValueError(f"no weight of it has the {other['channels']} channels of {other['name']!r}.")
    check_pairs(network, [(layer, norm) for layer, norm in norms])
