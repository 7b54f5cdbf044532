"""The callback that ends a run with a verdict on it and a report that somebody can sign."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NotRequired

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_xai.attribution.attribution import rehearse
from lit_xai.attribution.evaluation import DataInfo
from lit_xai.distillation.teacher_source import read_teacher
from lit_xai.export.callback import ModelExport
from lit_xai.export.weights import batches_of, final_weights, live_weights
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec, find_inputs, find_labels
from lit_xai.network.check import Name, check_flag, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.packages import ONNX, require
from lit_xai.network.probing import Probe
from lit_xai.network.spec import Network
from lit_xai.report.changes import changes, protocols
from lit_xai.report.checking import verdict_of
from lit_xai.report.comparison import ROUNDS, CompareOptions, compare_networks
from lit_xai.report.limits import gain_of_training
from lit_xai.report.measured import EXPLANATIONS, FEWEST, needs_labels, read_measured
from lit_xai.report.of_run import (
    Ending,
    class_names_of,
    compared,
    decisions,
    environment_of,
    identity_of,
    inputs_by,
    usable_explainers,
)
from lit_xai.report.provenance import environment
from lit_xai.report.record import Record
from lit_xai.report.splits import Split, data_facts
from lit_xai.report.statement import STATED, STATEMENT, Statement, read_statement
from lit_xai.report.writing import CARD, PAGE, check_new, write
from lit_xai.retention.explainer import as_explainer
from lit_xai.retention.reference import NULLS
from lit_xai.structure.attachment import attach, detach
from lit_xai.structure.schema import Weights, entries
from lit_xai.trainer.access import (
    MisconfigurationException,
    callbacks_of,
    rank_zero_info,
    rank_zero_warn,
    refuse_strategies,
    require_writable,
    run_folder,
    without_log,
)
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import loader_name, read_batch
from lit_xai.trainer.budget import Budget
from lit_xai.trainer.dense_model import DenseModel
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.logging import log_files, log_scalars, log_text
from lit_xai.trainer.random_states import random_numbers_kept
from lit_xai.trainer.saved_state import AnyNumber, check_saved_state, check_state
from lit_xai.trainer.structural_callback import structural_callbacks
from lit_xai.trainer.watching import labels_of, resolved

_LOSSES = (("accuracy", "drop<="), ("mae", "rise<="))
"""Requirements that a reference which was hardly trained makes easy."""

SPLITS = {"test": "test", "val": "validation"}


class ModelReport(AnyCallback):
    """End a run with a verdict on what it was required to reach, and a report of one page.

    What is required is written down before the first step, with its checksum, in ``stated.json`` of the run's folder:
    the report may then say that it was stated before. At the end, once
    :class:`~lit_xai.export.callback.ModelExport` has written its files, the reference, the final model and the file in
    integers, if there is one, are compared on the test samples, which are read once. The folder then holds
    ``report.html``, ``report.json``, ``model_card.md``, and the numbers of every sample that they are made of;
    ``lit-xai check`` tells the verdict as an exit code. The training is bit for bit that of a run without it, and a
    report that fails is a warning.

    Args:
        require: requirements by name, such as ``{"accuracy": "drop<=1 %", "retention": ">=0.4"}``.
        reference: ``"dense"``: the model just before the first structural step or, where no callback changes the
            structure, as it is at the start of the run; a checkpoint's path, a LightningModule or a bare network.
        split: the data, ``"test"`` or ``"val"``. Where there is no test loader the validation data are taken, and the
            report says so.
        dirpath: the folder; default that of the run.
        n: how many samples are explained.
        explainers: methods' names, or the arguments of an :class:`~lit_xai.retention.explainer.Explainer` as a mapping;
            by default Integrated Gradients and Occlusion, of which a file takes Occlusion alone.
        nulls: untrained networks that retention is held against.
        baselines: of the explainers, a number; default black where the mean and std of images are known, else zero.
        groups: the group of each sample in a batch, for who was hurt: a key, an index, a function or its import path.
        clusters: likewise, of samples that belong together, such as those of a patient.
        rounds: of the latency; 0 for none.
        batch_size: of the latency.
        threads: of the latency.
        module: the network inside the LightningModule, a dotted name; by default found by its call.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        batch_to_target: the labels in a batch: a key, an index, a function or its import path.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        samples: what the report may hold of samples: ``"show"`` for pictures of them and of their explanations,
            ``"maps_only"`` for explanations without the inputs, ``"none"`` for neither.
        corruption: whether networks are also compared on disturbed inputs.
        faithfulness: whether explanations are also held to the network that they explain.
        adverse_class: of a table, the class whose reason codes are compared: its number, or its name.
        title: of the report; default the module's class.
        subject: one sentence on what the model is for.
        overwrite: whether an earlier report in the folder may be replaced. A resumed run replaces its own.
        weights_only: ``False`` to unpickle objects of any class in ModelCheckpoint's best checkpoint.
        seed: of all that is drawn.

    Attributes:
        record: what was measured; ``None`` before the end.
        digest: the root digest of the report.

    Raises:
        ValueError: in the constructor or before the first step, one sentence that names the argument.

    Example:
        >>> from lit_xai import StructuredPruning
        >>> callbacks = [StructuredPruning(target_macs=0.5), ModelReport({"accuracy": "drop<=1 %"})]
        >>> ModelReport({"acuracy": ">=0.9"})
        Traceback (most recent call last):
        ...
        ValueError: require expected names of what is measured, but got 'acuracy'. Did you mean 'accuracy'?
    """

    def __init__(
        self,
        require: dict[str, str] | None = None,
        *,
        reference: nn.Module | Name = "dense",
        split: Literal["test", "val"] = "test",
        dirpath: str | os.PathLike[str] | None = None,
        n: int = 256,
        explainers: list[Any] | None = None,
        nulls: int = NULLS,
        baselines: float | None = None,
        groups: BatchToTarget = None,
        clusters: BatchToTarget = None,
        rounds: int = ROUNDS,
        batch_size: int = 1,
        threads: int = 1,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        batch_to_target: BatchToTarget = None,
        output: OutputSpec = None,
        samples: Literal["show", "maps_only", "none"] = "show",
        corruption: bool = True,
        faithfulness: bool = True,
        adverse_class: int | str | None = None,
        title: str = "",
        subject: str = "",
        overwrite: bool = False,
        weights_only: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(reference, (str, Path, nn.Module)) or reference == "previous":
            raise refusal("reference", "'dense', a checkpoint's path or a module", reference)
        if split not in SPLITS:
            raise refusal("split", "'test' or 'val'", split)
        if dirpath is not None and (not isinstance(dirpath, (str, os.PathLike)) or not str(dirpath)):
            raise refusal("dirpath", "a folder's path or None", dirpath)
        self.requirements = read_measured(require)
        self.explainers = None if explainers is None else [as_explainer(one, "explainers") for one in explainers]
        self.options = CompareOptions(
            groups=groups,
            clusters=clusters,
            explainers=self.explainers,
            n=n,
            nulls=nulls,
            baselines=baselines,
            rounds=rounds,
            batch_size=batch_size,
            threads=threads,
            seed=seed,
            split=split,
            samples=samples,
            corruption=corruption,
            faithfulness=faithfulness,
            adverse_class=adverse_class,
        )
        self._refuse_unmeasured()
        self.reference, self.dirpath, self.overwrite = reference, dirpath, check_flag("overwrite", overwrite)
        self.given, self.batch_to_target = Network(module, batch_to_inputs, output), batch_to_target
        self.title, self.subject, self.weights_only = title, subject, weights_only
        self.record: Record | None = None
        self.digest = ""
        self._resumed: dict[str, Any] = {}
        self._forget()

    def _refuse_unmeasured(self) -> None:
        """Refuse to require what the other arguments leave out."""
        names = {one.name for one in self.requirements}
        if "latency" in names and not self.options.rounds:
            raise refusal("rounds", "1 or more where a latency is required", self.options.rounds)
        if names & {*EXPLANATIONS} and self.explainers == []:
            raise refusal("explainers", "one or more where explanations are required", self.explainers)
        if names & {*EXPLANATIONS} and self.options.n < FEWEST:
            raise refusal("n", f"{FEWEST} or more where explanations are required", self.options.n)

    def _forget(self) -> None:
        self._dense = DenseModel("ModelReport", "reference", weights_alone=True)
        self._module: nn.Module | None = None
        self._network, self._training = self.given, self.given
        self._labels: BatchToTarget = None
        self._few: Inputs = ()
        self._stated: Statement | None = None
        self._folder = self._run_folder = Path()
        self._is_on = False
        self._budget = Budget(1, 1)

    @property
    def label(self) -> str:
        """The reference, in words."""
        if isinstance(self.reference, nn.Module):
            return type(self.reference).__name__
        return Path(self.reference).name

    @property
    def _required(self) -> dict[str, str]:
        return {one.name: str(one).partition(" ")[2] for one in self.requirements}

    # --- hooks of Lightning -------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse settings that are wrong for any batch, and wait for the first structural step."""
        guard(trainer)
        if stage != "fit":
            return
        self._forget()
        self.record, self.digest, self._resumed = None, "", {}
        refuse_strategies(trainer, "ModelReport", "leave it out and hold checkpoints against each other afterwards")
        others = [one for one in callbacks_of(trainer) if isinstance(one, ModelReport)]
        if sum(one.dirpath == self.dirpath for one in others) > 1:
            raise MisconfigurationException(
                "Two ModelReport callbacks would write into one folder: give each its own dirpath, or keep one."
            )
        if any(one.name == "latency" for one in self.requirements):
            require("ModelReport(require={'latency': ...})", *ONNX, "onnxruntime")
        self._run_folder = run_folder(trainer)
        self._folder = self._run_folder if self.dirpath is None else Path(self.dirpath)
        self._is_on = not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by its connector
        if self._is_on and self.reference == "dense" and structural_callbacks(trainer):
            attach(pl_module, self, before_step=self._before_structural_step)

    def _before_structural_step(self, pl_module: Any) -> None:
        with self._budget.once():
            self._dense.before_structural_step(pl_module)

    @property
    def state_key(self) -> str:
        """The name under which checkpoints hold what a resumed run needs; each folder has one of its own."""
        return "ModelReport" if self.dirpath is None else f"ModelReport:{self.dirpath}"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in what was stated, and what a resumed run needs of the reference."""
        state = self._resumed
        if self._stated is not None:
            folders = [*self._resumed.get("folders", []), str(self._folder.absolute())]
            state = {
                "stated": self._stated.to_dict(),
                "folders": list(dict.fromkeys(folders)),
                **self._budget.state(),
                **self._dense.state(),
            }
        if state:
            checkpoint.setdefault("callbacks", {})[self.state_key] = state

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a damaged state before anything is restored from it: it says what was stated."""
        check_saved_state(self, checkpoint, _check_state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what the checkpoint holds until the run starts."""
        _check_state(state_dict)
        self._resumed = dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the network, its inputs and labels; then write down what is required."""
        if not self._is_on:
            return
        self._budget.start(self._resumed)
        with self._budget.once(), random_numbers_kept():
            agreed(trainer, "ModelReport", lambda: self._prepare(trainer, pl_module))
            # Its name is left out: the other processes have nothing to do, and nothing of their own to say.
            agreed(trainer, "", lambda: self._state(trainer, pl_module) if trainer.is_global_zero else None)
        self._stated = trainer.strategy.broadcast(self._stated)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and write in the first process, once the files are exported; the other processes wait."""
        if not self._is_on:
            return
        exports = [one for one in callbacks_of(trainer) if isinstance(one, ModelExport)]
        for export in exports:  # whatever the order of the callbacks
            export.on_fit_end(trainer, pl_module)
        if trainer.is_global_zero:
            try:
                with self._budget.once(), random_numbers_kept(), without_log(pl_module):
                    self._measure(trainer, pl_module, exports)
                self._tell(trainer)
            except Exception as error:  # an observer never ends a run
                self._fail(error)
        trainer.strategy.barrier("lit_xai.ModelReport")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the reference, and remove what was put on the module."""
        unguard(trainer)
        detach(pl_module, self)
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clean up here as well, because Lightning calls no ``teardown`` after an exception."""
        self.teardown(trainer, pl_module, "exception")

    # --- before the first step ----------------------------------------------------------------------------------------

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader = loader_name(trainer, Probe(), "fit")
        self._network = resolved(trainer, pl_module, loader, self.given)
        self._training = resolved(trainer, pl_module, "train", self.given)
        self._labels = labels_of(trainer, pl_module, loader, self.given, self.batch_to_target)
        batch, _ = read_batch(trainer, loader, Probe(n=2), seed=0)
        network = self._network.of(pl_module)
        self._few = find_inputs(batch, network, self._network.batch_to_inputs)
        if needs_labels(self.requirements) and find_labels(batch, network, batch_to_target=self._labels) is None:
            raise ValueError(
                "require is about labels, but none were found in a batch: name them with batch_to_target=, or require"
                " 'flips' or 'retention', which need none."
            )
        for explainer in self.explainers or ():
            options = explainer.options(self._few)
            options.pop("internal_batch_size")
            with without_log(pl_module):
                rehearse(network, self._few, output=self._network.output, **options)
        if self.reference != "dense":
            given: Any = self.reference
            is_module = isinstance(given, nn.Module)
            self._module = copy_network(given) if is_module else read_teacher(given, None, pl_module, "reference")
            return
        self._dense.resume(pl_module, self._resumed)
        if not self._dense.is_known and not structural_callbacks(trainer):
            self._dense.take(pl_module)

    def _state(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what is required, or take over what the resumed run had written down."""
        require_writable(self._folder)
        folders = [Path(one) for one in self._resumed.get("folders", ())]
        check_new(self._folder, self.overwrite or self._folder.absolute() in folders)
        now = Statement.now(
            self._required,
            trainer.global_step,
            " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            environment(),
            [f"{type(pl_module).__name__}", *protocols(callbacks_of(trainer)).values()],
        )
        known = read_statement(self._folder)
        if self._resumed:
            first = Statement.from_dict(self._resumed["stated"], "the statement in the checkpoint")
            read = [one.readings for one in (known, *map(_readable, folders)) if one is not None]
            self._stated = replace(first, readings=max([first.readings, *read]))
        elif known is not None and not self.overwrite and known.requirements != self._required:
            raise ValueError(
                f"dirpath expected a folder without another run's {STATED}, but {self._folder} holds one. "
                f"{known.sentence()} Name another folder, or give overwrite=True."
            )
        else:
            self._stated = now
        self._stated.write(self._folder)

    # --- at the end ---------------------------------------------------------------------------------------------------

    def _measure(self, trainer: Trainer, pl_module: LightningModule, exports: Sequence[ModelExport]) -> None:
        """Compare the networks of the run, and write the report."""
        if self._module is None and not self._dense.is_known:
            raise ValueError("no structural step was taken, so there is no reference.")
        split, batches = self._batches(trainer)
        rank_zero_info(f"ModelReport: comparing the networks on the {SPLITS[split]} data ...")
        end = self._end(trainer, pl_module, exports)
        names, served = class_names_of(trainer, pl_module), decisions(trainer)
        served[split] = ", ".join(filter(None, [served[split], "this report"]))
        inputs = inputs_by(end.network.batch_to_inputs, end.weights.pl_module)
        read = Split(split, served[split], batches, end.compared.networks[end.name], inputs, self._labels)
        explainers, left_out = usable_explainers(self.explainers, end.compared, end.few)
        stated, facts = self._facts(trainer, pl_module, end, split)
        facts["limits"] = [*self._limits_of_split(split, served[split]), *facts["limits"], *left_out]
        self._stated = stated
        stated.write(self._folder)  # before the samples are read: who is killed while reading has read them
        options = replace(self._options(trainer, end), batch_to_inputs=inputs, explainers=explainers, split=split)
        record = compare_networks(end.compared.networks, read, options, class_names=names, facts=facts)
        data = self._data(trainer, pl_module, read, served, names)
        dense = end.reference if self.reference == "dense" else None  # changed from here on
        told = protocols(callbacks_of(trainer))
        more = {
            "changes": changes(dense, end.weights.recipe.steps, told, end.network, end.few),
            "data": data,
            "limits": [*record.facts["limits"], *_of_overlaps(data)],
        }
        self.record = replace(record, facts={**record.facts, **more})
        self.digest = write(self.record, self._folder)

    def _end(self, trainer: Trainer, pl_module: LightningModule, exports: Sequence[ModelExport]) -> Ending:
        """Return the models of the run and what of them is compared."""
        given = self.weights_only if not exports or self.weights_only is not None else exports[0].weights_only
        weights = final_weights(trainer, pl_module, given, "ModelReport")
        reference = self._reference(pl_module)
        # Files are of the network that was exported: where none was named here, that one is compared.
        network = exports[0].exporter.network if exports and self.given == Network() else self._network
        name = self.label if self.reference != "dense" or structural_callbacks(trainer) else "start"
        few = _on_cpu(self._few)
        return Ending(
            name, reference, weights, network, few, compared((name, reference), weights, network, few, exports)
        )

    def _options(self, trainer: Trainer, end: Ending) -> CompareOptions:
        datamodule = getattr(trainer, "datamodule", None)
        info = DataInfo().completed_by(datamodule)
        return replace(
            self.options,
            feature_names=info.feature_names,
            input_features=info.input_features,
            token_names=info.token_names,
            feature_groups=getattr(datamodule, "feature_groups", None),
            mean=info.mean,
            std=info.std,
            batch_to_target=self._labels,
            output=end.compared.output,
            files=end.compared.exported,
        )

    def _facts(
        self, trainer: Trainer, pl_module: LightningModule, end: Ending, split: str
    ) -> tuple[Statement, dict[str, Any]]:
        """Return what was stated, with this reading counted, and what the report says beside the comparison."""
        stated = self._stated
        assert stated is not None  # on_train_start wrote it
        is_before, limits = self._compare_statements(stated)
        stated = stated.read_once_more() if split == "test" else replace(stated, failure="")
        judged = list(end.compared.networks)[-1]
        return stated, {
            "title": self.title or f"{type(pl_module).__name__}: {judged} against {end.name}",
            "subject": self.subject,
            "requirements": self._required,
            "stated": "before" if is_before else "afterwards",
            "reading": max(stated.readings, 1),
            "limits": [*limits, *self._limits_of_reference(trainer), *end.compared.limits],
            "identity": {
                **identity_of(self._run_folder, end, self._files()),
                "requirements": stated.sentence(),
                "sha256 of the requirements": stated.sha256,
            },
            "environment": environment_of(trainer),
        }

    def _reference(self, pl_module: LightningModule) -> nn.Module:
        """Return the reference on the CPU, in eval mode."""
        module: Any = self._dense.rebuilt(pl_module) if self._module is None else self._module
        if isinstance(module, LightningModule):
            return live_weights(module).pl_module
        network: nn.Module = module.cpu().float().eval()
        return network

    def _batches(self, trainer: Trainer) -> tuple[str, Any]:
        for split in dict.fromkeys((self.options.split, "val")):
            found = batches_of(trainer, split)
            if found is not None:
                return split, found
        raise ValueError("there are neither test nor validation data.")

    def _limits_of_reference(self, trainer: Trainer) -> list[str]:
        """Say what a reference of the run itself leaves open: a longer training may hide what compression costs."""
        if self.reference != "dense":
            return []
        when = "just before the first structural step" if structural_callbacks(trainer) else "at the start of the run"
        return [f"The reference is the model as it was {when}, and was trained no further, while the others were."]

    def _limits_of_split(self, split: str, served: str) -> list[str]:
        if split == "test":
            return []
        reason = "There is no test loader" if self.options.split == "test" else "split='val' was asked for"
        more = f", which served decisions of the training ({served})" if served != "this report" else ""
        return [f"{reason}: what is called test samples here are the validation samples{more}."]

    def _compare_statements(self, stated: Statement) -> tuple[bool, list[str]]:
        """Return whether the requirements were stated before the first step, and a sentence if they were not."""
        if not stated.is_before:
            return False, [f"The requirements were stated within the run. {stated.sentence()}"]
        if stated.requirements != self._required:
            return False, [f"Other requirements were stated before. {stated.sentence()}"]
        now = _readable(self._folder)
        if now is None or now.sha256 != stated.sha256:
            return False, [f"{STATED} is not what was written before the first step."]
        return True, []

    def _files(self) -> dict[str, Path]:
        if isinstance(self.reference, nn.Module) or self.reference == "dense":
            return {}
        return {"the reference": Path(self.reference)}

    def _data(
        self, trainer: Trainer, pl_module: LightningModule, read: Split, served: dict[str, str], names: Sequence[str]
    ) -> dict[str, Any]:
        """Return what the report says of the data; what cannot be read is said, and costs nothing else."""
        splits, notes = [], []
        for name, network in (("train", self._training), ("val", self._network)):
            if name == read.name:
                continue
            try:
                batches = batches_of(trainer, name, in_order=True)
                if batches is not None:
                    inputs = inputs_by(network.batch_to_inputs, read.network)
                    one = Split(name, served[name], batches, read.network, inputs, self._labels)
                    one.read()
                    splits.append(one)
            except Exception as error:
                notes.append(f"The {name} samples could not be read for their hash ({' '.join(str(error).split())}).")
        return data_facts([*splits, read], names, notes)

    def _tell(self, trainer: Trainer) -> None:
        """Print and log the verdict, where the report is, and what it took."""
        assert self.record is not None  # just measured
        verdict, page = verdict_of(self.record), self._folder / PAGE
        seconds, share = self._budget.once_seconds, self._budget.shares()["once"]
        text = (
            f"{verdict or 'Nothing was required.'}\nThe report is {page}, its root digest {self.digest}\n"
            f"It took {self._budget.sentence()}."
        )
        rank_zero_info(f"ModelReport: {text}")
        margins = [one.bound for one in self.requirements if (one.name, one.relation) in _LOSSES]
        if margins and (gain := gain_of_training(self.record, max(margins))):
            rank_zero_warn(f"ModelReport: {gain}")
        step = trainer.global_step
        log_scalars(trainer, {"report/seconds": seconds, "report/share": share}, step)
        log_text(trainer, "report", text.replace("\n", "\n\n"), step)
        log_files(trainer, [page, self._folder / CARD], "report")

    def _fail(self, error: Exception) -> None:
        reason = _line(error)
        rank_zero_warn(
            f"ModelReport: there is no report, but the run's checkpoints are complete: {reason} Two checkpoints or"
            " files can be held against each other with `lit-xai compare`."
        )
        try:
            if self._stated is not None:
                replace(self._stated, failure=reason).write(self._folder)
        except OSError:  # a full disk, which the warning tells of
            return


_STATE = entries(
    {
        "stated": STATEMENT,
        "folders": list[str],
        "run_seconds": AnyNumber,
        "recurring_seconds": AnyNumber,
        "once_seconds": AnyNumber,
        "dense": NotRequired[Weights],
    }
)


def _check_state(state: Any) -> None:
    check_state("ModelReport", state, _STATE)
    Statement.from_dict(state["stated"], "the statement in the checkpoint")


def _readable(folder: Path) -> Statement | None:
    """Return the statement in a folder, ``None`` where there is none or it was changed."""
    try:
        return read_statement(folder)
    except (OSError, ValueError):
        return None


def _of_overlaps(data: dict[str, Any]) -> list[str]:
    return [
        f"{one['n']:,} of the {one['second']} samples are {one['first']} samples too."
        for one in data["overlaps"]
        if one["n"]
    ]


def _on_cpu(inputs: Inputs) -> Inputs:
    import torch
    from torch import Tensor

    from lit_xai.network.trees import changed, to_device

    moved: Inputs = changed(
        to_device(inputs, torch.device("cpu")),
        lambda one: one.float() if isinstance(one, Tensor) and one.is_floating_point() else one,
    )
    return moved


def _line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, ValueError) and message else f"{type(error).__name__}: {message}."
