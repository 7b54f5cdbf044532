"""Adapters that map a student's features to the width of the teacher's, trained with it and dropped at the end."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from lit_xai.network.check import check_positive
from lit_xai.network.describing import describe
from lit_xai.network.untouched import fork_rng
from lit_xai.structure.schema import Checked, Of, Positive, Row, TensorOf, entries


def _check_setting(value: Any) -> Any:
    parts = value if isinstance(value, (list, tuple)) else [value]
    if not all(part is None or type(part) in (bool, int, float) for part in parts):
        raise ValueError("a number or a flag")
    return value


_MOMENTS = entries(dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), Annotated[Tensor, TensorOf(finite=True)]))
_SETTINGS = dict[str, Annotated[Any, Checked(_check_setting)]]
_STATE = entries(
    {
        "shape": Annotated[Any, Row((Positive, Positive, int))],
        "weights": entries(dict.fromkeys(("weight", "bias"), Annotated[Tensor, TensorOf(finite=True)])),
        "optimizer": entries({"state": dict[int, Annotated[Any, Of(_MOMENTS)]], "param_groups": list[_SETTINGS]}),
    }
)


def _check_adapter(state: Any) -> Any:
    n_in, n_out, dims = state["shape"]
    weight, bias = state["weights"]["weight"], state["weights"]["bias"]
    if not 2 <= abs(dims) <= 5 or tuple(bias.shape) != (n_out,) or weight.shape[:2] != (n_out, n_in):
        raise ValueError(f"an adapter from {n_in} to {n_out} channels")
    for place, moments in state["optimizer"]["state"].items():
        value = (weight, bias)[place] if place in (0, 1) else None
        if value is None or any(moments[key].shape != value.shape for key in ("exp_avg", "exp_avg_sq")):
            raise ValueError("moments of the adapter's weight and bias")
        if moments["step"].numel() != 1:
            raise ValueError("a number of steps")
    return state


# What Adapters.state_dict returns.
ADAPTERS = dict[str, Annotated[Any, Of(_STATE), Checked(_check_adapter)]]


class Adapters:
    """One linear map over channels for each pair of layers whose widths differ, with an optimizer of its own.

    The regressors of Romero et al. 2014, FitNets, https://arxiv.org/abs/1412.6550. They are no part of the student, so
    that its checkpoints and optimizers stay the same with or without them.

    Args:
        lr: learning rate of their Adam.
        seed: of their initial weights, which draw nothing from the run's generators.

    Raises:
        ValueError: the learning rate is not positive.
    """

    def __init__(self, lr: float, seed: int = 0) -> None:
        self._lr, self._seed = check_positive("adapter_lr", lr), seed
        self._layers: dict[str, nn.Module] = {}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._resumed: dict[str, Any] = {}

    def __call__(self, pair: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's features in the teacher's width, and the teacher's, both in the smaller spatial size.

        Args:
            pair: name of the pair of layers.
            student: ``(N, C)``, ``(N, C, ...)``, or tokens ``(N, L, C)``.
            teacher: of as many dimensions.

        Raises:
            ValueError: they differ in more than width and spatial size.
        """
        student, teacher = _of_one_size(pair, student, teacher)
        if student.shape == teacher.shape:
            return student, teacher
        dim = _channel_dim(pair, student, teacher)
        layer = self._layer(pair, student, dim, teacher.shape[dim])
        return layer(student.to(next(layer.parameters()).dtype)), teacher

    def _layer(self, pair: str, student: Tensor, dim: int, width: int) -> nn.Module:
        # A negative last entry marks tokens (N, L, C), which have as many dimensions as (N, C, L).
        shape = (student.shape[dim], width, student.dim() if dim == 1 else -student.dim())
        layer = self._layers.get(pair)
        if layer is None or layer.lit_xai_shape != shape:  # pruning may have removed channels since
            layer = self._make(shape).to(student.device)
            self._layers[pair] = layer
            self._optimizers[pair] = torch.optim.Adam(layer.parameters(), lr=self._lr)
            # Popped even if it does not fit: a state from before a cut must not load later.
            saved = self._resumed.pop(pair, None)
            if saved is not None and tuple(saved["shape"]) == shape:
                layer.load_state_dict(saved["weights"])
                # The settings are those of today's arguments, and none of the file's.
                groups = self._optimizers[pair].state_dict()["param_groups"]
                self._optimizers[pair].load_state_dict({"state": saved["optimizer"]["state"], "param_groups": groups})
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
        """Step the optimizer of each adapter that has gradients, and reset those.

        Args:
            scale: of a GradScaler, by which the gradients are divided; a step with infinite ones is skipped.
        """
        for pair, layer in self._layers.items():
            gradients = [p.grad for p in layer.parameters() if p.grad is not None]
            if not gradients:
                continue
            for gradient in gradients:
                # DDP averages gradients of its own module only; without this, the adapters would drift apart on the
                # ranks.
                if distributed.is_available() and distributed.is_initialized():
                    distributed.all_reduce(gradient)
                    gradient.div_(distributed.get_world_size())
                gradient.div_(scale)
            # Only scaled gradients overflow regularly, and the check waits for the device.
            if scale == 1.0 or all(bool(gradient.isfinite().all()) for gradient in gradients):
                self._optimizers[pair].step()
            self._optimizers[pair].zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimizer states, as plain values and tensors."""
        made = {
            pair: {
                "shape": list(layer.lit_xai_shape),  # type: ignore[arg-type]  # set in _make
                "weights": {name: value.detach().clone() for name, value in layer.state_dict().items()},
                "optimizer": self._optimizers[pair].state_dict(),
            }
            for pair, layer in self._layers.items()
        }
        # Adapters that no batch has used since the resume keep their saved state.
        return self._resumed | made

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a state for each adapter until its first use, which shows its shape."""
        self._resumed = dict(state)


def _of_one_size(pair: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.dim() != teacher.dim() or student.dim() < 2:
        raise ValueError(
            f"features: {pair!r} expected outputs with the same number of dimensions, but the student's is"
            f" {describe(student)} and the teacher's {describe(teacher)}."
        )
    if student.dim() < 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = list(map(min, student.shape[2:], teacher.shape[2:]))
    pool: Any = {4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}[student.dim()]
    return pool(student, size), pool(teacher, size)


def _channel_dim(pair: str, student: Tensor, teacher: Tensor) -> int:
    """Return the only dimension in which they differ: 1, or the last for tokens."""
    differ = [dim for dim, sizes in enumerate(zip(student.shape, teacher.shape, strict=True)) if sizes[0] != sizes[1]]
    if differ == [1]:
        return 1
    if student.dim() == 3 and differ == [2]:
        return 2
    raise ValueError(
        f"features: {pair!r} expected outputs that differ in their channels alone, but the student's is"
        f" {describe(student)} and the teacher's {describe(teacher)}."
    )
