"""What a project is: a module of somebody else, tiny batches for it, and what a reader of its code says about it."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from torch.utils.data import DataLoader

SAMPLES, BATCH_SIZE = 32, 8
STEP = "the step"
"""The network where a step chains several parts."""

REPOSITORIES = Path("repositories")


@dataclass
class Built:
    """What ``Trainer.fit`` is called with.

    Attributes:
        module: the LightningModule.
        train: its loader; ``None`` where the module or the data module has one.
        validation: likewise.
        datamodule: the package's own, where the module asks for it.
        trainer: arguments that the module asks of a Trainer.
        has_labels: whether a reader finds labels in a batch; set by the runner.
    """

    module: Any
    train: Any = None
    validation: Any = None
    datamodule: Any = None
    trainer: dict[str, Any] = field(default_factory=dict)
    has_labels: bool = True


@dataclass(frozen=True)
class Project:
    """A project and a reader's answers, in words: whoever compares them with what a program finds reads both.

    Attributes:
        name: of the function that builds it.
        build: from nothing.
        network: dotted name of the part that takes the data and gives what the loss sees, or ``STEP``.
        inputs: the leaves of a batch that it is called with.
        logits: where they are in what it returns.
        labels: the leaf with the labels, or ``None`` where targets are computed.
        classes: whether the labels are classes.
        notes: what the adapter had to change for the module to train at all.
    """

    name: str
    build: Callable[[], Built]
    network: str
    inputs: str
    logits: str
    labels: str | None
    notes: str = ""


PROJECTS: dict[str, Project] = {}


def project(
    network: str, inputs: str, logits: str = "output", labels: str | None = None, notes: str = ""
) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Enter a function that builds a project."""

    def enter(build: Callable[[], Built]) -> Callable[[], Built]:
        PROJECTS[build.__name__] = Project(build.__name__, build, network, inputs, logits, labels, notes)
        return build

    return enter


def loader(samples: Iterable[Any], **options: Any) -> DataLoader[Any]:
    """Return batches of eight in their order."""
    return DataLoader(list(samples), batch_size=BATCH_SIZE, **options)  # type: ignore[arg-type]


def captured(run: Callable[[], object]) -> Built:
    """Return what a package's own training would have called ``Trainer.fit`` with."""
    import lightning.pytorch
    import pytorch_lightning

    class Found(BaseException):
        pass

    def fit(trainer: Any, model: Any, train_dataloaders: Any = None, val_dataloaders: Any = None, **rest: Any) -> None:
        raise Found(model, train_dataloaders, val_dataloaders, rest.get("datamodule"))

    with patch.object(lightning.pytorch.Trainer, "fit", fit), patch.object(pytorch_lightning.Trainer, "fit", fit):
        try:
            run()
        except Found as found:
            model, train, validation, datamodule = found.args
            if hasattr(train, "train_dataloader"):
                train, datamodule = None, train
            return Built(model, train, validation, datamodule)
    raise RuntimeError("the package trained without calling Trainer.fit")


def from_repository(repository: str, file: str) -> ModuleType:
    """Import one file of a public repository; whatever it would start at its end fails and is passed over."""
    path = REPOSITORIES / repository.replace("/", "+") / file
    if not path.exists():
        raise ModuleNotFoundError(f"No file {file} of the repository {repository} in {REPOSITORIES}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
