"""The one safe primitive: explain a network with any method of Captum and leave no trace in it."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.functional.adapter import Arguments, Forward, check_logits
from lit_xai.functional.calling import (
    Inputs,
    OutputSpec,
    call_network,
    copy_network,
    describe,
    find_network,
    module_names,
)
from lit_xai.functional.methods import (
    Method,
    attribute_parameters,
    check_options,
    draws_baselines,
    explains_layer,
    hooks_modules,
    needs_gradients,
    patch_mask,
    resolve_method,
    returns_layer,
    tuples,
)
from lit_xai.functional.pitfalls import attach_lrp_rules, check_pitfalls
from lit_xai.functional.untouched import untouched

# Perturbed samples are only run forward, which holds two layers' activations instead of all of them.
_FORWARD_ONLY = 4


def attribute(
    network: nn.Module,
    inputs: Inputs,
    *,
    method: Method = "IntegratedGradients",
    target: int | Tensor | list[int] | None = None,
    layer: str | None = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    attribute_args: Mapping[str, Any] | None = None,
    noise_tunnel: Mapping[str, Any] | None = None,
    call: str = "forward",
    output: OutputSpec = None,
    internal_batch_size: int = 64,
    seed: int | None = 0,
    return_convergence_delta: bool = False,
) -> Any:
    """Attribute a network's output to its inputs, or to a layer, without touching the network.

    Whatever state the network is in (training, compiled, under autocast or in inference mode, fake-quantised), it is
    explained in eval mode, in its own precision and uncompiled, and afterwards weights, buffers, modes, hooks,
    ``requires_grad`` and every random generator are bit for bit what they were. Equals the same call of Captum
    (https://captum.ai) up to the order of summation.

    Args:
        network: the module to explain; any nn.Module whose output holds one row of logits per sample.
        inputs: what it is called with: a tensor ``(N, ...)``, a tuple of positional or a dict of keyword arguments.
            Floating tensors are explained, or else the first tensor; the others are passed on.
        method: a class of ``captum.attr``, its name, or an import path.
        target: the class to explain, one for all or one per sample ``(N,)``; ``None`` where each sample has one output.
        layer: dotted name of the layer, for the ``Layer*`` methods.
        baselines: as the method takes them; structured like ``inputs``.
        init_args: for the method's constructor.
        attribute_args: for the method's ``attribute``; lists become tuples, and an integer ``feature_mask`` stands for
            square patches of that side.
        noise_tunnel: arguments of ``NoiseTunnel.attribute`` (``{"nt_samples": 10, "stdevs": 0.1}``) to wrap it in one.
        call: the network's method that is called.
        output: where the logits are in its output, see :func:`~lit_xai.functional.find_logits`.
        internal_batch_size: most samples in one forward/backward pass (4 times as many in a pass without gradients):
            the bound on memory.
        seed: for methods that draw; ``None`` continues from the present state of the generators.
        return_convergence_delta: also return how far the attributions are from adding up to the output.

    Returns:
        Attributions structured and shaped like ``inputs`` (``None`` for arguments of a tuple that were passed on,
        absent from a dict), or as the layer's activations. With ``return_convergence_delta`` a pair of that and a
        tensor ``(N,)``, ``None`` for methods that have no such delta.

    Raises:
        ValueError: an unknown method, layer or option, inputs or a target that do not fit; says which and what would.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> x = torch.randn(8, 4)
        >>> torch.allclose(attribute(network, x, target=1), network.weight[1] * x, atol=1e-6)
        True
    """
    cls = resolve_method(method)
    network = find_network(network)
    check_options(cls, network, layer, init_args, attribute_args, noise_tunnel)
    if internal_batch_size < 1:
        raise ValueError(f"internal_batch_size expected a positive integer, but got {internal_batch_size}.")
    with untouched(network, seed), _quiet():
        arguments = _arguments(cls, network, inputs)
        sample = arguments.rebuild(arguments.rows(slice(0, 1)))
        seen = check_pitfalls(cls, network, lambda: call_network(network, sample, call, output))
        if "LRP" in cls.__name__ and seen is not None:
            network = copy_network(network)  # LRP rewrites weights and leaves its rules behind
            attach_lrp_rules(network, seen)
        in_pieces = None if explains_layer(cls) or hooks_modules(cls) else _FORWARD_ONLY * internal_batch_size
        forward = Forward(network, arguments, call, output, target, in_pieces)
        run = _explainer(cls, forward, layer, init_args, noise_tunnel, internal_batch_size)
        with_delta = return_convergence_delta and "return_convergence_delta" in attribute_parameters(cls)
        results, deltas = [], []
        for start in range(0, arguments.n, internal_batch_size):
            rows = slice(start, start + internal_batch_size)
            options = _baselines(cls, arguments, rows, baselines) | _target(cls, rows, target)
            options |= _bounds(cls, arguments, rows, tuples(dict(attribute_args or {})), internal_batch_size)
            if noise_tunnel:
                options |= _noise(cls, arguments, rows, noise_tunnel, internal_batch_size)
            found = _attribute_rows(run, cls, arguments, rows, options, with_delta)
            results.append(found[0] if with_delta else found)
            deltas += [found[1]] if with_delta else []
    attributions = _joined(results)
    shaped = attributions if returns_layer(cls) else arguments.shaped(attributions)
    return (shaped, torch.cat(deltas) if with_delta else None) if return_convergence_delta else shaped


def _arguments(cls: type, network: nn.Module, inputs: Inputs) -> Arguments:
    arguments = Arguments(inputs, any_dtype=not needs_gradients(cls) or explains_layer(cls))
    if not arguments.explained:
        embeddings = [name for name, m in module_names(network).items() if isinstance(m, nn.Embedding)]
        hint = f"layer={embeddings[0]!r}" if embeddings else "layer='...', the first layer that computes floats"
        raise ValueError(
            f"inputs: {cls.__name__} differentiates and needs a floating tensor, but got {describe(inputs)}: explain"
            f" the embedding instead, with method='LayerIntegratedGradients' and {hint}."
        )
    return arguments


def rehearse(
    network: nn.Module,
    inputs: Inputs,
    *,
    method: Method = "IntegratedGradients",
    layer: str | None = None,
    init_args: Mapping[str, Any] | None = None,
    attribute_args: Mapping[str, Any] | None = None,
    noise_tunnel: Mapping[str, Any] | None = None,
    call: str = "forward",
    output: OutputSpec = None,
) -> None:
    """Refuse what :func:`attribute` would refuse, at the price of one forward pass of one sample.

    Args:
        network: as for :func:`attribute`, and so the others.
        inputs: a batch of any size; its first sample is run.
        method: the class, its name or import path.
        layer: dotted name of the layer.
        init_args: for the method's constructor.
        attribute_args: for the method's ``attribute``.
        noise_tunnel: for ``NoiseTunnel.attribute``.
        call: the network's method that is called.
        output: where the logits are.

    Raises:
        ValueError: one sentence that says which argument is wrong, also where the network cannot be called like this.

    Example:
        >>> rehearse(nn.Embedding(10, 4), torch.tensor([[1, 2]]))
        Traceback (most recent call last):
        ...
        ValueError: inputs: IntegratedGradients differentiates and needs a floating tensor, but got Tensor[1, 2]...
    """
    cls = resolve_method(method)
    network = find_network(network)
    check_options(cls, network, layer, init_args, attribute_args, noise_tunnel)
    with untouched(network), torch.no_grad():
        arguments = _arguments(cls, network, inputs)
        sample = arguments.rebuild(arguments.rows(slice(0, 1)))
        try:
            result = call_network(network, sample, call, output)
        except (TypeError, RuntimeError, KeyError, IndexError, NotImplementedError) as error:
            raise ValueError(
                f"{type(network).__name__}.{call} cannot be called with {describe(sample)} ({error}): say with module="
                " which network is meant, and with batch_to_inputs= what of a batch goes into it."
            ) from error
        check_logits(result, 1)
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the real run says it
            seen = check_pitfalls(cls, network, lambda: call_network(network, sample, call, output))
        if "LRP" in cls.__name__ and seen is not None:
            attach_lrp_rules(copy_network(network), seen)


def _attribute_rows(
    run: Callable[..., Any], cls: type, arguments: Arguments, rows: slice, options: dict[str, Any], with_delta: bool
) -> Any:
    values = arguments.rows(rows)
    inputs = tuple(values[i] for i in arguments.explained)
    for value in inputs:
        value.requires_grad_(needs_gradients(cls) and value.is_floating_point())
    along = tuple(values[i] for i in arguments.along)
    if not with_delta:
        return run(inputs, additional_forward_args=along or None, **options)
    found, delta = run(inputs, additional_forward_args=along or None, return_convergence_delta=True, **options)
    return found, delta.detach().reshape(len(inputs[0]), -1).mean(1)


def _target(cls: type, rows: slice, target: Any) -> dict[str, Any]:
    if "target" not in attribute_parameters(cls):
        return {}
    target = torch.as_tensor(target) if isinstance(target, (list, tuple)) else target
    return {"target": target[rows] if isinstance(target, Tensor) and target.dim() else target}


def _baselines(cls: type, arguments: Arguments, rows: slice, baselines: Any) -> dict[str, Any]:
    takes = attribute_parameters(cls)
    name = next((name for name in ("baselines", "layer_baselines") if name in takes), None)
    if name is None:
        if baselines is not None:
            raise ValueError(
                f"baselines expected None, since {cls.__name__} takes none, but got {describe(baselines)}."
            )
        return {}
    given = arguments.like_inputs(baselines)
    if given is None and takes[name].default is takes[name].empty:
        inputs = [arguments.values[i] for i in arguments.explained]
        given = tuple(torch.zeros_like(value[:1]).expand(2, *value.shape[1:]) for value in inputs)
    if isinstance(given, tuple) and not draws_baselines(cls):
        given = tuple(b[rows] if isinstance(b, Tensor) and b.dim() and len(b) == arguments.n else b for b in given)
    return {name: given}


def _bounds(
    cls: type, arguments: Arguments, rows: slice, options: dict[str, Any], internal_batch_size: int
) -> dict[str, Any]:
    """Return the method's own options, the ones that bound memory filled in where they were left out."""
    takes = attribute_parameters(cls)
    inputs = [arguments.values[i][rows] for i in arguments.explained]
    mask = options.get("feature_mask")
    if isinstance(mask, int):
        options["feature_mask"] = tuple(patch_mask(value.shape, mask).to(value.device) for value in inputs)
    elif isinstance(mask, Tensor):
        options["feature_mask"] = (mask[rows] if len(mask) == arguments.n > 1 else mask,)
    if "internal_batch_size" in takes:
        options.setdefault("internal_batch_size", internal_batch_size)
    if "perturbations_per_eval" in takes and not explains_layer(cls):  # Captum's layer methods fail with more than one
        options.setdefault("perturbations_per_eval", max(1, _FORWARD_ONLY * internal_batch_size // len(inputs[0])))
    return options


def _noise(
    cls: type, arguments: Arguments, rows: slice, noise_tunnel: Mapping[str, Any], internal_batch_size: int
) -> dict[str, Any]:
    n = len(arguments.values[arguments.explained[0]][rows])
    found: dict[str, Any] = {"nt_samples_batch_size": max(1, internal_batch_size // n)}
    found |= {"draw_baseline_from_distrib": draws_baselines(cls)}
    found |= tuples(dict(noise_tunnel))
    if "stdevs" in found:
        found["stdevs"] = float(found["stdevs"]) if isinstance(found["stdevs"], int) else found["stdevs"]
    return found


def _explainer(
    cls: type,
    forward: Forward,
    layer: str | None,
    init_args: Mapping[str, Any] | None,
    noise_tunnel: Mapping[str, Any] | None,
    internal_batch_size: int,
) -> Callable[..., Any]:
    from captum.attr import NoiseTunnel

    named = {} if layer is None else {"layer": module_names(forward.network)[layer]}
    explainer = cls(forward, **named, **tuples(dict(init_args or {})))
    if needs_gradients(cls) and layer is None and not hooks_modules(cls):
        # GradientShap and the like push all their samples through at once; Captum lets us say how they are run.
        explainer.gradient_func = partial(_gradients, at_most=internal_batch_size)
    return NoiseTunnel(explainer).attribute if noise_tunnel else explainer.attribute


def _gradients(
    forward_fn: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    target_ind: Any = None,
    additional_forward_args: Any = None,
    *,
    at_most: int,
) -> tuple[Tensor, ...]:
    """Captum's ``compute_gradients``, at most ``at_most`` samples at a time.

    Samples do not depend on each other in eval mode, so the gradients are the same; the working set stays in cache.
    """
    from captum._utils.common import _select_targets

    n = len(inputs[0])
    along = additional_forward_args if isinstance(additional_forward_args, tuple) else ()
    whole = torch.as_tensor(target_ind) if isinstance(target_ind, list) else target_ind
    found = []
    for start in range(0, n, at_most):
        rows = slice(start, start + at_most)
        part = tuple(value[rows].detach().requires_grad_() for value in inputs)
        target = whole[rows] if isinstance(whole, Tensor) and whole.numel() > 1 else whole
        with torch.enable_grad():
            logits = forward_fn(*part, *(value[rows] for value in along))
            found.append(torch.autograd.grad(_select_targets(logits, target).sum(), part))
    return tuple(torch.cat(grads) for grads in zip(*found, strict=True))


def _joined(results: list[Any]) -> Any:
    """Concatenate the results of the pieces along the samples."""
    if isinstance(results[0], Tensor):
        return torch.cat(results).detach() if len(results) > 1 else results[0].detach()
    return tuple(_joined(list(part)) for part in zip(*results, strict=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Captum's remarks on what this module takes care of."""
    with warnings.catch_warnings():
        for message in (
            r"Input Tensor \d+ (did not already require gradients|has a dtype of)",
            r"(?s)Setting (forward, backward hooks and attributes|backward hooks on ReLU)",
            r"You are providing multiple inputs for Lime / Kernel SHAP",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
