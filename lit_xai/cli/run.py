"""``lit-xai fit | validate | test | predict``: a LightningCLI for any module and any data by import path."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    LRSchedulerCallable,
    OptimizerCallable,
    SaveConfigCallback,
)
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from lightning_utilities.core.imports import RequirementCache

# Importing these makes their classes known by short names in a config.
import lit_xai.callbacks
import lit_xai.data
import lit_xai.models
from lit_xai.cli.checkpoints import InitFrom, epochs_trained, read_checkpoint, short_schedule
from lit_xai.cli.errors import setup_sentence, without_wrappers
from lit_xai.cli.files import check_start, is_file_name
from lit_xai.cli.hyperparameters import completed_model
from lit_xai.cli.log_filters import filter_messages
from lit_xai.cli.parser import ConfigByName, Parser
from lit_xai.cli.predictions import save_predictions
from lit_xai.models.optim import configure_optimizers
from lit_xai.network.saving import unused
from lit_xai.trainer.access import callbacks_of, require_writable, run_folder
from lit_xai.trainer.structural_callback import FollowRecipe

# jsonargparse 4.50 renamed it.
_WITH_NULLS = {"skip_unset" if RequirementCache("jsonargparse>=4.50") else "skip_none": False}


class SaveConfig(SaveConfigCallback):
    """Save the exact config into the run's folder; an existing one is kept, the next is ``config-v1.yaml``."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once, however many stages follow."""
        if self.already_saved:
            return
        # A folder on a remote disk is left to Lightning.
        if "://" in (trainer.log_dir or ""):
            return super().setup(trainer, pl_module, stage)
        self._save(run_folder(trainer))
        self.already_saved = True

    @rank_zero_only
    def _save(self, folder: Path) -> None:
        require_writable(folder)
        path = unused(folder / self.config_filename)
        self.parser.save(self.config, path, **_WITH_NULLS, multifile=False, overwrite=True)


class LitXaiCLI(LightningCLI):
    """Lightning's command line with configs by name, ``--init_from``, and one line for each mistake.

    Any LightningModule, LightningDataModule, callback, logger, optimizer and scheduler can be named by its import path;
    classes of this library and of Lightning, which are imported already, by their short names.

    Args:
        arguments: the command and its options, as typed.
        options: of LightningCLI, in place of those set here.
    """

    def __init__(self, arguments: Sequence[str], **options: Any) -> None:
        own: dict[str, Any] = {
            "parser_class": Parser,
            "parser_kwargs": {"prog": "lit-xai"},
            "save_config_callback": SaveConfig,
            "seed_everything_default": 0,
            # Lightning binds the optimizer to parameters before `setup` and `configure_model`, which may build layers.
            "auto_configure_optimizers": False,
        }
        super().__init__(args=list(arguments), **{**own, **options})

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser whose ``--config`` takes names."""
        header = [f"lit_xai=={lit_xai.__version__}", f"lightning.pytorch=={pl.__version__}"]
        parser = self.parser_class(**{"dump_header": header, **kwargs})
        parser.add_argument("-c", "--config", action=ConfigByName, help="A file, or the name of a config.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this library's options to every command, as all commands read the same config."""
        parser.add_argument("--init_from", type=str | None, help="fit: start with this checkpoint's weights.")
        parser.add_argument("--optimizer", type=OptimizerCallable | None, help="Replaces the module's own optimizer.")
        parser.add_argument("--lr_scheduler", type=LRSchedulerCallable | None, help="Used with --optimizer.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and check the checkpoint files before anything is built."""
        self.config = parser.parse_args(cast(list[str], args))
        config = self.config[self.config.subcommand]
        try:
            self._check(config)
        except (OSError, ValueError) as error:
            parser.error(str(error))

    def _check(self, config: Any) -> None:
        is_fit = self.config.subcommand == "fit"
        if config.lr_scheduler and not config.optimizer:
            raise ValueError(
                "--lr_scheduler needs --optimizer: the module's own configure_optimizers() returns its scheduler."
            )
        check_start(self.config.subcommand, config.init_from, config.ckpt_path)
        if is_fit and config.init_from:
            # Here for its errors alone, before anything is built.
            read_checkpoint(config.init_from, config.weights_only)
        if is_file_name(config.ckpt_path):
            checkpoint = read_checkpoint(config.ckpt_path, config.weights_only)
            if is_fit and config.trainer.max_epochs is not None:
                try:
                    _check_resume(config.ckpt_path, checkpoint, config.trainer.max_epochs)
                except (KeyError, TypeError, AttributeError, IndexError):  # of values that no Trainer writes
                    raise ValueError(f"'{config.ckpt_path}' is damaged: its 'loops' tell no progress.") from None

    def _parse_ckpt_path(self) -> None:
        # In place of Lightning's method, which imports any class that the file names. A checkpoint that a script wrote
        # has no class's name, and its arguments are its own affair; one that has to be unpickled is not asked either.
        config = self.config[self.config.subcommand]
        if not is_file_name(config.ckpt_path) or config.weights_only is False:
            return
        arguments = read_checkpoint(config.ckpt_path).get("hyper_parameters", {})
        if "_class_path" not in arguments:
            return
        try:
            model = completed_model(config.model, arguments, config.ckpt_path)
        except ValueError as error:
            self.parser.error(str(error))
        self.config = self.parser.parse_object({self.config.subcommand: {"model": model}}, self.config)

    def after_instantiate_classes(self) -> None:
        """Give the module its optimizer and its initial weights, or report that it has only its own."""
        optimizer, init_from = self._get(self.config_init, "optimizer"), self._get(self.config_init, "init_from")
        if optimizer is not None:
            scheduler = self._get(self.config_init, "lr_scheduler")
            self.model.configure_optimizers = partial(_configure_optimizers, self.model, optimizer, scheduler)
        if init_from and self.subcommand == "fit":
            callback = InitFrom(init_from, self._get(self.config, "weights_only"))
            callbacks_of(self.trainer).insert(0, callback)
        callbacks_of(self.trainer).insert(0, FollowRecipe())
        if self.subcommand not in ("fit", "inspect", "compare") and not self._get(self.config_init, "ckpt_path"):
            rank_zero_info(
                f"{type(self.model).__name__} has the weights it was built with, untrained unless it loads its own:"
                " name others with --ckpt_path."
            )

    def after_predict(self) -> None:
        """Save the predictions, and print where."""
        path = save_predictions(self.trainer)
        if path is not None:
            sys.stdout.write(f"The predictions, batch by batch, for torch.load: {os.path.relpath(path)}\n")


def _check_resume(path: str, checkpoint: dict[str, Any], max_epochs: int) -> None:
    """Refuse a checkpoint from which nothing is left to train, or whose schedule ends before the run does."""
    afresh = f"start afresh from its weights with --init_from {path}."
    if steps := short_schedule(checkpoint, max_epochs):
        raise ValueError(
            f"'{path}' has a learning rate schedule of {steps} steps, which cannot be extended to --trainer.max_epochs"
            f" {max_epochs}: {afresh}"
        )
    epochs = epochs_trained(checkpoint)
    if 0 <= max_epochs <= epochs:
        raise ValueError(
            f"'{path}' is already trained {epochs} of {max_epochs} epochs: raise --trainer.max_epochs, or {afresh}"
        )


def _configure_optimizers(
    pl_module: LightningModule, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None
) -> OptimizerLRScheduler:
    return configure_optimizers(pl_module.parameters(), optimizer, lr_scheduler, trainer=pl_module.trainer)


def run(arguments: Sequence[str]) -> int:
    """Run a command of the Trainer; return 0, or 1 if it could not be set up, for a reason explained in one line.

    Args:
        arguments: the command and its options, as typed.

    Raises:
        SystemExit: 2 if the options themselves are wrong; 0 after ``--help`` and ``--print_config``.
    """
    return 0 if start(arguments) else 1


def start(arguments: Sequence[str], cli: Callable[[Sequence[str]], Any] = LitXaiCLI) -> Any:
    """Run a command and return the command line object, ``None`` if it could not be set up.

    Args:
        arguments: the command and its options, as typed.
        cli: the class that runs it.
    """
    # Python puts the folder of the installed script there, not the one in which the user's modules are.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not sys.stdout.isatty():
        # Lightning's own switch: in a file, every update of the bar is a line of its own.
        os.environ.setdefault("TQDM_MINITERS", "1000")
    try:
        with filter_messages(arguments[0]):
            return cli(arguments)
    except Exception as error:
        sentence = setup_sentence(error)
        if sentence is None or os.environ.get("JSONARGPARSE_DEBUG") == "true":
            cause = without_wrappers(error)
            raise cause from cause.__cause__
        sys.stderr.write(f"lit-xai: error: {sentence}\n")
        return None
