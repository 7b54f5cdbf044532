"""A record of everything that an observer must not change, to compare two runs bit for bit."""

import hashlib
import pickle
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback


def digest(value: Any) -> str:
    """Return a hash of nested containers of tensors and plain values, exact to the bit."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            for key in part:
                add((str(key), part[key]))
        elif isinstance(part, (list, tuple)):
            for item in part:
                add(item)
        elif isinstance(part, np.ndarray):
            found.update(part.tobytes())
        else:
            found.update(pickle.dumps(part))

    add(value)
    return found.hexdigest()


def rng_state() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}


def module_state(module: torch.nn.Module) -> dict[str, Any]:
    modules = list(module.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {k: v.clone() for k, v in module.named_parameters()},
        "buffers": {k: v.clone() for k, v in module.named_buffers()},
        "grads": {k: p.grad for k, p in module.named_parameters()},
        "requires_grad": [(k, p.requires_grad) for k, p in module.named_parameters()],
        "modes": [(k, m.training) for k, m in modules],
        "hooks": [(k, [len(getattr(m, name)) for name in hooks]) for k, m in modules],
        "attributes": [(k, sorted(vars(m))) for k, m in modules],
    }


def leaks() -> tuple[int, ...]:
    """Return the numbers of global hooks and modes: zeros if none was left behind."""
    hooks = torch.nn.modules.module
    return (
        len(hooks._global_forward_hooks),
        len(hooks._global_forward_pre_hooks),
        torch._C._len_torch_function_stack(),
    )


class Witness(Callback):
    """The last callback in the list, which sees the state that training continues with."""

    def __init__(self) -> None:
        self.losses: list[str] = []
        self.epochs: list[dict[str, str]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]).hex())

    def on_train_epoch_end(self, trainer, pl_module):
        state = module_state(pl_module) | {"rng": rng_state()}
        state["optimizers"] = [optimizer.state_dict() for optimizer in trainer.optimizers]
        state["logged"] = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.epochs.append({key: digest(value) for key, value in state.items()})

    def seen(self) -> dict[str, Any]:
        return {"losses": self.losses, "epochs": self.epochs}
