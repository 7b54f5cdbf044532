"""Cases in which Captum returns wrong attributions without a warning, detected before it runs.

GuidedBackprop, Deconvolution and LRP rewrite the backward pass of *modules*. A function call (``torch.relu(x)``), or a
module class that they do not know, silently keeps its plain gradient. In DeepLift the few
functions without a rule in :mod:`lit_xai.attribution.functions` do.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from lit_xai.attribution.functions import RULED
from lit_xai.attribution.methods import rescales
from lit_xai.network.calling import module_names
from lit_xai.network.copying import copy_network
from lit_xai.network.describing import describe

# Functions by torch's names. LRP has rules for some of them, but only as modules of certain classes.
_NONLINEAR = frozenset(
    {
        *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "celu", "gelu", "silu", "mish"),
        *("hardswish", "hardsigmoid", "hardtanh", "glu", "prelu", "rrelu", "sigmoid", "sigmoid_", "tanh", "tanh_"),
        *("softplus", "softsign", "softmax", "log_softmax", "log_sigmoid", "clamp", "clamp_", "clamp_min", "maximum"),
        *(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *("layer_norm", "group_norm", "instance_norm", "rms_norm", "lstm", "gru", "rnn_tanh", "rnn_relu"),
        *("scaled_dot_product_attention", "multi_head_attention_forward"),
    }
)
# LRP has rules for linear modules too: in x + y as a function, each summand would get all of the relevance.
_LINEAR_FUNCTIONS = frozenset(
    {
        *("add", "add_", "sub", "sub_", "__rsub__", "mul", "mul_", "div", "div_", "mean", "sum", "matmul", "bmm"),
        *("einsum", "linear", "conv1d", "conv2d", "conv3d", "batch_norm"),
        *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
    }
)
# Neither linear nor among DeepLift's rules.
_WITHOUT_RULE = frozenset(
    {
        *(f"{kind}{end}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for end in ("", "_cell")),
        *(
            "prod",
            "cumprod",
            "cummax",
            "sort",
            "topk",
            "median",
            "kthvalue",
            "std",
            "var",
            "cosine_similarity",
            "cdist",
        ),
        *("fractional_max_pool2d", "fractional_max_pool3d", "gumbel_softmax"),
    }
)
_RECTIFIERS = frozenset({"relu"})
_LINEAR = (
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Upsample, nn.PixelShuffle),
)


def check_pitfalls(method: type, network: nn.Module, run: Callable[[], Any]) -> "Watch | None":
    """Warn of non-linear operations that the method does not see, and refuse modules that it cannot explain.

    Args:
        method: the attribution class.
        network: the module that is explained.
        run: calls the network on one sample; called once for the methods concerned, and not at all for the others.

    Returns:
        The modules and functions that ran, or ``None`` for methods that work with any network.

    Raises:
        ValueError: the method is LRP, and a module is used more than once.

    Warns:
        UserWarning: names each operation that the method treats as a plain gradient, and the module it is in.

    Example:
        >>> from captum.attr import DeepLift
        >>> network, x = nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.zeros(1, 4)
        >>> check_pitfalls(DeepLift, network, lambda: network(x)).calls
        Counter({'0': 1, '1': 1})
    """
    rules = _rules(method)
    if rules is None:
        return None
    with torch.no_grad(), Watch(network) as seen:
        run()
    reused = [name for name, count in seen.calls.items() if count > 1 and rules.once(seen.modules[name])]
    if reused:
        raise ValueError(
            f"{method.__name__} cannot explain a module that is used more than once: {', '.join(map(repr, reused))}."
            " Give each use a module of its own, or use method='IntegratedGradients'."
        )
    missed = [
        f"{function} in {name or 'the network itself'} ({type(seen.modules[name]).__name__})"
        for function, name in seen.functions
        if function.rstrip("_") in rules.functions and not rules.handles(seen.modules[name])
    ]
    if missed:
        sums = " (for sums captum.attr._utils.custom_modules.Addition_Module)" if "LRP" in method.__name__ else ""
        why, mend = "since it only knows modules of certain classes", f"Make them modules such as nn.ReLU{sums}, or use"
        if rescales(method):
            why, mend = "since it has no rule for them", "Use"
        warnings.warn(
            f"{method.__name__} treats these as plain gradients, {why}: {'; '.join(dict.fromkeys(missed))}. {mend}"
            " method='IntegratedGradients'.",
            stacklevel=3,
        )
    return seen


def check_layer(layer: str, network: nn.Module, run: Callable[[], Tensor]) -> None:
    """Refuse a layer that does not run, or returns anything but tensors with one row per sample.

    Args:
        layer: its dotted name.
        network: the module that has the layer.
        run: calls the network on a sample or two and returns the logits.

    Raises:
        ValueError: the layer does not fit; describes what it returned.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 2), nn.Flatten(0))
        >>> check_layer("1", network, lambda: network(torch.zeros(3, 4))[:3])
        Traceback (most recent call last):
        ...
        ValueError: layer='1' expected to return one row for each of 3 samples, but got Tensor[6] float32: name ...
    """
    seen: list[Any] = []
    handle = module_names(network, aliases=True)[layer].register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    try:
        with torch.no_grad():
            rows = len(run())
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"layer={layer!r} does not run when the network is called: name one that does.")
    parts = seen[0] if isinstance(seen[0], tuple) else (seen[0],)
    if not all(isinstance(part, Tensor) and part.dim() and len(part) == rows for part in parts):
        raise ValueError(
            f"layer={layer!r} expected to return one row for each of {rows} samples, but got {describe(seen[0])}: name"
            " a layer inside it, or the one after it."
        )


def attach_lrp_rules(network: nn.Module, seen: "Watch", layer: str | None = None) -> None:
    """Attach the epsilon rule to linear modules that LRP knows no rule for, and refuse non-linear ones by name.

    Flatten, Identity, Conv1d or BatchNorm1d are linear maps, for which the rule holds as it stands (Bach et al. 2015);
    Captum merely lists fewer classes. Modules that did not run (a loss, a metric) need no rule, but Captum fails where
    one has none.

    Args:
        network: a copy made for LRP; rules are attributes of its modules, and existing ones are kept.
        seen: the modules that ran in the original.
        layer: the layer whose relevance is wanted.

    Raises:
        ValueError: a module that is neither linear nor known to LRP, or a layer without a rule.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> with Watch(network) as seen:
        ...     _ = network(torch.zeros(1, 4))
        >>> attach_lrp_rules(network, seen)
        >>> network[0].rule.__class__.__name__
        'EpsilonRule'
    """
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS
    from captum.attr._utils.lrp_rules import EpsilonRule

    # Captum compares types, not instances: a subclass has no rule.
    known = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS)
    for name, module in {"": network, **module_names(network)}.items():
        if _is_leaf(module):
            module.register_forward_pre_hook(_copy_inputs)
        if not _is_leaf(module) or type(module) in known or hasattr(module, "rule"):
            continue
        if name in seen.calls and not isinstance(module, _LINEAR):
            raise ValueError(
                f"LRP has no rule for {name!r} ({type(module).__name__}): set one as its attribute `rule`, from"
                " captum.attr._utils.lrp_rules, or use method='IntegratedGradients'."
            )
        module.rule = EpsilonRule()
    if layer is not None:
        chosen = module_names(network)[layer]
        if type(chosen) in SUPPORTED_NON_LINEAR_LAYERS or not _is_leaf(chosen):
            raise ValueError(
                f"layer={layer!r}: LayerLRP reads the relevance at layers with a rule, such as a convolution, but got"
                f" {type(chosen).__name__}."
            )


def _copy_inputs(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a module tensors of its own: the hooks of two that share one would both rewrite its gradient."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in args)


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def prepare_for_lrp(method: type, network: nn.Module, seen: "Watch", layer: str | None = None) -> nn.Module:
    """Return a copy of the network with rules for LRP, and the network itself for any other method.

    LRP rewrites weights and leaves its rules behind.

    Args:
        method: the attribution class.
        network: the module that is explained.
        seen: as :func:`check_pitfalls` returned it.
        layer: the layer whose relevance is wanted.

    Raises:
        ValueError: as :func:`attach_lrp_rules`.

    Example:
        >>> from captum.attr import DeepLift
        >>> network = nn.Linear(4, 2)
        >>> prepare_for_lrp(DeepLift, network, Watch(network)) is network
        True
    """
    if "LRP" not in method.__name__:
        return network
    copied = copy_for_lrp(network)
    attach_lrp_rules(copied, seen, layer)
    return copied


def copy_for_lrp(network: nn.Module) -> nn.Module:
    """Deep-copy the network, parametrized weights turned into plain ones.

    LRP looks for its rules at modules that have no children, which a parametrized one has.

    Example:
        >>> network = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
        >>> list(copy_for_lrp(network).children()), list(network.children()) != []
        ([], True)
    """
    copied = copy_network(network)
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            _bake(module)
    return copied


def _bake(module: nn.Module) -> None:
    # Not remove_parametrizations: it edits the class, which a deep copy shares with the original.
    names = [name for name, _ in module.get_submodule("parametrizations").named_children()]
    values = {name: getattr(module, name).detach() for name in names}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def keep_lrp_rules(explainer: Any) -> None:
    """Replace LRP's removal of all rules, after which its next call would silently use the default ones.

    Args:
        explainer: Captum's LRP, on a copy of the network.
    """
    for layer in explainer.layers:
        if layer.rule is None:  # of an activation: Captum sets it in each call, and refuses one that has it already
            del layer.rule


class _Rules(NamedTuple):
    """The operations that a method has rules for."""

    functions: frozenset[str]  # the ones it would need a rule for
    handles: Callable[[nn.Module], bool]  # whether it covers functions that run inside this module
    once: Callable[[nn.Module], bool]  # whether it fails when this module runs twice


def _rules(method: type) -> _Rules | None:
    name = method.__name__
    if rescales(method):
        return _Rules((_NONLINEAR | _WITHOUT_RULE) - RULED, lambda module: False, once=lambda module: False)
    if "LRP" in name:
        from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS

        def redistributes(module: nn.Module) -> bool:
            return type(module) in SUPPORTED_LAYERS_WITH_RULES or isinstance(module, _LINEAR) or hasattr(module, "rule")

        return _Rules(
            _NONLINEAR | _LINEAR_FUNCTIONS,
            lambda module: redistributes(module) or type(module) in SUPPORTED_NON_LINEAR_LAYERS,
            once=redistributes,
        )
    if "GuidedBackprop" in name or "GuidedGradCam" in name or "Deconvolution" in name:
        # By definition these change the gradient of rectifiers alone.
        return _Rules(_RECTIFIERS, lambda module: isinstance(module, nn.ReLU), once=lambda module: False)
    return None


class Watch(TorchFunctionMode):
    """Record how often each module runs, and which functions that matter run inside which module.

    Args:
        network: the module to watch inside the context.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.modules = {"": network, **module_names(network)}
        self.calls: Counter[str] = Counter()
        self.functions: list[tuple[str, str]] = []
        self._stack = [""]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Watch":
        for name, module in self.modules.items():
            if name:
                enter = partial(self._enter_module, name)
                # Before users' hooks, since those may compute: torch.nn.utils.prune multiplies weights in one.
                self._handles.append(module.register_forward_pre_hook(enter, prepend=True))
                self._handles.append(module.register_forward_hook(self._leave_module, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for handle in self._handles:
            handle.remove()

    def _enter_module(self, name: str, *_: Any) -> None:
        self.calls[name] += 1
        self._stack.append(name)

    def _leave_module(self, *_: Any) -> None:
        self._stack.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, place = getattr(func, "__name__", ""), self._stack[-1]
        subject = next(iter((*args, *(kwargs or {}).values())), None)
        # Scalars and vectors are statistics or scales, and a weight's parametrization does not see the data.
        is_data = isinstance(subject, Tensor) and subject.dim() > 1 and "parametrizations." not in place
        if is_data and name in _NONLINEAR | _WITHOUT_RULE | _LINEAR_FUNCTIONS:
            self.functions.append((name, place))
        return func(*args, **(kwargs or {}))
