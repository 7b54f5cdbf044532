"""The samples that a run explains: read once, the same on every process."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.baselines import choose_baseline, explained_tensors
from lit_xai.attribution.methods import draws_baselines
from lit_xai.network.arguments import Inputs, named_leaves
from lit_xai.network.calling import BatchToInputs, BatchToTarget, find_inputs, find_labels
from lit_xai.network.probing import Probe, fingerprint, reads_by_index
from lit_xai.network.profiling import count_samples
from lit_xai.network.rows import take
from lit_xai.network.saving import save_arrays
from lit_xai.trainer.access import to_model
from lit_xai.trainer.batches import loader_name, loaders, read_batch
from lit_xai.trainer.observer import Observer
from lit_xai.trainer.watching import labels_of, resolved

BACKGROUND = 64
"""Number of training samples that the baselines ``"mean"`` and ``"training"`` are made of."""

MADE_OF_SAMPLES = ("mean", "blur", "training", "given")
"""Names of baselines that are samples, or tell of them; one that was given may be."""


@dataclass(frozen=True)
class Samples:
    """The samples of a probe, as the model gets them.

    Args:
        inputs: what the network is called with, ``(N, ...)``.
        labels: their labels, if the batch has any.
        indices: their places in the dataset.
        loader: the loader they come from.
        by_index: whether the places are a dataset's indices rather than places in a stream.
        hash: of the inputs.
        baseline: structured like the explained inputs; ``None`` for the method's own default.
        compared: the name of the baseline, for captions; empty where the method has none.
        elements: what is explained of each, ``(N, k)``, where the network answers for many places and it is fixed.
        whole: whether the inputs hold no row per sample (a batch of graphs).
    """

    inputs: Inputs
    labels: Tensor | None
    indices: list[int]
    loader: str
    by_index: bool
    hash: str
    baseline: Any = None
    compared: str = ""
    elements: Tensor | None = None
    whole: bool = False

    def share(self, rank: int, world_size: int, method: type) -> "Samples":
        """Return the share of one process; the first samples are repeated to make all shares equally large.

        What cannot be cut into samples is the share of each.
        """
        if self.whole:
            return self
        # all_gather stacks the shares; Explanation.gathered cuts off the repeated samples.
        n = len(self.indices)
        rows = [row % n for row in range(rank, -(-n // world_size) * world_size, world_size)]
        baseline = self.baseline if draws_baselines(method) else take(self.baseline, rows, n)
        inputs, labels, elements = (take(value, rows, n) for value in (self.inputs, self.labels, self.elements))
        return replace(self, inputs=inputs, labels=labels, elements=elements, baseline=baseline)


def read_samples(
    trainer: Trainer,
    network: nn.Module,
    probe: Probe,
    name: str,
    batch_to_inputs: BatchToInputs,
    seed: int,
    batch_to_target: BatchToTarget = None,
) -> Samples:
    """Read the probe through one of the Trainer's loaders.

    Args:
        trainer: inside a stage, its loaders set up.
        network: the module that is called.
        probe: which samples.
        name: of the loader.
        batch_to_inputs: the model's inputs in a batch.
        seed: of the generators while reading.
        batch_to_target: the labels in a batch.

    Raises:
        ValueError: there is nothing to read, or the batch holds no usable inputs, or no labels where they should be.
    """
    batch, indices = read_batch(trainer, name, probe, seed, batch_to_target)
    example = getattr(trainer.lightning_module, "example_input_array", None)
    inputs = find_inputs(batch, network, batch_to_inputs, example_inputs=example)
    labels = find_labels(batch, network, batch_to_target=batch_to_target)
    if inputs is example:  # not from the probe's batch: neither its labels nor its indices belong to them
        inputs, labels = to_model(trainer, inputs, name), None
        indices = list(range(SplitInputs(inputs, any_dtype=True).n))
    # batch_to_inputs may select the element in which labels usually are.
    if batch_to_target is None and isinstance(inputs, Tensor) and labels is inputs:
        labels = None
    by_index = reads_by_index(loaders(trainer)[name])
    return Samples(inputs, labels, indices, name, by_index, fingerprint(inputs), whole=_is_whole(network, inputs))


def probe_samples(observer: Observer, trainer: Trainer, pl_module: LightningModule, probe: Probe) -> Samples:
    """Read a probe for an observer that is prepared; arguments as of :func:`read_samples`."""
    loader = loader_name(trainer, probe, "fit")
    called = resolved(trainer, pl_module, loader, observer.given)
    labels = labels_of(trainer, pl_module, loader, observer.given, observer.batch_to_target)
    return read_samples(trainer, called.of(pl_module), probe, loader, called.batch_to_inputs, 0, labels)


def _is_whole(network: nn.Module, inputs: Inputs) -> bool:
    try:
        return count_samples(network, inputs) is None
    except ValueError:  # for the rehearsal to say
        return False


def with_baseline(
    trainer: Trainer,
    network: nn.Module,
    samples: Samples,
    method: type,
    baselines: Any,
    batch_to_inputs: BatchToInputs,
    data_info: Any,
    seed: int,
) -> Samples:
    """Return the samples with their baseline.

    Args:
        trainer: inside a stage; ``"mean"`` and ``"training"`` use training samples, outside ``fit`` the stage's own.
        network: the module that is called.
        samples: the probe.
        method: the attribution class.
        baselines: a name, a number, or tensors structured like the inputs; ``None`` for ``"black"`` where the one
            explained input is a normalized image, and else ``"zero"``.
        batch_to_inputs: the model's inputs in a batch.
        data_info: the data's ``mean`` and ``std``.
        seed: of the generators while reading.

    Raises:
        ValueError: the data for this baseline is missing, or the method has no baseline.
    """

    def background() -> list[Tensor]:
        name = "train" if trainer.train_dataloader is not None else samples.loader
        batch, _ = read_batch(trainer, name, Probe(n=BACKGROUND), seed)
        return explained_tensors(find_inputs(batch, network, batch_to_inputs))

    device = trainer.lightning_module.device
    baseline, compared = choose_baseline(samples.inputs, method, baselines, data_info, background, device)
    return replace(samples, baseline=baseline, compared=compared)


def baseline_arrays(samples: Samples) -> dict[str, Tensor]:
    """Return the baselines that explained inputs are compared with, by the inputs' names, each with rows.

    There are none for a method without baselines.
    """
    if not samples.compared:
        return {}
    arguments = SplitInputs(samples.inputs, any_dtype=True)
    parts = arguments.like_inputs(samples.baseline, "baselines") or (0,) * len(arguments.explained)
    return {
        arguments.names[i]: part if isinstance(part, Tensor) else torch.full_like(arguments.values[i][:1], part)
        for i, part in zip(arguments.explained, parts, strict=True)
    }


def kept_labels(samples: Samples, shown: str) -> Tensor | None:
    """Return labels, unless inputs must not be shown and labels have their shape, as an autoencoder's."""
    labels = samples.labels
    if shown == "show" or labels is None:
        return labels
    return None if any(labels.shape == value.shape for value in dict(named_leaves(samples.inputs)).values()) else labels


def save_samples(folder: Path, samples: Samples, shown: str = "show") -> None:
    """Write the samples into the run's folder, once; unless they are shown, their labels and indices alone."""
    # The hash in the name: a resumed run whose data changed keeps both.
    path = folder / f"probe-{samples.loader}-{samples.hash}.npz"
    if path.exists() and shown == "show":
        return
    inputs = dict(named_leaves(samples.inputs)) if shown == "show" else {}
    arrays = {f"inputs.{name}" if len(inputs) > 1 else "inputs": value for name, value in inputs.items()}
    labels = kept_labels(samples, shown)
    arrays |= {"labels": torch.empty(0) if labels is None else labels}
    save_arrays(path, arrays | {"sample_ids": torch.as_tensor(samples.indices)})
