"""The safe primitive: explain a network with any method of Captum and leave no trace in it."""

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.adapter import Forward, SplitInputs, check_rows, split_inputs
from lit_xai.attribution.completeness import gap, has_plain_gap, output_change
from lit_xai.attribution.elements import Flattened, flat_index
from lit_xai.attribution.methods import (
    Method,
    check_options,
    explains_layer,
    hooks_modules,
    needs_floats,
    needs_gradients,
    rescales,
    resolve_method,
    returns_layer,
    tuples,
)
from lit_xai.attribution.options import FORWARD_ONLY, Options
from lit_xai.attribution.pitfalls import check_layer, check_pitfalls, keep_lrp_rules, prepare_for_lrp
from lit_xai.attribution.promises import gap_warning, should_add_up
from lit_xai.attribution.rescaling import RescaledForward
from lit_xai.attribution.tokens import METHOD, embedding_instead, entering, tell_apart
from lit_xai.network.calling import Inputs, OutputSpec, call_network, check_call, find_call, find_network, module_names
from lit_xai.network.check import check_integer
from lit_xai.network.describing import describe
from lit_xai.network.tables import tables
from lit_xai.network.untouched import untouched


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
    logits: Tensor | None = None,
) -> Any:
    """Attribute a network's output to its inputs, or to a layer, without touching the network.

    Whatever state the network is in (training, compiled, under autocast or in inference mode, fake-quantized), it is
    explained in eval mode, in its own precision and uncompiled, and afterwards weights, buffers, modes, hooks,
    ``requires_grad`` and every random generator are bit for bit what they were. Equals the same call of Captum
    (https://captum.ai) up to the order of summation, except for DeepLift, whose rules are those of
    :mod:`lit_xai.attribution.rescaling`.

    Args:
        network: the module to explain; any nn.Module whose output holds one row of logits per sample.
        inputs: what it is called with: a tensor ``(N, ...)``, a tuple of positional, a dict of keyword arguments,
            or :class:`~lit_xai.network.arguments.Arguments`. Floating tensors in it are explained, or else the first
            tensor; the others are passed through. Inputs that do not hold a row per sample (a batch of graphs, images
            of different sizes) are explained as a whole: each attribution is for the sum over the logits' rows.
        method: a class of ``captum.attr``, its name, or an import path.
        target: the class to explain, one for all or one per sample ``(N,)``; ``None`` where each sample has one output.
            Of an output with more dimensions the index of one number in each sample's output, ``(N, k)``, as Captum
            takes it: ``(class, y, x)`` of maps ``(N, classes, H, W)``.
        layer: dotted name of the layer, for the ``Layer*`` methods.
        baselines: as the method takes them; structured like ``inputs``.
        init_args: for the method's constructor.
        attribute_args: for the method's ``attribute``; lists become tuples, and an integer ``feature_mask`` stands for
            square patches of that side.
        noise_tunnel: arguments of ``NoiseTunnel.attribute`` (``{"nt_samples": 10, "stdevs": 0.1}``) to wrap it in one.
        call: the network's method that is called.
        output: where the logits are in its output, see :func:`~lit_xai.functional.find_logits`.
        internal_batch_size: most samples in one forward/backward pass (4 times as many in a pass without gradients),
            which bounds the memory.
        seed: for methods that draw samples; ``None`` continues from the present state of the generators.
        return_convergence_delta: also return how far the attributions are from adding up to the output.
        logits: the network's own for these inputs, ``(N, classes)`` or ``(N,)``, where they are known: path methods
            then check the sum without another pass.

    Returns:
        Attributions structured and shaped like ``inputs`` (``None`` for arguments of a tuple that were passed through,
        absent from a dict; in a dict by dotted names where tensors are nested), or like the layer's activations. With
        ``return_convergence_delta`` a pair of these and a tensor ``(N,)``, or ``None`` for methods that have no such
        delta.

    Raises:
        ValueError: an unknown method, layer or option, or inputs or a target that do not fit; names the argument and
            what was expected.

    Warns:
        UserWarning: attributions of IntegratedGradients, DeepLift or DeepLiftShap miss the change of the output by
            more than the share in :data:`~lit_xai.attribution.promises.BOUNDS`.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> x = torch.randn(8, 4)
        >>> torch.allclose(attribute(network, x, target=1), network.weight[1] * x, atol=1e-6)
        True
    """
    cls = resolve_method(method)
    network = find_network(network)
    find_call(network, call)
    check_options(cls, network, layer, init_args, attribute_args, noise_tunnel)
    check_integer("internal_batch_size", internal_batch_size)
    # The checks below call the network too, so they run inside.
    with untouched(network, seed), _quiet():
        arguments = _arguments(cls, network, inputs, layer, noise_tunnel, call, output)
        internal_batch_size = 1 if arguments.whole else internal_batch_size
        if isinstance(target, Tensor) and target.dim() == 2:
            target, output = _flat_target(target, network, arguments, call, output)
        options = Options(cls, arguments, target, baselines, attribute_args, noise_tunnel, internal_batch_size)
        sample = arguments.rebuild(arguments.rows(slice(0, 1)))
        seen = check_pitfalls(cls, network, lambda: call_network(network, sample, call, output))
        if layer is not None:
            # Two where possible: with one sample, a layer that returns one row in any case would pass.
            few = arguments.rebuild(arguments.rows(slice(0, min(2, internal_batch_size))))
            check_layer(layer, network, lambda: call_network(network, few, call, output))
        if seen is not None:
            network = prepare_for_lrp(cls, network, seen, layer)
        forward = _forward(cls, network, arguments, options, init_args, call, output)
        with _captum_errors(cls, layer=layer, attribute_args=attribute_args, noise_tunnel=noise_tunnel):
            run = _explainer(cls, forward, layer, init_args, noise_tunnel, internal_batch_size)
            checked = should_add_up(cls, init_args, attribute_args, noise_tunnel)
            attributions, delta = _attribute_in_pieces(
                run, forward, arguments, options, return_convergence_delta or checked, logits
            )
    if checked and delta is not None:
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        message = gap_warning(cls, parts, delta, forward.scale, forward.unruled)
        if message is not None:
            warnings.warn(message, stacklevel=2)
    # Lime's and KernelShap's return_input_shape=False gives one tensor, by interpretable feature.
    like_inputs = isinstance(attributions, tuple) and not returns_layer(cls)
    shaped = arguments.shaped(attributions) if like_inputs else attributions
    return (shaped, delta) if return_convergence_delta else shaped


def _flat_target(
    target: Tensor, network: nn.Module, arguments: SplitInputs, call: str, output: OutputSpec
) -> tuple[Tensor, OutputSpec]:
    """Return indices in an output of more dimensions as classes of a flat one, and the output that is flat."""
    with torch.no_grad():
        sample = arguments.rebuild(arguments.rows(slice(0, 1)))
        shape = tuple(call_network(network, sample, call, output).shape[1:])
    return flat_index(target, shape), Flattened(output)


def _arguments(
    cls: type,
    network: nn.Module,
    inputs: Inputs,
    layer: str | None,
    noise_tunnel: Mapping[str, Any] | None,
    call: str,
    output: OutputSpec,
) -> SplitInputs:
    arguments = split_inputs(network, inputs, call, output, any_dtype=not needs_floats(cls) and noise_tunnel is None)
    if not arguments.explained:
        found = embedding_instead(network, inputs, call, output)
        names = list(tables(network)) if found is None else [found.layer]
        hint = f"layer={names[0]!r}" if names else "layer='...', the first layer that computes floats"
        why = "differentiates" if noise_tunnel is None else "in a noise_tunnel adds noise"
        raise ValueError(
            f"inputs: {cls.__name__} {why} and needs a floating tensor, but got {describe(inputs)}: explain"
            f" the embedding instead, with method='{METHOD}' and {hint}."
        )
    if layer is not None:
        _find_layer(cls, network, layer, arguments, call, output)
    if cls.__name__ == "FeaturePermutation" and arguments.n == 1:
        raise ValueError("inputs: FeaturePermutation swaps values between samples and expected two or more, but got 1.")
    if arguments.whole and rescales(cls):
        raise ValueError(
            f"inputs: {cls.__name__} compares samples with baselines in one pass and expected one row per sample, but"
            f" got {describe(inputs)}: use method='IntegratedGradients'."
        )
    return arguments


def _find_layer(
    cls: type, network: nn.Module, layer: str, arguments: SplitInputs, call: str, output: OutputSpec
) -> None:
    """Tell a layer's calls by this name from those by others, and explain the tokens that enter it."""
    few = arguments.rebuild(arguments.rows(slice(0, 1)))
    if "LRP" not in cls.__name__:  # its rules belong to the module itself
        tell_apart(network, layer, lambda: call_network(network, few, call, output))
    if any(arguments.values[i].is_floating_point() for i in arguments.explained):
        return
    name = entering(network, layer, lambda own: call_network(network, own, call, output), few)
    if name is not None:  # baselines stand in for tokens, not for their mask
        arguments.explain(name)


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
    """Raise the errors that :func:`attribute` would raise, at the cost of one forward pass of one sample.

    Args:
        network: as for :func:`attribute`, like the other arguments.
        inputs: a batch of any size; its first sample is run.
        method: the class, its name or import path.
        layer: dotted name of the layer.
        init_args: for the method's constructor.
        attribute_args: for the method's ``attribute``.
        noise_tunnel: for ``NoiseTunnel.attribute``.
        call: the network's method that is called.
        output: where the logits are.

    Raises:
        ValueError: one sentence that names the argument, also where the network cannot be called with these inputs.

    Example:
        >>> rehearse(nn.Embedding(10, 4), torch.tensor([[1, 2]]))
        Traceback (most recent call last):
        ...
        ValueError: inputs: IntegratedGradients differentiates and needs a floating tensor, but got Tensor[1, 2]...
    """
    cls = resolve_method(method)
    network = find_network(network)
    find_call(network, call)
    check_options(cls, network, layer, init_args, attribute_args, noise_tunnel)
    with untouched(network), torch.no_grad():
        arguments = _arguments(cls, network, inputs, layer, noise_tunnel, call, output)
        sample = arguments.rebuild(arguments.rows(slice(0, 1)))
        result = check_call(network, sample, call, output)
        check_rows(result, sum(result.shape[:1]) if arguments.whole else 1)
        with _quiet():
            seen = check_pitfalls(cls, network, lambda: call_network(network, sample, call, output))
        if layer is not None:
            check_layer(layer, network, lambda: call_network(network, sample, call, output))
        if seen is not None:
            prepare_for_lrp(cls, network, seen, layer)


def _attribute_in_pieces(
    run: Callable[..., Any],
    forward: Forward,
    arguments: SplitInputs,
    options: Options,
    return_delta: bool,
    logits: Tensor | None = None,
) -> tuple[Any, Tensor | None]:
    """Run the explainer on as many samples at a time as the memory allows; return attributions and delta of all."""
    if return_delta and has_plain_gap(options):
        # Captum would take a pass of all baselines, and one of samples whose logits are known already.
        attributions, _ = _attribute_in_pieces(run, forward, arguments, options, return_delta=False)
        return attributions, gap(attributions, output_change(forward, options, logits))
    return_delta = return_delta and options.has_delta
    # DeepLift's passes hold the logits of samples and baselines already, but a NoiseTunnel makes several of them.
    rescaled = forward if isinstance(forward, RescaledForward) and options.noise_tunnel is None else None
    with_delta = {"return_convergence_delta": True} if return_delta and rescaled is None else {}
    results, deltas = [], []
    for start in range(0, arguments.n, options.samples_at_once):
        rows = slice(start, start + options.samples_at_once)
        values, own = arguments.rows(rows), options.of(rows)
        inputs = tuple(values[i] for i in arguments.explained)
        for value in inputs:
            # Captum would set it and warn; integer tensors cannot have it.
            value.requires_grad_(needs_gradients(options.method) and value.is_floating_point())
        along = tuple(values[i] for i in arguments.along) or None
        result = run(inputs, additional_forward_args=along, **own, **with_delta)
        if with_delta:
            result, delta = result
            deltas.append(_mean_delta(delta.detach(), len(inputs[0]), own))
        elif return_delta and rescaled is not None:
            deltas.append(rescaled.delta(result, own["target"]))
        results.append(result)
    return _joined(results), torch.cat(deltas) if deltas else None


def _mean_delta(delta: Tensor, n: int, options: dict[str, Any]) -> Tensor:
    """Return one delta for each of ``n`` samples: the mean over the copies that the method made of a sample."""
    parts: tuple[Tensor, ...] = (delta,)  # (n * copies,), the copies of a sample next to each other
    if "nt_samples_batch_size" in options:  # NoiseTunnel concatenates its portions, each with copies of all samples
        # 5 is Captum's default.
        noisy = options.get("nt_samples", 5)
        portion = min(noisy, options["nt_samples_batch_size"])
        parts = delta.split(portion * delta.numel() // noisy)
    return torch.cat([part.reshape(n, -1) for part in parts], 1).mean(1)


def _forward(
    cls: type,
    network: nn.Module,
    arguments: SplitInputs,
    options: Options,
    init_args: Mapping[str, Any] | None,
    call: str,
    output: OutputSpec,
) -> Forward:
    given: dict[str, Any] = {
        "call": call,
        "output": output,
        # Hooks of layers and modules keep one forward pass: they need the batch in one piece.
        "at_most": None if explains_layer(cls) or hooks_modules(cls) else FORWARD_ONLY * options.internal_batch_size,
        "check": options.checker(),
        "differentiated": needs_gradients(cls),
        "flat": options.target is None,
        "target": options.target,
    }
    if not rescales(cls):
        return Forward(network, arguments, **given)
    eps = dict(init_args or {}).get("eps", 1e-10)
    return RescaledForward(network, arguments, eps=eps, by_layer=returns_layer(cls), **given)


def _explainer(
    cls: type,
    forward: Forward,
    layer: str | None,
    init_args: Mapping[str, Any] | None,
    noise_tunnel: Mapping[str, Any] | None,
    internal_batch_size: int,
) -> Callable[..., Any]:
    from captum.attr import NoiseTunnel

    named = {} if layer is None else {"layer": module_names(forward.network, aliases=True)[layer]}
    explainer = cls(forward, **named, **tuples(dict(init_args or {})))
    # LRP: without its rules, the call for the next piece would use the default ones and give no warning.
    if hasattr(explainer, "_remove_rules"):
        explainer._remove_rules = partial(keep_lrp_rules, explainer)
    if needs_gradients(cls) and layer is None and not hooks_modules(cls):
        # GradientShap and its relatives run all their samples in one huge batch and take no internal_batch_size;
        # `gradient_func` is the place where Captum lets the passes be replaced.
        explainer.gradient_func = partial(_gradients, at_most=internal_batch_size)
    return explainer.attribute if noise_tunnel is None else NoiseTunnel(explainer).attribute


def _gradients(
    forward_fn: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    target_ind: Any = None,
    additional_forward_args: Any = None,
    *,
    at_most: int,
) -> tuple[Tensor, ...]:
    """Do what Captum's ``compute_gradients`` does, with ``at_most`` samples at a time.

    Samples do not depend on each other in eval mode, so the gradients are the same; the working set stays in cache
    (GradientShap with 16 samples takes 0.8 to 1.0 times as long as plain batched passes, instead of 1.9 to 2.1).
    """
    from captum._utils.common import _select_targets

    along = additional_forward_args if isinstance(additional_forward_args, tuple) else ()
    gradients = []
    for start in range(0, len(inputs[0]), at_most):
        rows = slice(start, start + at_most)
        part = tuple(value[rows].detach().requires_grad_() for value in inputs)
        # Captum expands no target of one element, which holds for all pieces.
        target = target_ind[rows] if isinstance(target_ind, Tensor) and target_ind.numel() > 1 else target_ind
        with torch.enable_grad():
            logits = forward_fn(*part, *(value[rows] for value in along))
            chosen = _select_targets(logits, target).sum()
            # An input that the network ignores has a gradient of zero.
            gradients.append(torch.autograd.grad(chosen, part, materialize_grads=True))
    return gradients[0] if len(gradients) == 1 else tuple(map(torch.cat, zip(*gradients, strict=True)))


def _joined(results: list[Any]) -> Any:
    """Concatenate the results of the pieces along the samples."""
    if isinstance(results[0], Tensor):
        return torch.cat(results).detach() if len(results) > 1 else results[0].detach()
    return tuple(_joined(list(part)) for part in zip(*results, strict=True))


@contextlib.contextmanager
def _captum_errors(cls: type, **given: Any) -> Iterator[None]:
    """Name the arguments in errors that Captum raised; those of the network pass unchanged."""
    try:
        yield
    except Exception as error:
        # The network runs inside Captum's call, so the innermost frame tells whose error it is.
        innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
        by_captum = innermost.f_globals.get("__name__", "").startswith("captum.")
        if not by_captum or isinstance(error, torch.OutOfMemoryError):
            raise
        names = ", ".join(f"{name}={_shown(value)}" for name, value in given.items() if value is not None)
        reason = shorten(str(error), 300).rstrip(".")
        raise ValueError(f"{cls.__name__} cannot run with {names or 'these inputs'}: {reason}.") from error


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shown(item)}" for key, item in value.items()) + "}"
    return describe(value) if isinstance(value, Tensor) else repr(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Captum's warnings about what this module takes care of."""
    with warnings.catch_warnings():
        for message in (
            r"Input Tensor \d+ (did not already require gradients|has a dtype of)",
            r"(?s)Setting (forward, backward hooks and attributes|backward hooks on ReLU)",
            r"You are providing multiple inputs for Lime / Kernel SHAP",
            r"(Internal batch size cannot be less|This method computes finite differences)",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
