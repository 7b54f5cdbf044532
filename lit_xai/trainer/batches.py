"""Batches of a Trainer's loaders, as its module's steps would get them."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lit_xai.network.calling import Inputs, find_inputs
from lit_xai.network.probing import Probe, read_probe
from lit_xai.network.spec import Network
from lit_xai.network.untouched import fork_rng
from lit_xai.trainer.access import to_model


def loaders(trainer: Trainer) -> dict[str, Any]:
    """Return the Trainer's loaders of a stage by their short names."""
    return {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}


def loader_name(trainer: Trainer, probe: Probe, stage: str) -> str:
    """Return the loader that a probe is read from in a stage: outside ``fit`` there is only the stage's own."""
    if stage != "fit":
        return {"validate": "val", "test": "test"}[stage]
    if probe.loader is not None:
        return probe.loader
    # Not its truth: a loader's length may not be known.
    return "train" if trainer.val_dataloaders is None or trainer.val_dataloaders == [] else "val"


def read_batch(trainer: Trainer, name: str, probe: Probe, seed: int) -> tuple[Any, list[int]]:
    """Return a probe's samples as the batch that the model's steps would get, and their indices.

    Args:
        trainer: inside a stage, its loaders set up.
        name: of the loader.
        probe: which samples.
        seed: of the generators while reading.

    Raises:
        ValueError: there is no such loader, or nothing to read.
    """
    loader = loaders(trainer)[name]
    if loader is None:
        raise ValueError(f"probe: there is no {name} loader to read from; name another with Probe(loader=...).")
    device = trainer.lightning_module.device
    batch, indices = read_probe(loader, probe, seed, {device})
    if trainer.world_size > 1:  # a stream gives each process samples of its own
        batch, indices = trainer.strategy.broadcast((batch, indices))
    with fork_rng(seed, {device}):  # the user's transfer hooks may draw
        return to_model(trainer, batch, name), indices


def example_inputs(trainer: Trainer, pl_module: LightningModule, network: Network) -> Inputs:
    """Return the network's inputs for one sample of the training loader.

    Args:
        trainer: inside ``fit``, its loaders set up.
        pl_module: its module.
        network: what is called.

    Raises:
        ValueError: nothing usable is in its batches.
    """
    batch, _ = read_batch(trainer, "train", Probe(n=1), seed=0)
    example = getattr(pl_module, "example_input_array", None)
    found = find_inputs(batch, network.of(pl_module), network.batch_to_inputs, example_inputs=example)
    return to_model(trainer, found, "train") if found is example else found
