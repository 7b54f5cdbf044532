"""The Trainer and the command line behind ``lit-xai compare``."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

from lit_xai.attribution.evaluation import DataInfo
from lit_xai.cli.exporting import TRAINER_SETTINGS, with_option_names
from lit_xai.cli.run import LitXaiCLI
from lit_xai.distillation.teacher_source import read_teacher
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec
from lit_xai.network.spec import Network
from lit_xai.report.checking import check_folder
from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.measured import needs_labels, read_measured
from lit_xai.report.provenance import environment, identity
from lit_xai.report.signing import check_key
from lit_xai.report.signing import sign as sign_report
from lit_xai.report.writing import check_new, root_digest, write
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.structure.recipe import recipe_of
from lit_xai.trainer.access import MisconfigurationException, callbacks_of, rank_zero_info, rank_zero_warn
from lit_xai.trainer.structural_callback import FollowRecipe
from lit_xai.trainer.watching import Watched, watch


class NoModel(LightningModule):
    """Stands where ONNX files alone are compared."""


class CompareTrainer(Trainer):
    """A Trainer that compares two models, and does nothing else."""

    def compare(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        reference: str = "",
        candidate: str = "",
        require: dict[str, str] | None = None,
        dirpath: str = "comparison",
        split: Literal["test", "val"] = "test",
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: BatchToTarget = None,
        output: OutputSpec = None,
        groups: BatchToTarget = None,
        clusters: BatchToTarget = None,
        explainers: list[str] | None = None,
        n: int = 256,
        nulls: int = 10,
        rounds: int = 21,
        batch_size: int = 1,
        threads: int = 1,
        samples: Literal["show", "maps_only", "none"] = "show",
        corruption: bool = True,
        faithfulness: bool = True,
        adverse_class: int | str | None = None,
        overwrite: bool = False,
        sign: str | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Compare two models on data that no gradient saw, and write a report.

        Args:
            model: of whose class checkpoints are.
            datamodule: with the data.
            reference: a checkpoint or an ONNX file.
            candidate: the one that is judged.
            require: requirements by name, such as ``{"accuracy": "drop<=1 %", "retention": ">=0.4"}``.
            dirpath: the folder for the report.
            split: the data.
            module: the network inside the module, a dotted name; default the module itself.
            batch_to_inputs: its inputs in a batch: a key, an index, several, or a function's import path.
            batch_to_target: the labels in a batch: a key, an index, or a function's import path.
            output: the logits in its output: a key, an attribute, an index, or a function's import path.
            groups: the group of each sample in a batch: a key, an index, or a function's import path.
            clusters: likewise, of samples that belong together, such as those of a patient.
            explainers: methods' names; default IntegratedGradients and Occlusion, of files Occlusion.
            n: how many samples are explained.
            nulls: untrained networks that retention is held against.
            rounds: of the latency; 0 for none.
            batch_size: of the latency.
            threads: of the latency.
            samples: what the report may hold of samples: pictures of them and of their explanations, explanations
                alone, or neither.
            corruption: compare on disturbed inputs as well.
            faithfulness: hold explanations to the network that they explain as well.
            adverse_class: of a table, the class whose reason codes are compared: its number, or its name.
            overwrite: replace an earlier comparison.
            sign: an SSH key to sign the report's manifest with.
            ckpt_path: not used; it is in the configurations of runs.
            weights_only: likewise.
        """
        self._folder, self._key = Path(dirpath), sign
        try:
            requirements = read_measured(require)
            check_new(self._folder, overwrite)
            if sign is not None:
                check_key(sign)
            given = Network(module, batch_to_inputs, output)
            found, labels = self._called(model, datamodule, split, given, batch_to_target)
            paths = {"reference": Path(reference), "candidate": Path(candidate)}
            networks = {name: _load(name, path, model, found) for name, path in paths.items()}
        except ValueError as error:
            raise ValueError(with_option_names(str(error))) from None
        known = DataInfo().completed_by(datamodule)
        options = CompareOptions(
            found.batch_to_inputs,
            labels,
            found.output,
            groups,
            clusters,
            explainers,
            n,
            nulls,
            rounds=rounds,
            batch_size=batch_size,
            threads=threads,
            split=split,
            needs_labels=needs_labels(requirements),
            feature_names=known.feature_names,
            input_features=known.input_features,
            token_names=known.token_names,
            mean=known.mean,
            std=known.std,
            samples=samples,
            corruption=corruption,
            faithfulness=faithfulness,
            adverse_class=adverse_class,
            feature_groups=getattr(datamodule, "feature_groups", None),
        )
        loader = _loader(model, datamodule, split)
        facts = {
            "title": " against ".join(_title(paths[name], paths) for name in ("candidate", "reference")),
            "requirements": {one.name: str(one).partition(" ")[2] for one in requirements},
            "stated": "afterwards",
            "reading": 1,
            "identity": identity(paths),
            "environment": environment(),
            "changes": [
                {"what": str(step.get("label") or step["kind"])} for step in recipe_of(networks["candidate"]).steps
            ],
        }
        names = [str(one) for one in known.class_names or []]
        total = len(loader) if hasattr(loader, "__len__") else None
        with tqdm(total=total, desc="Comparing", unit="batch", leave=False, disable=None) as bar:
            try:
                record = compare_networks(networks, loader, options, class_names=names, facts=facts, step=bar.update)
            except ValueError as error:
                raise ValueError(with_option_names(str(error))) from None
        write(record, self._folder)

    def _called(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None,
        split: Literal["test", "val"],
        given: Network,
        batch_to_target: BatchToTarget,
    ) -> tuple[Network, BatchToTarget]:
        """Return how the model's own step calls its network, and where its labels are; what is given counts first."""
        if isinstance(model, NoModel):
            return given, batch_to_target
        watching = _Watching(split, given.module)
        callbacks_of(self)[:] = [FollowRecipe(), watching]
        run = self.test if split == "test" else self.validate
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what a step logs, say: it runs to be watched alone
                run(model, datamodule=datamodule, verbose=False)
        except MisconfigurationException:  # it has no such step, or no such data: said below, or not needed
            return given, batch_to_target
        if watching.watched is None:
            return given, batch_to_target
        seen = watching.watched
        network = replace(
            seen.network,
            batch_to_inputs=given.batch_to_inputs or seen.network.batch_to_inputs,
            output=given.output if given.output is not None else seen.network.output,
        )
        return network, batch_to_target if batch_to_target is not None else seen.batch_to_target

    def finish(self) -> int:
        """Print the verdict and where the report is; return the exit code."""
        text, code = check_folder(self._folder)
        place = self._folder / "report.html"
        sys.stdout.write(f"{text}\nThe report is {place}, its root digest {root_digest(self._folder)}\n")
        try:
            if self._key is not None:
                sys.stdout.write(f"It is signed in {sign_report(self._folder, self._key)}\n")
        except (OSError, ValueError) as error:  # the report is there, and can be signed later
            sys.stderr.write(f"lit-xai: error: {error}\n")
            return 1
        return code


class _Watching(Callback):
    """Watches a module's step on one batch."""

    def __init__(self, loader: str, module: str | None) -> None:
        self._loader, self._module = loader, module
        self.watched: Watched | None = None

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        trainer.limit_val_batches = trainer.limit_test_batches = 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            self.watched = watch(trainer, pl_module, self._loader, self._module)
        except ValueError as error:  # its forward may still be called
            rank_zero_info(f"{error}")

    on_test_end = on_validation_end


def _title(path: Path, paths: Mapping[str, Path]) -> str:
    """Return a file's name, with its folder where both have the same."""
    same = len({one.name for one in paths.values()}) < len(paths)
    return "/".join(path.parts[-3:]) if same else path.name


def _load(argument: str, path: Path, model: LightningModule, network: Network) -> nn.Module:
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ValueError(f"{argument} expected a checkpoint or an ONNX file, but there is no file '{path}'.")
        return FileNetwork(path, threads=1)
    if isinstance(model, NoModel):
        raise ValueError(f"{argument}='{path}' is a checkpoint: name the model's class with `model:` in a config.")
    return network.of(read_teacher(path, None, model, argument)).eval()


def _loader(model: LightningModule, datamodule: LightningDataModule | None, split: str) -> Any:
    owner: Any = model if datamodule is None else datamodule
    if datamodule is not None:
        datamodule.prepare_data()
        datamodule.setup("test" if split == "test" else "validate")
    try:
        loader = getattr(owner, f"{split}_dataloader")()
    except NotImplementedError:
        loader = None
    if isinstance(loader, (list, tuple)) and loader:
        if len(loader) > 1:
            rank_zero_warn(f"The first of {len(loader)} {split} loaders is compared on, and no other.")
        loader = loader[0]
    if loader is None or isinstance(loader, (list, tuple)):
        raise ValueError(f"{type(owner).__name__} has no {split}_dataloader: name the data with `data:` in a config.")
    return loader


class CompareCLI(LitXaiCLI):
    """The command line of ``lit-xai compare``.

    Args:
        arguments: the command and its options, spelled out.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments, trainer_class=CompareTrainer, save_config_callback=None)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the only command, and the arguments of its method that are no options."""
        return {"compare": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Take a model only where a checkpoint is compared."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"model": {"class_path": "lit_xai.cli.comparing.NoModel"}})

    def before_instantiate_classes(self) -> None:
        """Set up the Trainer to write nothing, and leave out its callbacks."""
        config = self.config["compare"].trainer
        for name, value in TRAINER_SETTINGS.items():
            config[name] = value
        config.callbacks = []
