"""Batches from the loaders of a Trainer, as the steps of its module get them."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lit_xai.network.calling import BatchToTarget, Inputs, find_inputs
from lit_xai.network.probing import Probe, read_probe
from lit_xai.network.spec import Network
from lit_xai.network.state import kept_state
from lit_xai.network.untouched import fork_rng
from lit_xai.trainer.access import to_model
from lit_xai.trainer.agreement import agreed


def loaders(trainer: Trainer) -> dict[str, Any]:
    """Return the Trainer's loaders by the short names of their stages."""
    return {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}


def datasets(trainer: Trainer) -> list[Any]:
    """Return the datasets of the Trainer's present loaders, validation first, each before those that it wraps.

    Only of a ``DataLoader``, or of the first of several; what a ``Subset`` wraps is its ``dataset``.
    """
    found: list[Any] = []
    for name in ("val", "test", "train"):
        loader = loaders(trainer)[name]
        while isinstance(loader, (list, tuple, dict)) and loader:
            loader = next(iter(loader.values() if isinstance(loader, dict) else loader))
        dataset = getattr(loader, "dataset", None)
        while dataset is not None and not any(dataset is one for one in found):
            found.append(dataset)
            dataset = getattr(dataset, "dataset", None)
    return found


def loader_name(trainer: Trainer, probe: Probe, stage: str) -> str:
    """Return the name of the loader that a probe is read from; outside ``fit`` only that of the stage exists."""
    if stage != "fit":
        return {"validate": "val", "test": "test"}[stage]
    if probe.loader is not None:
        return probe.loader
    # Compared, because the truth value of a loader asks for its length, which may be unknown.
    return "train" if trainer.val_dataloaders is None or trainer.val_dataloaders == [] else "val"


def read_batch(
    trainer: Trainer, name: str, probe: Probe, seed: int, batch_to_target: BatchToTarget = None
) -> tuple[Any, list[int]]:
    """Return the samples of a probe as a batch for the steps of the module, and their indices.

    Args:
        trainer: inside a stage, its loaders set up.
        name: ``"train"``, ``"val"`` or ``"test"``.
        probe: the samples to read.
        seed: seeds the generators while reading.
        batch_to_target: the labels in a batch, for a probe spread over the classes.

    Raises:
        ValueError: there is no such loader, or nothing to read.
    """
    loader = loaders(trainer)[name]
    if loader is None:
        raise ValueError(f"probe: there is no {name} loader to read from; name another with Probe(loader=...).")
    device = trainer.lightning_module.device

    def read() -> tuple[Any, list[int]]:
        # In training, a step gets one batch of several loaders at once; in evaluation, one of each in turn.
        return _read_all(loader, lambda one: read_probe(one, probe, seed, {device}, batch_to_target), name == "train")

    # A stream may be what the module makes by itself: the steps of an agent, say.
    with kept_state(trainer.lightning_module):
        # One that cannot read would leave the others waiting for the batch.
        batch, indices = agreed(trainer, "The probe", read)
    if trainer.world_size > 1:  # a stream gives each process other samples
        batch, indices = trainer.strategy.broadcast((batch, indices))
    with fork_rng(seed, {device}):  # the user's transfer hooks may draw
        return to_model(trainer, batch, name), indices


def _read_all(loader: Any, read: Callable[[Any], tuple[Any, list[int]]], together: bool) -> tuple[Any, list[int]]:
    """Read from one loader, or from each in a list or dict of them, whose batches then have its form."""
    if together and isinstance(loader, Mapping) and loader:
        parts = {key: _read_all(one, read, together) for key, one in loader.items()}
        return {key: batch for key, (batch, _) in parts.items()}, next(iter(parts.values()))[1]
    if together and isinstance(loader, (list, tuple)) and loader and all(hasattr(one, "dataset") for one in loader):
        several = [_read_all(one, read, together) for one in loader]
        return [batch for batch, _ in several], several[0][1]
    return read(loader)


def example_inputs(trainer: Trainer, pl_module: LightningModule, network: Network) -> Inputs:
    """Return inputs of the network for one sample of the training loader.

    Args:
        trainer: inside ``fit``, its loaders set up.
        pl_module: its module.
        network: the network, and how it is called.

    Raises:
        ValueError: its batches hold no usable inputs.
    """
    batch, _ = read_batch(trainer, "train", Probe(n=1), seed=0)
    example = getattr(pl_module, "example_input_array", None)
    found = find_inputs(batch, network.of(pl_module), network.batch_to_inputs, example_inputs=example)
    # Inputs from a batch have been through the data hooks already, those of the user's example have not.
    return to_model(trainer, found, "train") if found is example else found
