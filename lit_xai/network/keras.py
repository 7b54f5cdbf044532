"""Keras 3 models on the torch backend, as networks whose layers torch can see.

A Keras model is an ``nn.Module``, but what is inside is hidden: ``named_modules()`` lists no layers, hooks on layers do
not run, and ``train()`` moves neither BatchNorm nor Dropout, which ask for ``training=True`` at the call instead.
:class:`KerasNetwork` mends this from outside, on the model's public names (``layers``, ``variables``, ``call``).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.network.check import refusal

SMALLEST = 1e-7
"""The least probability whose logarithm is taken, Keras' own ``epsilon``."""
_PIXELS = (4, 5)
"""Dimensions of what may have its channels last, ``(N, H, W, C)`` and ``(N, D, H, W, C)``: torch has them first."""


def is_keras(network: Any) -> bool:
    """Return whether a network is a Keras model; Keras is not imported for it."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(network, keras.Model)


def is_keras_layer(module: nn.Module) -> bool:
    """Return whether a module is a layer or a model of Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(module, keras.layers.Layer)


def as_network(network: Any, logits: bool = True) -> Any:
    """Return a Keras model as a :class:`KerasNetwork`, and everything else as it is."""
    return KerasNetwork(network, logits) if is_keras(network) else network


def refuse_keras(network: nn.Module, feature: str) -> None:
    """Refuse a network whose every weight is in a Keras layer, for what needs torch's own layers.

    Args:
        network: any module.
        feature: the subject of the sentence, such as ``"Pruning"``.

    Raises:
        ValueError: names the way round.
    """
    of_keras = [m for m in network.modules() if isinstance(m, (KerasLayer, KerasNetwork)) or is_keras_layer(m)]
    held = {id(p) for module in of_keras for p in module.parameters()}
    if held and all(id(p) in held for p in network.parameters()):
        raise ValueError(
            f"{feature} needs torch's own layers, but {type(network).__name__} computes in Keras': build the network in"
            " torch, or leave this out and distill the Keras model into a small torch network."
        )


class KerasLayer(nn.Module):
    """One layer of a Keras model as torch sees it: with its parameters, its name, and hooks that run.

    Images are channels first on the way in and out, whatever the layer computes in: hooks see torch's layout.

    Args:
        layer: of a model; from now on its calls go through this module.
        owned: variables that have their place already; those of this layer are added.
        is_last: whether the model has the channels of images last.
    """

    def __init__(self, layer: Any, owned: set[int], is_last: bool) -> None:
        super().__init__()
        # In a tuple: as attributes, torch would take the layer for a part of its own, with every parameter twice.
        self._of_keras = (layer,)
        self._call = layer.call
        for name, part in _named(getattr(layer, "layers", ())):
            self.add_module(name, KerasLayer(part, owned, is_last))
        for variable in layer.variables:
            if id(variable.value) not in owned:
                owned.add(id(variable.value))
                self.register_parameter(_free(self, variable.name), variable.value)
        self._is_last = is_last
        layer.__dict__["call"] = self._from_keras

    def _from_keras(self, *args: Any, **kwargs: Any) -> Any:
        if not self._is_last:
            return self(*args, **kwargs)
        return channels_last(self(*map(channels_first, args), **kwargs))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer computes."""
        if not self._is_last:
            return self._call(*args, **kwargs)
        return channels_first(self._call(*map(channels_last, args), **kwargs))

    def extra_repr(self) -> str:
        """Return the layer's class."""
        return type(self._of_keras[0]).__name__


class KerasNetwork(nn.Module):
    """Wrap a Keras model for training, explaining, distilling and exporting as any other network.

    :class:`~lit_xai.models.Classifier` and :class:`~lit_xai.models.Regressor` do this with any ``keras.Model`` they are
    given. The model itself is trained: ``model.save("model.keras")`` afterwards holds the trained weights, for any
    backend of Keras. Its layers stand under their names in Keras (``layers.conv2d``) and can be named as ``layer``. It
    is called with ``training=True`` in train mode; images with channels first are turned to the model's layout; where
    it ends in a softmax or sigmoid, the logarithm of the probabilities (their log-odds) is returned, as losses here
    take logits. Pruning and quantization, which need torch's own layers, refuse it.

    Args:
        model: built, on Keras' torch backend.
        logits: whether probabilities become logits; ``False`` returns what the model does, as a regression needs it.

    Raises:
        TypeError: it is no Keras model, or not of the torch backend.
        ValueError: it has no weights yet.

    Attributes:
        layers: the model's layers by their names.
        model: the Keras model.
    """

    def __init__(self, model: Any, logits: bool = True) -> None:
        super().__init__()
        if not is_keras(model) or not issubclass(type(model), nn.Module):
            raise TypeError(
                f"model expected a keras.Model on the torch backend, but got {type(model).__name__}: set"
                " KERAS_BACKEND=torch in the environment before Keras is imported."
            )
        if not model.built:
            raise refusal("model", "a Keras model with weights", "one that is not built", _BUILD)
        owned: set[int] = set()
        self._of_keras = (model,)
        # Most layers do not say it themselves: an activation works on whatever it is given.
        is_last = any(getattr(layer, "data_format", None) == "channels_last" for layer in _every(model))
        self.layers = nn.ModuleDict({name: KerasLayer(layer, owned, is_last) for name, layer in _named(model.layers)})
        # What belongs to no layer: weights that a model of one's own holds itself.
        self.weights = nn.ParameterDict(
            {variable.path: variable.value for variable in model.variables if id(variable.value) not in owned}
        )
        self._ends_in = _activation(model) if logits else None

    @property
    def model(self) -> Any:
        """The Keras model, whose weights are these."""
        model: Any = self._of_keras[0]
        return model

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the logits of a batch: one input, several in order, or by name."""
        shape = getattr(self.model, "input_shape", None)
        given: Any = named or tuple(inputs)
        if isinstance(given, tuple):
            given = _laid_out(given[0], shape) if len(given) == 1 else list(given)
        outputs = self.model(given, training=self.training)
        if self._ends_in == "softmax":
            return outputs.clamp(min=SMALLEST).log()
        return outputs.clamp(SMALLEST, 1 - SMALLEST).logit() if self._ends_in == "sigmoid" else outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasNetwork:
        """Return an independent copy: Keras clones the layers, and every value is copied."""
        model = _clone(self.model)
        with torch.no_grad():
            for old, new in zip(self.model.variables, model.variables, strict=True):
                new.value.copy_(old.value)
                new.value.requires_grad_(old.value.requires_grad)
                new.value.grad = None if old.value.grad is None else old.value.grad.detach().clone()
                memo[id(old.value)] = new.value
        copied = KerasNetwork(model, logits=False)
        copied._ends_in = self._ends_in
        memo[id(self)] = copied
        for old_module, new_module in zip(self.modules(), copied.modules(), strict=True):
            new_module.training = old_module.training
        return copied


_BUILD = "Begin it with keras.Input(shape), or call it once with a batch."


def channels_first(value: Any) -> Any:
    """Return an image ``(N, ..., C)`` with its channels first, and everything else as it is.

    Example:
        >>> channels_first(torch.zeros(2, 8, 9, 3)).shape
        torch.Size([2, 3, 8, 9])
    """
    return value.movedim(-1, 1) if isinstance(value, Tensor) and value.dim() in _PIXELS else value


def channels_last(value: Any) -> Any:
    """Return an image ``(N, C, ...)`` with its channels last, and everything else as it is."""
    return value.movedim(1, -1) if isinstance(value, Tensor) and value.dim() in _PIXELS else value


def _laid_out(value: Any, shape: Any) -> Any:
    """Return an image in the layout that a model reads, ``shape`` with ``None`` for what is free."""
    if not isinstance(shape, tuple) or not isinstance(value, Tensor) or len(shape) != value.dim():
        return value
    turned = channels_last(value)
    return turned if not _fits(value, shape) and _fits(turned, shape) else value


def _fits(value: Tensor, shape: tuple[int | None, ...]) -> bool:
    return all(size in (None, given) for size, given in zip(shape, value.shape, strict=True))


def _every(model: Any) -> list[Any]:
    """Return the layers of a model and of the models in it."""
    return [one for layer in model.layers for one in (layer, *(_every(layer) if hasattr(layer, "layers") else ()))]


def _named(layers: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return layers by names that torch allows, without dots."""
    return [(layer.name.replace(".", "_"), layer) for layer in layers]


def _free(module: nn.Module, name: str) -> str:
    """Return a name that no parameter has: a layer made of others has several of one name."""
    name, taken = name.replace(".", "_"), dict(module.named_parameters(recurse=False))
    return next(one for one in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 1))) if one not in taken)


def _activation(model: Any) -> str | None:
    """Return ``"softmax"`` or ``"sigmoid"`` where the model's last layer ends in it."""
    last = model.layers[-1] if model.layers else None
    if last is not None and hasattr(last, "layers"):
        return _activation(last)
    function = getattr(last, "activation", None)
    name = getattr(function, "__name__", None) or type(last).__name__.lower()
    return name if name in ("softmax", "sigmoid") else None


def _clone(model: Any) -> Any:
    """Return a model of the same layers, with weights of its own."""
    keras = sys.modules["keras"]
    # Only these can be made again from their config alone; others know how to save themselves, and that is copied.
    if isinstance(model, keras.Sequential) or type(model).__name__ == "Functional":
        return keras.models.clone_model(model)
    return copy.deepcopy(model)
