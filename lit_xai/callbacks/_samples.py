"""The samples that a run's explanations look at: read once, the same on every process."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_xai.callbacks._trainer import to_model
from lit_xai.functional.adapter import Arguments
from lit_xai.functional.baselines import make_baselines
from lit_xai.functional.calling import BatchToInputs, Inputs, find_inputs, find_labels
from lit_xai.functional.methods import attribute_parameters, draws_baselines
from lit_xai.functional.probing import Probe, fingerprint, leaves, read_probe, take
from lit_xai.functional.saving import save_arrays
from lit_xai.functional.untouched import fork_rng

BACKGROUND = 64
"""How many training samples a baseline of them is made of."""


@dataclass(frozen=True)
class Samples:
    """A probe as the model gets it.

    Args:
        inputs: what the network is called with, ``(N, ...)``.
        labels: their labels, if the batch has any.
        indices: their places in the dataset.
        loader: which loader they come from.
        is_stream: whether the places are only those in the stream.
        hash: of the inputs.
        baseline: structured like what is explained; ``None``: the method's own default.
        takes_baseline: whether the method compares with a baseline.
        draws: whether that is a distribution rather than one per sample.
    """

    inputs: Inputs
    labels: Tensor | None
    indices: list[int]
    loader: str
    is_stream: bool
    hash: str
    baseline: Any = None
    takes_baseline: bool = False
    draws: bool = False

    def share(self, rank: int, world_size: int) -> "Samples":
        """Return one process' share, equally large on all of them (the first samples come twice if need be)."""
        n = len(self.indices)
        rows = [row % n for row in range(rank, -(-n // world_size) * world_size, world_size)]
        baseline = self.baseline if self.draws else take(self.baseline, rows, n)
        return replace(self, inputs=take(self.inputs, rows, n), labels=take(self.labels, rows, n), baseline=baseline)


def read_samples(
    trainer: Trainer,
    network: nn.Module,
    probe: Probe,
    stage: str,
    method: type,
    baselines: Any,
    batch_to_inputs: BatchToInputs,
    about: Any,
    seed: int,
) -> Samples:
    """Read the probe through the Trainer's loaders, and what it is compared with.

    Args:
        trainer: inside a stage, its loaders set up.
        network: what is called.
        probe: which samples.
        stage: ``"fit"``, ``"validate"`` or ``"test"``.
        method: the attribution class.
        baselines: a name, a number or a tensor.
        batch_to_inputs: the model's inputs in a batch.
        about: the data's ``mean`` and ``std``.
        seed: of the generators while reading.

    Raises:
        ValueError: there is nothing to read, or no usable inputs in it.
    """
    name = _loader_name(trainer, probe, stage)
    batch, indices = _read(trainer, name, probe, seed)
    example = getattr(trainer.lightning_module, "example_input_array", None)
    inputs = find_inputs(batch, network, batch_to_inputs, example_inputs=example)
    takes = bool({"baselines", "layer_baselines"} & set(attribute_parameters(method)))
    samples = Samples(
        inputs=inputs,
        labels=find_labels(batch, network),
        indices=indices,
        loader=name,
        is_stream=not hasattr(getattr(_loaders(trainer)[name], "dataset", ()), "__getitem__"),
        hash=fingerprint(inputs),
        takes_baseline=takes,
        draws=draws_baselines(method),
    )
    if not takes or (isinstance(baselines, str) and baselines == "zero" and not samples.draws):
        return samples  # zero is Captum's own default, and suits any structure of inputs
    if isinstance(baselines, (int, float)):
        flat = tuple(torch.full_like(value[:1], baselines) for value in _explained(inputs))
        return replace(samples, baseline=flat[0] if len(flat) == 1 else flat)
    if not isinstance(baselines, str):
        given = torch.as_tensor(baselines, device=trainer.lightning_module.device)
        return replace(samples, baseline=given.to(_explained(inputs)[0].dtype))
    background = None
    if baselines in ("mean", "training"):
        read, _ = _read(trainer, "train", Probe(n=BACKGROUND), seed)
        background = _explained(find_inputs(read, network, batch_to_inputs))
    made = tuple(
        make_baselines(
            baselines,
            value,
            background=background[place] if background else None,
            mean=about.mean,
            std=about.std,
            draws=samples.draws,
        )
        for place, value in enumerate(_explained(inputs))
    )
    return replace(samples, baseline=made[0] if len(made) == 1 else made)


def _explained(inputs: Inputs) -> list[Tensor]:
    arguments = Arguments(inputs, any_dtype=True)
    return [arguments.values[i] for i in arguments.explained]


def _loaders(trainer: Trainer) -> dict[str, Any]:
    return {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}


def _loader_name(trainer: Trainer, probe: Probe, stage: str) -> str:
    if stage != "fit":
        return {"validate": "val", "test": "test"}[stage]
    if probe.loader is not None:
        return probe.loader
    # Not its truth: a loader's length may not be known.
    return "train" if trainer.val_dataloaders is None or trainer.val_dataloaders == [] else "val"


def _read(trainer: Trainer, name: str, probe: Probe, seed: int) -> tuple[Any, list[int]]:
    loader = _loaders(trainer)[name]
    if loader is None:
        raise ValueError(f"probe: there is no {name} loader to read from; name another with Probe(loader=...).")
    batch, indices = read_probe(loader, probe, seed)
    with fork_rng(seed, {trainer.lightning_module.device}):  # the user's transfer hooks may draw
        return to_model(trainer, batch), indices


def save_samples(folder: Path, samples: Samples) -> None:
    """Write the samples into the run's folder, once."""
    arrays = {f"inputs.{name}".rstrip("."): value for name, value in leaves(samples.inputs)}
    arrays |= {"labels": samples.labels} if samples.labels is not None else {}
    arrays |= {f"baseline.{name}".rstrip("."): value for name, value in leaves(samples.baseline)}
    save_arrays(folder / f"probe-{samples.loader}.npz", arrays | {"sample_ids": torch.as_tensor(samples.indices)})
