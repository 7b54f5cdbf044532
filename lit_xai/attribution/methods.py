"""Captum's methods by name or class, what each of them needs, and checks of their options before anything runs."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.calling import module_names
from lit_xai.network.import_path import load_object
from lit_xai.network.spelling import nearest

Method = type | str

# These explain through another method or another kind of model, and cannot be called like the rest.
_NOT_ALONE = ("DataLoaderAttribution", "LLMAttribution", "LLMGradientAttribution", "RemoteLLMAttribution")
# Arguments of Captum that `attribute` fills in.
_FILLED_IN = (
    "self",
    "inputs",
    "target",
    "baselines",
    "layer_baselines",
    "additional_forward_args",
    "return_convergence_delta",
    "internal_batch_size",
    "layer",
)
# These return a layer's attributions but interpolate between baseline and inputs, or differentiate copies of them.
_ON_INPUTS = ("LayerConductance", "LayerGradientShap", "LayerDeepLiftShap", "InternalInfluence")


def resolve_method(method: Method) -> type:
    """Return the attribution class: a class as it is, a name of ``captum.attr``, or an import path.

    Args:
        method: ``IntegratedGradients``, ``"IntegratedGradients"`` or ``"captum.attr.IntegratedGradients"``.

    Raises:
        ValueError: there is no such method (the nearest names are suggested), or it does not explain by itself.

    Example:
        >>> resolve_method("Saliency").__name__
        'Saliency'
    """
    import captum.attr

    found = _method_named(method) if isinstance(method, str) else method
    if not (isinstance(found, type) and issubclass(found, captum.attr.Attribution)):
        raise ValueError(
            f"method expected a captum.attr.Attribution class, its name or import path, but got {method!r}."
        )
    if found is captum.attr.NoiseTunnel:
        raise ValueError(
            "method=NoiseTunnel wraps another method: name that one, and give noise_tunnel={'nt_samples': 10}."
        )
    if found is captum.attr.LayerFeaturePermutation:
        raise ValueError("method=LayerFeaturePermutation fails inside Captum for any target: use LayerFeatureAblation.")
    if found.__name__ in _NOT_ALONE or not hasattr(found, "attribute"):
        raise ValueError(
            f"method={found.__name__} does not explain a network by itself: use one that does, such as"
            " method='IntegratedGradients'."
        )
    return found


def _method_named(method: str) -> Any:
    import captum.attr

    package, _, name = method.rpartition(".")
    if package not in ("", "captum.attr"):
        return load_object(method, "method")
    known = {k: v for k, v in vars(captum.attr).items() if isinstance(v, type) and hasattr(v, "attribute")}
    if name not in known:
        raise ValueError(f"method={method!r} is not in captum.attr.{nearest(name, known)}")
    return known[name]


def constructor_parameters(method: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of the method's constructor by name, ``self`` left out.

    Example:
        >>> list(constructor_parameters(resolve_method("LayerGradCam")))
        ['forward_func', 'layer', 'device_ids']
    """
    return dict(inspect.signature(method).parameters)


def attribute_parameters(method: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of the method's ``attribute`` by name.

    Example:
        >>> list(attribute_parameters(resolve_method("InputXGradient")))
        ['self', 'inputs', 'target', 'additional_forward_args']
    """
    return dict(inspect.signature(method.attribute).parameters)  # type: ignore[attr-defined]  # resolve_method checked


def explains_layer(method: type) -> bool:
    """Return whether the method's constructor takes a layer.

    Example:
        >>> explains_layer(resolve_method("LayerGradCam")), explains_layer(resolve_method("Saliency"))
        (True, False)
    """
    return "layer" in constructor_parameters(method)


def hooks_modules(method: type) -> bool:
    """Return whether the method hooks into the network's modules rather than only calling it.

    Captum's convention: the constructors of those that do take a ``model``, the others a ``forward_func``.

    Example:
        >>> hooks_modules(resolve_method("DeepLift")), hooks_modules(resolve_method("IntegratedGradients"))
        (True, False)
    """
    return "model" in constructor_parameters(method)


def rescales(method: type) -> bool:
    """Return whether the method is DeepLift in one of its forms, to which the library gives rules of its own.

    Example:
        >>> rescales(resolve_method("NeuronDeepLiftShap")), rescales(resolve_method("LRP"))
        (True, False)
    """
    return "DeepLift" in method.__name__


def draws_baselines(method: type) -> bool:
    """Return whether the method's baselines are a distribution that it draws from, rather than one per sample.

    Example:
        >>> draws_baselines(resolve_method("GradientShap")), draws_baselines(resolve_method("KernelShap"))
        (True, False)
    """
    return "GradientShap" in method.__name__ or "DeepLiftShap" in method.__name__


def returns_layer(method: type) -> bool:
    """Return whether the method's attributions are shaped like a layer's activations rather than like the inputs.

    Example:
        >>> returns_layer(resolve_method("LayerGradCam")), returns_layer(resolve_method("GuidedGradCam"))
        (True, False)
    """
    # By module: Captum has no base class for these, and GuidedGradCam takes a layer but explains inputs.
    return any(".layer." in base.__module__ for base in method.__mro__)


def needs_gradients(method: type) -> bool:
    """Return whether the method differentiates the network (rather than perturbing its input).

    Example:
        >>> needs_gradients(resolve_method("Saliency")), needs_gradients(resolve_method("Occlusion"))
        (True, False)
    """
    import captum.attr

    return issubclass(method, captum.attr.GradientAttribution)


def needs_floats(method: type) -> bool:
    """Return whether the method needs floating inputs: to differentiate, or to interpolate between them.

    Example:
        >>> needs_floats(resolve_method("Saliency")), needs_floats(resolve_method("LayerIntegratedGradients"))
        (True, False)
    """
    return needs_gradients(method) and (not returns_layer(method) or method.__name__ in _ON_INPUTS)


def runs_samples_singly(method: type) -> bool:
    """Return whether the method fits a model to each sample, and perturbs one at a time.

    Example:
        >>> runs_samples_singly(resolve_method("KernelShap")), runs_samples_singly(resolve_method("Occlusion"))
        (True, False)
    """
    import captum.attr

    # KernelShap is a Lime, too.
    return issubclass(method, captum.attr.LimeBase)


def copies_per_sample(method: type, n_baselines: int = 1, n_samples: int = 5) -> int:
    """Return how many copies of each sample the method runs in one pass, which Captum does not let be split.

    Args:
        method: the attribution class.
        n_baselines: number of baselines that each sample is compared with.
        n_samples: number of samples that it draws.

    Example:
        >>> copies_per_sample(resolve_method("DeepLift")), copies_per_sample(resolve_method("DeepLiftShap"), 16)
        (2, 32)
    """
    name = method.__name__
    # DeepLift runs inputs and baselines as one batch, and DeepLiftShap every sample with every baseline.
    if "DeepLiftShap" in name:
        return 2 * n_baselines
    if "GradientShap" in name and explains_layer(method):
        return n_samples
    return 2 if "DeepLift" in name or "Conductance" in name else 1


def check_options(
    method: type,
    network: nn.Module,
    layer: str | None = None,
    init_args: Mapping[str, Any] | None = None,
    attribute_args: Mapping[str, Any] | None = None,
    noise_tunnel: Mapping[str, Any] | None = None,
) -> None:
    """Check the options of a method: all are known, none is missing, and layer and noise_tunnel suit the method.

    Args:
        method: the attribution class.
        network: the module that is explained.
        layer: the layer's dotted name.
        init_args: for the method's constructor.
        attribute_args: for the method's ``attribute``.
        noise_tunnel: for ``NoiseTunnel.attribute``.

    Raises:
        ValueError: an unknown or missing layer or option (the nearest names are suggested).

    Example:
        >>> check_options(resolve_method("Occlusion"), nn.Linear(4, 2))
        Traceback (most recent call last):
        ...
        ValueError: Occlusion requires 'sliding_window_shapes': give it in attribute_args.
    """
    constructor = dict(list(constructor_parameters(method).items())[1:])  # the first is the network
    explain = attribute_parameters(method)
    _check_layer(method, network, layer)
    _check_scripted(method, network)
    _check_names("init_args", init_args, method.__name__, constructor)
    _check_names("attribute_args", attribute_args, f"{method.__name__}.attribute", explain)
    _check_required("init_args", init_args, method.__name__, constructor)
    _check_required("attribute_args", attribute_args, method.__name__, explain)
    if noise_tunnel is not None:
        _check_noise_tunnel(method, noise_tunnel)


def _check_layer(method: type, network: nn.Module, layer: str | None) -> None:
    names = module_names(network)
    if not explains_layer(method):
        if layer is not None:
            import captum.attr

            other = next((n for n in (f"Layer{method.__name__}", "LayerGradCam") if hasattr(captum.attr, n)), "")
            raise ValueError(
                f"layer={layer!r}: {method.__name__} explains inputs, not layers; {other} explains layers."
            )
    elif layer is None:
        # The last convolution is the usual choice for Grad-CAM.
        convolutions = [name for name, m in names.items() if type(m).__name__.startswith("Conv")]
        raise ValueError(
            f"{method.__name__} requires layer=, a dotted name such as {(convolutions or list(names) or ['?'])[-1]!r}."
        )
    elif not isinstance(layer, str) or layer not in module_names(network, aliases=True):
        raise ValueError(f"layer={layer!r} is no part of {type(network).__name__}.{nearest(str(layer), names)}")


def _check_scripted(method: type, network: nn.Module) -> None:
    scripted = next((m for m in network.modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if scripted is not None and (explains_layer(method) or hooks_modules(method)):
        raise ValueError(
            f"method={method.__name__} hooks modules, which scripted ones ({scripted.original_name}) do not allow: use"
            " method='IntegratedGradients', or the network before torch.jit.script."
        )


def _check_noise_tunnel(method: type, noise_tunnel: Mapping[str, Any]) -> None:
    from captum.attr import NoiseTunnel

    # Captum marks the methods that NoiseTunnel can wrap by decorating their `attribute`.
    if not hasattr(method.attribute, "__wrapped__"):  # type: ignore[attr-defined]  # resolve_method checked
        raise ValueError(f"noise_tunnel: Captum's NoiseTunnel cannot wrap {method.__name__}.")
    if "DeepLiftShap" in method.__name__:
        raise ValueError(
            f"noise_tunnel: Captum's NoiseTunnel gives {method.__name__} a few of its baselines at random: use"
            f" {method.__name__.removesuffix('Shap')}, or GradientShap."
        )
    _check_names("noise_tunnel", noise_tunnel, "NoiseTunnel.attribute", attribute_parameters(NoiseTunnel))


def _check_names(argument: str, given: Mapping[str, Any] | None, owner: str, known: Any) -> None:
    options = [name for name in known if name not in (*_FILLED_IN, "kwargs")]
    for name in given or ():
        if name in _FILLED_IN:
            raise ValueError(f"{argument}: {name!r} is an argument of its own: give it there.")
        if name not in options:
            raise ValueError(
                f"{argument}: {owner} has no option {name!r}.{nearest(name, options)}"
                f" It takes {', '.join(options) or 'none'}."
            )


def _check_required(
    argument: str, given: Mapping[str, Any] | None, owner: str, known: Mapping[str, inspect.Parameter]
) -> None:
    missing = [
        name
        for name, p in known.items()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and name not in (*_FILLED_IN, *(given or ()))
    ]
    if missing:
        raise ValueError(f"{owner} requires {', '.join(map(repr, missing))}: give it in {argument}.")


def tuples(value: Any) -> Any:
    """Turn lists, as YAML gives them, into the tuples that Captum expects.

    Example:
        >>> tuples({"sliding_window_shapes": [1, 3, 3]})
        {'sliding_window_shapes': (1, 3, 3)}
    """
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def patch_mask(shape: Sequence[int], size: int) -> Tensor:
    """Group features into square patches over the last two dimensions, for methods that take a ``feature_mask``.

    Args:
        shape: of one batch of inputs, ``(N, ..., H, W)``; for ``(N, F)`` neighboring features are grouped.
        size: the patch's side, in elements.

    Returns:
        An int64 tensor ``(1, ..., H, W)``: the patch's number at each position, the same for all channels.

    Raises:
        ValueError: the size is not positive, or the inputs have no features.

    Example:
        >>> patch_mask((8, 1, 4, 4), 2)[0, 0]
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1],
                [2, 2, 3, 3],
                [2, 2, 3, 3]])
    """
    if size < 1 or len(shape) < 2:
        raise ValueError(
            f"feature_mask expected a positive integer and inputs (N, ..., F), but got {size} and {tuple(shape)}."
        )
    height, width = shape[-2] if len(shape) > 2 else 1, shape[-1]
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    # Patches are numbered row by row: columns[-1] + 1 of them in each row.
    mask = rows[:, None] * (int(columns[-1]) + 1) + columns
    return (mask if len(shape) > 2 else mask[0]).expand(1, *shape[1:]).contiguous()
