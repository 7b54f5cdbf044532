"""``lit-xai inspect``: what each callback would do with a model, told before anything is trained."""

import sys
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lit_xai.cli.run import LitXaiCLI, start
from lit_xai.overview.callback import Inspection, inspect_with

# Nothing is written, and one batch is enough.
_TRAINER_SETTINGS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "fast_dev_run": False,
    "profiler": None,
    "barebones": False,
}


class InspectTrainer(Trainer):
    """A Trainer that inspects a module, and does nothing else.

    Attributes:
        inspection: what was found.
    """

    inspection: Inspection

    def inspect(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Tell what each callback would do with a module.

        Args:
            model: to inspect.
            datamodule: of whose training data one batch is read.
            ckpt_path: a checkpoint whose weights and structure to inspect; default the model as it is built.
            weights_only: False to unpickle a checkpoint that holds more than tensors and plain values.
        """
        data = {"datamodule": datamodule, "ckpt_path": ckpt_path, "weights_only": weights_only}
        self.inspection = inspect_with(self, model, **data)


class InspectCLI(LitXaiCLI):
    """The command line of ``lit-xai inspect``.

    Args:
        arguments: the command and its options.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments, trainer_class=InspectTrainer, save_config_callback=None)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the only command, and the arguments of its method that are no options."""
        return {"inspect": {"model", "datamodule"}}

    def before_instantiate_classes(self) -> None:
        """Set up the Trainer to write nothing, and leave out its callbacks."""
        config = self.config["inspect"].trainer
        for name, value in _TRAINER_SETTINGS.items():
            config[name] = value
        config.callbacks = []


def inspect(arguments: Sequence[str]) -> int:
    """Inspect a model and print what was found; return 0, or 1 if that failed for a reason explained in one line.

    Args:
        arguments: the command and its options.
    """
    cli = start(arguments, InspectCLI)
    if cli is None:
        return 1
    sys.stdout.write(f"{cli.trainer.inspection}\n")
    return 0
