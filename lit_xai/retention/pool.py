"""The samples that a run compares its explanations and predictions on, read once and held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.attribution.explanation import class_labels
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToTarget, find_inputs, find_labels
from lit_xai.network.check import refusal
from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object
from lit_xai.network.probing import Probe, fingerprint, read_probe, reads_by_index
from lit_xai.network.profiling import count_samples
from lit_xai.network.rows import take
from lit_xai.network.spec import Network
from lit_xai.network.untouched import fork_rng
from lit_xai.retention.choosing import pool_size, sample_bytes, shuffled_indices
from lit_xai.retention.record import share_rows
from lit_xai.trainer.access import to_model
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.batches import loaders, read_batch


@dataclass(frozen=True)
class Pool:
    """Samples in random order, as the network gets them.

    Args:
        inputs: what the network is called with, ``(N, ...)``.
        labels: their labels, if there are any.
        groups: the group of each sample, by the name of what groups them.
        indices: their places in the dataset.
        source: whose they are, in words: ``"validation"``.
        hash: of the inputs.
    """

    inputs: Inputs
    labels: Tensor | None
    groups: dict[str, list[Any]]
    indices: list[int]
    source: str
    hash: str

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, places: Sequence[int]) -> "Pool":
        """Return some of the samples."""
        n = len(self)
        inputs, labels = (take(value, list(places), n) for value in (self.inputs, self.labels))
        groups = {name: [values[place] for place in places] for name, values in self.groups.items()}
        return replace(
            self, inputs=inputs, labels=labels, groups=groups, indices=[self.indices[place] for place in places]
        )

    def share(self, rank: int, world_size: int) -> "Pool":
        """Return one process's share; the first samples are repeated to make all shares equally large."""
        return self.rows(share_rows(len(self), rank, world_size))

    def has_values(self, shape: tuple[int, ...]) -> bool:
        """Return whether the labels are values, as of a regression, so that outputs are no scores of classes.

        Args:
            shape: of the logits.
        """
        return are_values(self.labels, shape)

    def has_classes(self, logits: Tensor) -> bool:
        """Return whether outputs are scores of several classes.

        Args:
            logits: of some samples.
        """
        return logits.dim() == 2 and logits.shape[1] > 1 and not self.has_values(tuple(logits.shape))


def are_values(labels: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Return whether labels are values, as of a regression, so that outputs are no scores of classes.

    Args:
        labels: of samples, if there are any.
        shape: of the logits.

    Example:
        >>> import torch
        >>> are_values(torch.randn(8, 1), (8, 2)), are_values(torch.eye(3), (3, 3)), are_values(None, (8, 2))
        (True, False, False)
    """
    return labels is not None and labels.is_floating_point() and class_labels(labels, shape) is None


SOURCES = {"val": "validation", "test": "test", "train": "training"}


def own_loader(trainer: Trainer, pl_module: LightningModule, probe: Any) -> Any:
    """Return the loader of a probe of one's own: given, or by its name on the data module or the LightningModule.

    Args:
        trainer: inside ``fit``.
        pl_module: its module.
        probe: a loader, the name of an attribute or a method that returns one, or ``None``.

    Raises:
        ValueError: there is no such attribute.
    """
    if probe is None or not isinstance(probe, str):
        return probe
    for owner in (getattr(trainer, "datamodule", None), pl_module):
        found = getattr(owner, probe, None) if owner is not None else None
        if found is not None:
            return found() if callable(found) and not isinstance(found, DataLoader) else found
    raise refusal(
        "probe", "a loader, or the name of a method of the data module or the LightningModule that returns one", probe
    )


def read_pool(
    trainer: Trainer,
    pl_module: LightningModule,
    network: Network,
    loader: str,
    n: int,
    *,
    own: Any = None,
    groups: Mapping[str, BatchToTarget] | None = None,
    batch_to_target: BatchToTarget = None,
    indices: Sequence[int] | None = None,
    seed: int = 0,
) -> Pool:
    """Read samples through one of the Trainer's loaders, or from a loader of one's own.

    Args:
        trainer: inside ``fit``, its loaders set up.
        pl_module: its module.
        network: whose inputs are read.
        loader: ``"val"``, ``"train"`` or ``"test"``.
        n: how many are to be explained; more are read for predictions where memory allows.
        own: a loader of one's own.
        groups: where the group of each sample is in a batch, by name.
        batch_to_target: the labels in a batch.
        indices: of a run that is resumed.
        seed: of their order.

    Raises:
        ValueError: there is nothing to read, or no such group.
    """
    source = loaders(trainer)[loader] if own is None else own

    def read(probe: Probe) -> tuple[Any, list[int]]:
        if own is None:
            return read_batch(trainer, loader, probe, seed, batch_to_target)
        device = pl_module.device
        batch, found = agreed(trainer, "The probe", lambda: read_probe(own, probe, seed, {device}, batch_to_target))
        with fork_rng(seed, {device}):
            return to_model(trainer, batch, loader), found

    by_index = reads_by_index(source)
    if indices is None and by_index:
        available = _length(source)
        one, _ = read(Probe(indices=[0]))
        size = pool_size(n, available, sample_bytes(one, 1))
        indices = shuffled_indices(available, size, seed)
    batch, found = read(Probe(indices=list(indices)) if by_index and indices else Probe(n=n))
    module: nn.Module = network.of(pl_module)
    example = getattr(pl_module, "example_input_array", None)
    inputs = find_inputs(batch, module, network.batch_to_inputs, example_inputs=example)
    labels = find_labels(batch, module, batch_to_target=batch_to_target)
    rows = SplitInputs(inputs, any_dtype=True).n
    if inputs is not example and (
        (by_index and len(found) != rows) or count_samples(module, inputs, output=network.output) is None
    ):
        raise ValueError(
            f"RetentionMonitor expected inputs with a row for each sample, but got {describe(inputs)}: leave it"
            " out, and compare samples one by one with measure_retention."
        )
    if labels is not None and len(labels) != rows:
        labels = None
    named = {name: _groups(batch, where, name, rows) for name, where in (groups or {}).items()}
    indices_ = found if len(found) == rows else list(range(rows))
    where = SOURCES[loader] if own is None else "probe"
    return Pool(inputs, labels, named, indices_, where, fingerprint(inputs))


def _length(loader: Any) -> int:
    while not isinstance(loader, DataLoader):
        loader = getattr(loader, "flattened", loader)
        loader = next(iter(loader.values() if isinstance(loader, Mapping) else loader))
    return len(loader.dataset)  # type: ignore[arg-type]  # one that is read by index has a length


def _groups(batch: Any, where: BatchToTarget, name: str, n: int) -> list[Any]:
    function: Any = where
    if isinstance(where, str) and "." in where and not (isinstance(batch, Mapping) and where in batch):
        function = load_object(where, "groups")
    try:
        found = function(batch) if callable(function) else batch[where]
        values = found.tolist() if hasattr(found, "tolist") else list(found)
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"groups: {name!r} is not in a batch of {describe(batch)} ({type(error).__name__}: {error})."
        ) from None
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    if len(whole) != n or not all(isinstance(value, (int, str)) for value in whole):
        raise ValueError(
            f"groups: {name!r} expected a whole number or a text for each of {n} samples, but got {describe(found)}."
        )
    return [int(value) if isinstance(value, bool) else value for value in whole]
