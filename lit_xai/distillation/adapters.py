"""What brings a student's features to the shape of a teacher's: trained along, and gone at the end."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from lit_xai.network.describing import describe
from lit_xai.network.untouched import fork_rng


class Adapters:
    """One linear map over channels for each pair of layers whose widths differ, with an optimizer of its own.

    Romero et al. 2014, FitNets, https://arxiv.org/abs/1412.6550, whose regressor is likewise trained with the student.

    Args:
        lr: of their Adam.
        seed: of their weights, which draw nothing from the run's generators.
    """

    def __init__(self, lr: float, seed: int = 0) -> None:
        self._lr, self._seed = lr, seed
        self._layers: dict[str, nn.Module] = {}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._resumed: dict[str, Any] = {}

    def __call__(self, pair: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's features in the shape of the teacher's, and those, both of the smaller size in space.

        Args:
            pair: its name.
            student: ``(N, C)``, ``(N, C, ...)``, or tokens ``(N, L, C)``.
            teacher: of as many dimensions.

        Raises:
            ValueError: they differ in more than channels and size.
        """
        student, teacher = _of_one_size(pair, student, teacher)
        if student.shape == teacher.shape:
            return student, teacher
        dim = _channel_dim(pair, student, teacher)
        layer = self._layer(pair, student, dim, teacher.shape[dim])
        return layer(student.to(next(layer.parameters()).dtype)), teacher

    def _layer(self, pair: str, student: Tensor, dim: int, width: int) -> nn.Module:
        shape = (student.shape[dim], width, student.dim() if dim == 1 else -student.dim())
        layer = self._layers.get(pair)
        if layer is None or layer.lit_xai_shape != shape:  # the student may have lost channels since
            layer = self._make(shape).to(student.device)
            self._layers[pair] = layer
            self._optimizers[pair] = torch.optim.Adam(layer.parameters(), lr=self._lr)
            saved = self._resumed.pop(pair, None)
            if saved is not None and tuple(saved["shape"]) == shape:
                layer.load_state_dict(saved["weights"])
                self._optimizers[pair].load_state_dict(saved["optimizer"])
        return layer

    def _make(self, shape: tuple[int, int, int]) -> Any:
        n_in, n_out, dims = shape
        convolutions: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
        with fork_rng(self._seed, set()), torch.inference_mode(False):
            layer = convolutions[dims](n_in, n_out, 1) if dims in convolutions else nn.Linear(n_in, n_out)
        layer.lit_xai_shape = shape
        return layer

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of all of them."""
        for layer in self._layers.values():
            yield from layer.parameters()

    def step(self, scale: float = 1.0) -> None:
        """Let each learn from the gradients of the last backward passes, if it has any.

        Args:
            scale: by which gradients are too large (of a GradScaler); a step with infinite ones is left out.
        """
        for pair, layer in self._layers.items():
            gradients = [p.grad for p in layer.parameters() if p.grad is not None]
            if not gradients:
                continue
            for gradient in gradients:
                if distributed.is_available() and distributed.is_initialized():
                    distributed.all_reduce(gradient)
                    gradient.div_(distributed.get_world_size())
                gradient.div_(scale)
            # Only a scaled gradient overflows in the ordinary course of things; looking costs a wait for the device.
            if scale == 1.0 or all(bool(gradient.isfinite().all()) for gradient in gradients):
                self._optimizers[pair].step()
            self._optimizers[pair].zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimizers, as plain values and tensors."""
        made = {
            pair: {
                "shape": list(layer.lit_xai_shape),  # type: ignore[arg-type]  # set in _make
                "weights": {name: value.detach().clone() for name, value in layer.state_dict().items()},
                "optimizer": self._optimizers[pair].state_dict(),
            }
            for pair, layer in self._layers.items()
        }
        return self._resumed | made

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them over when they are needed first."""
        self._resumed = dict(state)


def _of_one_size(pair: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.dim() != teacher.dim() or student.dim() < 2:
        raise ValueError(
            f"features: {pair!r} expected outputs of as many dimensions, but the student's is {describe(student)} and"
            f" the teacher's {describe(teacher)}."
        )
    if student.dim() < 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = [min(pair_) for pair_ in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    pool: Any = {4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}[student.dim()]
    return pool(student, size), pool(teacher, size)


def _channel_dim(pair: str, student: Tensor, teacher: Tensor) -> int:
    """Return the only dimension in which they differ: 1, or the last one of tokens."""
    differ = [dim for dim, sizes in enumerate(zip(student.shape, teacher.shape, strict=True)) if sizes[0] != sizes[1]]
    if differ == [1]:
        return 1
    if student.dim() == 3 and differ == [2]:
        return 2
    raise ValueError(
        f"features: {pair!r} expected outputs that differ in their channels, but the student's is {describe(student)}"
        f" and the teacher's {describe(teacher)}."
    )
