"""The weights and the data of an export."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lit_xai.export.wholes import one_by_one
from lit_xai.network.calling import find_inputs
from lit_xai.network.copying import copy_network
from lit_xai.network.profiling import batch_size, count_samples
from lit_xai.network.rows import take
from lit_xai.network.spec import Network
from lit_xai.network.trees import changed, leaves, to_device
from lit_xai.structure.checkpoints import read_checkpoint
from lit_xai.structure.loading import load_weights_
from lit_xai.structure.recipe import KEY, Recipe, recipe_of
from lit_xai.trainer.access import callbacks_of, is_a, rank_zero_warn, to_model


@dataclass(frozen=True)
class Weights:
    """A copy of a LightningModule on the CPU, in eval mode.

    Args:
        pl_module: the copy.
        recipe: its structural steps.
        source: where its weights come from, in words.
        epoch: the last epoch that they were trained in; -1 for those from before the first, ``None`` if unknown.
    """

    pl_module: LightningModule
    recipe: Recipe
    source: str
    epoch: int | None = None

    def as_dense(self) -> "Weights":
        """Return these weights in the structure before the first step; removed values are zero."""
        copied = copy_network(self.pl_module)
        Recipe().replay_(copied, since=self.recipe)
        return Weights(copied, Recipe(), self.source)  # type: ignore[arg-type]  # the copy of a LightningModule is one

    def as_before(self, kind: str) -> "Weights":
        """Return these weights in the structure before the first step of a kind."""
        kept, copied = self.recipe.before(kind), copy_network(self.pl_module)
        kept.replay_(copied, since=self.recipe)
        return Weights(copied, kept, self.source)  # type: ignore[arg-type]  # the copy of a LightningModule is one


def live_weights(pl_module: LightningModule, source: str = "", epoch: int | None = None) -> Weights:
    """Return a copy of a module's current weights; the module stays as it is."""
    copied: Any = copy_network(pl_module).cpu().float()
    for module in copied.modules():
        module.training = False
    return Weights(copied, recipe_of(pl_module), source, epoch)


def saved_weights(
    pl_module: LightningModule, checkpoint: dict[str, Any], source: str, is_whole: bool = True
) -> Weights:
    """Return saved weights in the structure they were saved in; the module stays as it is.

    Args:
        pl_module: a module of the same class.
        checkpoint: with ``state_dict`` and recipe.
        source: where they come from.
        is_whole: whether to call the module's own ``on_load_checkpoint``, which may build layers, with it.
    """
    weights, recipe = live_weights(pl_module), Recipe.from_dict(checkpoint.get(KEY))
    copied = weights.pl_module
    if is_whole:
        copied.on_load_checkpoint(checkpoint)
    recipe.replay_(copied, since=weights.recipe)
    # After the replay: a strict load needs the shapes that were saved.
    load_weights_(copied, checkpoint["state_dict"], pl_module.strict_loading)
    return Weights(copied.float(), recipe, source, checkpoint.get("epoch"))


def final_weights(
    trainer: Trainer, pl_module: LightningModule, weights_only: bool | None = None, name: str = "ModelExport"
) -> Weights:
    """Return the best weights of a module's final structure by ModelCheckpoint, or else its current ones.

    ``best_model_path`` may hold an earlier structure, such as before the last pruning step; such weights are passed
    over. So is, with a warning, a file that is damaged or that holds objects: a resumed run has its path from the file
    that it was resumed from, and so believes it no more than that one.

    Args:
        trainer: after its last epoch.
        pl_module: its module, which stays as it is.
        weights_only: ``False`` to unpickle objects of any class in the best checkpoint.
        name: of the callback, for messages.
    """
    for callback in callbacks_of(trainer):
        path = str(getattr(callback, "best_model_path", ""))
        if not is_a(callback, "ModelCheckpoint") or callback.monitor is None or not os.path.isfile(path):
            continue
        try:
            checkpoint = read_checkpoint(path, weights_only, trust=f"set {name}(weights_only=False)")
            if Recipe.from_dict(checkpoint.get(KEY)).steps == recipe_of(pl_module).steps:
                score = f"{callback.monitor} {float(callback.best_model_score):.4g}"
                return saved_weights(pl_module, checkpoint, f"epoch {checkpoint['epoch']}, {score}, {path}")
        except (OSError, ValueError, TypeError, KeyError) as error:  # the last two of values that no Trainer writes
            rank_zero_warn(f"{name}: taking the last weights instead of the best ones: {error}")
    last = max(trainer.current_epoch - 1, 0)
    return live_weights(pl_module, f"epoch {last}, the last weights", last)


# --- data ---------------------------------------------------------------------------------------------------------


class Batches:
    """A loader's batches as the model's steps get them, on the CPU and in float32.

    Args:
        trainer: the Trainer whose batch hooks are applied.
        loader: yields batches.
        name: ``"train"``, ``"val"`` or ``"test"``.
        most: the number of batches; default all.
    """

    def __init__(self, trainer: Trainer, loader: Iterable[Any], name: str, most: int | None = None) -> None:
        self.loader, self.name, self.most = loader, name, most
        self._trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        for batch in itertools.islice(self.loader, self._end):
            yield changed(to_device(to_model(self._trainer, batch, self.name), torch.device("cpu")), _as_float)

    @property
    def _end(self) -> int | None:
        return self.most

    def one_by_one(self) -> "Batches":
        """Return the same samples in batches of one, where the loader has an index."""
        loader = one_by_one(self.loader)
        size = getattr(self.loader, "batch_size", None) or 1 if loader is not self.loader else 1
        return type(self)(self._trainer, loader, self.name, None if self.most is None else self.most * size)


class CountedBatches(Batches):
    """Batches of a loader whose length is known, and that is asked for no more, as Lightning asks it for no more."""

    @property
    def _end(self) -> int | None:
        return len(self)

    def __len__(self) -> int:
        return len(self.loader) if self.most is None else min(self.most, len(self.loader))  # type: ignore[arg-type]  # it has one


def _as_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _batches(trainer: Trainer, loader: Any, name: str, most: int | None = None) -> Batches:
    try:
        len(loader)
    except TypeError:
        return Batches(trainer, loader, name, most)
    return CountedBatches(trainer, loader, name, most)


def evaluation_batches(trainer: Trainer) -> Batches:
    """Return the data to compare an export on: the validation data, else the test data, else the training data.

    Raises:
        ValueError: there are no data.
    """
    for name in ("val", "test", "train"):
        found = batches_of(trainer, name)
        if found is not None:
            return found
    raise ValueError("ModelExport expected data to compare the files on, but there is no loader.")


def batches_of(trainer: Trainer, name: str, in_order: bool = False) -> Batches | None:
    """Return the data of the first loader of a name; ``None`` where there is none.

    All samples are read in this process, up to the Trainer's ``limit_val_batches`` or ``limit_test_batches``.

    Args:
        trainer: the source of the data.
        name: ``"train"``, ``"val"`` or ``"test"``.
        in_order: read a DataLoader's samples in their own order, all of them, whatever its sampler does.
    """
    loader = _loader(trainer, name)
    if loader is None:
        return None
    # 1.0 means all, 1 means one batch, as in Lightning.
    limit = getattr(trainer, f"limit_{name}_batches")
    most = None if limit is None or (limit == 1.0 and isinstance(limit, float)) else _limited(loader, limit)
    return _batches(trainer, _whole(loader) if in_order or trainer.world_size > 1 else loader, name, most)


def _limited(loader: Any, limit: float) -> int:
    return max(1, math.floor(limit * len(loader))) if isinstance(limit, float) else max(1, limit)


def calibration_batches(trainer: Trainer, network: nn.Module, spec: Network, n: int) -> list[Any]:
    """Return batches of the training data with ``n`` samples in all, or as many as there are.

    Args:
        trainer: the source of the data.
        network: the network to call with them.
        spec: how it is called.
        n: the number of samples.

    Raises:
        ValueError: there are no training data.
    """
    loader = _loader(trainer, "train")
    if loader is None:
        raise ValueError("calibrate expected training data to observe ranges on, but there is no training loader.")
    batches, left = [], n
    for batch in _batches(trainer, loader, "train"):
        inputs = find_inputs(batch, network, spec.batch_to_inputs)
        size = batch_size(inputs)
        is_whole = size > left and count_samples(network, inputs, output=spec.output) is None
        # What has no row for each sample is not cut.
        batches.append(batch if is_whole else take(batch, range(min(size, left)), size))
        left -= size
        if left <= 0:
            break
    return batches


def _loader(trainer: Trainer, name: str) -> Any:
    """Return the first of the Trainer's loaders of a name, or one that its data module or module creates."""
    running = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders, "test": trainer.test_dataloaders}
    loaders = running[name]
    owners: Any = (getattr(trainer, "datamodule", None), trainer.lightning_module)
    if not _has_batches(loaders):
        owner = next((one for one in owners if _defines(one, f"{name}_dataloader")), None)
        if owner is None:
            return None
        if owner is owners[0]:
            # A data module creates its data sets in setup(), which Lightning called for the stage of the run only.
            owner.setup({"train": "fit", "val": "validate", "test": "test"}[name])
        try:
            loaders = getattr(owner, f"{name}_dataloader")()
        except NotImplementedError:  # some say so themselves that they have none
            return None
    return _first(loaders)


def _first(loaders: Any) -> Any:
    if isinstance(loaders, Mapping):
        return _first(next(iter(loaders.values()), None))
    several = isinstance(loaders, (list, tuple)) and loaders and isinstance(loaders[0], (DataLoader, list, tuple, dict))
    # A list may also be a loader itself, of batches.
    if several and not any(True for _ in leaves(loaders[0])):
        return _first(loaders[0])
    return loaders if _has_batches(loaders) else None


def _has_batches(loader: Any) -> bool:
    return loader is not None and not (isinstance(loader, (list, tuple, Mapping)) and not loader)


def _defines(owner: Any, method: str) -> bool:
    if not callable(getattr(owner, method, None)):  # some set it to None
        return False
    # LightningModule and LightningDataModule define every loader method, and raise in it.
    where = str(getattr(getattr(owner, method), "__module__", ""))
    return not where.startswith(("lightning.", "pytorch_lightning."))


def _whole(loader: Any) -> Any:
    """Return a loader of all samples in place of one with a sampler; a distributed one yields a process its share."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return DataLoader(loader.dataset, size, collate_fn=loader.collate_fn, num_workers=loader.num_workers)
