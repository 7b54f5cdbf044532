"""Structured pruning: remove whole channels during training."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, NotRequired

from annotated_types import Ge, Le
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer

from lit_xai.network.calling import BatchToInputs, Inputs, OutputSpec
from lit_xai.network.check import check_choice
from lit_xai.network.layers import channels, one_or_more
from lit_xai.network.spec import Network
from lit_xai.pruning.culprits import KeptWhole, in_words, that_stay
from lit_xai.pruning.decision import Decider, Decision, DenseFacts, Goal, Latency, ways_to_remove_more
from lit_xai.pruning.followers import compared_layers
from lit_xai.pruning.importance import Importance, ImportanceSpec
from lit_xai.pruning.prunable import PruningOptions
from lit_xai.pruning.pruning import not_ranked
from lit_xai.pruning.report import CHART, PruningReport
from lit_xai.pruning.sparsity import REGULARIZERS, Regularizer
from lit_xai.pruning.step import Prune
from lit_xai.pruning.targets import DEFAULT, LEAST, Amount, Target, choose_target
from lit_xai.pruning.training_data import TrainingData
from lit_xai.render.summary import write_number
from lit_xai.structure.kinds import kind_of
from lit_xai.structure.recipe import dense_copy, recipe_of
from lit_xai.structure.schema import NonNegative, Row
from lit_xai.trainer.access import callbacks_of
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.batches import example_inputs
from lit_xai.trainer.progress import length_ahead, run_length
from lit_xai.trainer.scheduling import Epochs, Point, RunLength, Schedule, Steps, Times, Unit
from lit_xai.trainer.structural_callback import StructuralCallback
from lit_xai.trainer.structure_change import refuse_optimizers
from lit_xai.trainer.watching import labels_of, resolved

ROUND_TO = (16, 8, 4, 1)
"""Multiples of channels that runtimes are fast at, the fastest first."""


MISSED = 0.05
"""The share of the dense network by which the last cut may miss the target before smaller multiples are taken."""


class StructuredPruning(StructuralCallback):
    """Remove whole channels from any LightningModule while it trains, which makes it smaller and faster.

    Channels are removed at a few points, by default from a tenth to the middle of the run, at the start of epochs; the
    rest is for recovery. Where the run has a single epoch, or ends by ``max_steps``, fractions count its optimizer
    steps. Optimizer state follows the channels that stay. Every checkpoint holds a recipe of what was removed, so that
    ``trainer.test(ckpt_path="best")``, a resumed ``fit`` and :func:`lit_xai.load_from_checkpoint` restore
    the structure that was saved. ModelCheckpoint's "best" and EarlyStopping's patience start over at each cut.

    Args:
        pruning_ratio: the share of channels to remove, in [0, 1).
        target_macs: multiply-accumulates to keep: a float up to 1 is a share of the dense network's, an integer or text
            such as ``"5M"`` an amount, for one sample.
        target_params: parameters to keep, in the same way.
        target_latency: milliseconds to keep, in the same way, such as ``"3 ms"``; measured in ``runtime``. One of
            these four is given, or none: half of the multiply-accumulates, or if layers that stay whole put that out
            of reach, as few as can be reached, if at least 5% go; a warning before the first step says how many.
        start_epoch: the first epoch that begins with a cut, counted from 0: an integer, or a fraction of the run.
        end_epoch: the last; default the middle of the run.
        every_n_epochs: from one cut to the next.
        start_step: the same three in steps of the first optimizer, instead of epochs: an integer, or a fraction of the
            run's. A cut is between two steps, after so many of them, and never within accumulated gradients.
        end_step: as above.
        every_n_steps: as above.
        schedule: ``"linear"``, or ``"cubic"``: most of it early.
        importance: ranks the channels: a class of ``torch_pruning.importance`` or its name,
            ``"AttributionImportance"`` (by what they contribute to predictions), or your own: a subclass of
            ``torch_pruning.importance.Importance``, its import path or an instance; see
            :class:`~lit_xai.pruning.input_importance.InputImportance`. A class is built again for each cut, and for the
            rehearsal of the plan when training starts; an instance is used for all of them, and shown data again each
            time.
        importance_args: for the class's constructor; an instance takes none.
        importance_samples: how many training samples it is shown each time, if it needs any.
        pruning_ratio_dict: shares to remove of layers by name or pattern, for ``pruning_ratio``.
        ignored_layers: layers to keep whole: names, patterns (``"network.layer1.*"``) or classes. The layers that
            the output comes from are always kept whole.
        round_to: widths become multiples of it, the nearest one: what runtimes are fast at (ONNX Runtime's blocks are
            16 channels wide with AVX-512, 8 with AVX2). By default, for a target, the largest of 16, 8, 4 and 1 that
            meets it within 2%; for a ratio 8, which keeps layers of up to 8 channels whole. 1 allows any width.
        global_pruning: rank channels over the whole network rather than within each layer; what
            ``"AttributionImportance"`` is best at.
        isomorphic: rank within layers of the same structure.
        max_pruning_ratio: of any one layer.
        regularize: sparse training up to the last cut: ``"bn_scale"`` (network slimming) or ``"group"`` (group lasso).
        regularize_strength: how strongly.
        threads: of the runtime, for the latency.
        batch_size: for the latency.
        report_latency: whether to measure it after each cut as well when it is not the target; takes a few seconds.
        measure: measures latency instead: a function from an ONNX file's path to milliseconds, or its import path.
        module: the network inside the LightningModule, a dotted name; default the LightningModule itself.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        seed: for importances that draw.
        runtime: for the latency: ``"onnxruntime"``, ``"openvino"``, with floats in float32, or ``"executorch"``.

    Raises:
        ValueError: in the constructor or before the first step, one sentence on the argument that is wrong.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[StructuredPruning(target_macs=0.25)], logger=False)
        >>> StructuredPruning(pruning_ratio=0.5, target_macs=0.25)
        Traceback (most recent call last):
        ...
        ValueError: Expected exactly one of pruning_ratio, target_macs, target_params, target_latency, but got ...
    """

    remedy = (
        "Remove less (pruning_ratio, target_...), in more and smaller cuts (every_n_epochs), leave more epochs after"
        " the last one (end_epoch), or lower the learning rate from there on."
    )

    charts = (CHART,)
    instead_of_sharding = "cut the network in configure_model before it is sharded, with lit_xai.functional.prune_step"

    state_entries = {
        "done": list[NonNegative],
        "unit": NotRequired[Unit],
        "share": NotRequired[Annotated[float, Ge(0), Le(1)]],
        "round_to": Annotated[int, Ge(1), Le(2**16)],
        "kept_whole": NotRequired[list[Annotated[Any, Row((list[str], str))]]],
    }

    def __init__(
        self,
        pruning_ratio: float | None = None,
        *,
        target_macs: Amount | None = None,
        target_params: Amount | None = None,
        target_latency: Amount | None = None,
        start_epoch: Epochs = 0.1,
        end_epoch: Epochs | None = None,
        every_n_epochs: Epochs = 0.1,
        start_step: Steps | None = None,
        end_step: Steps | None = None,
        every_n_steps: Steps | None = None,
        schedule: str = "linear",
        importance: Importance = "GroupMagnitudeImportance",
        importance_args: dict[str, Any] | None = None,
        importance_samples: int = 256,
        pruning_ratio_dict: dict[str, float] | None = None,
        ignored_layers: str | list[Any] | None = None,
        round_to: int | None = None,
        global_pruning: bool = False,
        isomorphic: bool = False,
        max_pruning_ratio: float = 1.0,
        regularize: str | None = None,
        regularize_strength: float = 1e-4,
        threads: int = 1,
        batch_size: int = 1,
        report_latency: bool = True,
        measure: str | Callable[[Any], float] | None = None,
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
        seed: int = 0,
        runtime: str = "onnxruntime",
    ) -> None:
        super().__init__()
        targets = {
            "pruning_ratio": pruning_ratio,
            "target_macs": target_macs,
            "target_params": target_params,
            "target_latency": target_latency,
        }
        self._is_default = all(value is None for value in targets.values())
        self.target = DEFAULT if self._is_default else choose_target(targets)
        # The multiples to try in turn; the first that meets the target is taken. A ratio is met by any of them.
        automatic = ROUND_TO if self.target.name != "pruning_ratio" else (8,)
        self._round_to = automatic if round_to is None else (round_to,)
        self._given = PruningOptions(
            pruning_ratio_dict=pruning_ratio_dict,
            ignored_layers=one_or_more(ignored_layers),
            round_to=8 if round_to is None else round_to,
            global_pruning=global_pruning,
            isomorphic=isomorphic,
            max_pruning_ratio=max_pruning_ratio,
        )
        times = Times.given(
            (0.1, None, 0.1),
            {"start_epoch": start_epoch, "end_epoch": end_epoch, "every_n_epochs": every_n_epochs},
            {"start_step": start_step, "end_step": end_step, "every_n_steps": every_n_steps},
        )
        self._when = Schedule(times, schedule)
        self._importance = ImportanceSpec(importance, importance_args, importance_samples)
        self.given = Network(module, batch_to_inputs, output)
        self._latency = Latency(threads, batch_size, measure, output, runtime)
        self._goal = Goal(self.target, self._latency, LEAST if self._is_default else None)
        self._report_latency = report_latency or self.target.name == "target_latency"
        self._seed = seed
        self.schedule, self.regularize, self.regularize_strength = schedule, regularize, regularize_strength
        if regularize is not None:
            check_choice("regularize", regularize, REGULARIZERS)
        self._forget()

    def _forget(self) -> None:
        self._options, self.unit = self._given, "epoch"
        self._network = self.given
        self._plan: dict[Point, float] = {}
        self._kept_whole: tuple[KeptWhole, ...] = ()
        self._done: list[Point] = []
        self._inputs: Inputs | None = None
        self._decider: Decider | None = None
        self._report: PruningReport | None = None
        self._regularizer: Regularizer | None = None
        self._peaks: dict[int, float] = {}
        if self._is_default:
            self._aim(DEFAULT)

    def _aim(self, target: Target) -> None:
        self.target, self._goal = target, replace(self._goal, target=target)
        if self._decider is not None:
            self._decider = replace(self._decider, goal=self._goal)

    def last_change(self, run: RunLength) -> Point | None:
        """Return the point of the last cut, ``None`` if that is not known yet."""
        return list(self._when.plan(run))[-1] if self._when.times.is_settled(run) else None

    # --- Lightning's hooks --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse settings that are wrong for any network, and plan the cuts."""
        if stage == "fit":
            self._forget()
            if sum(isinstance(other, StructuredPruning) for other in callbacks_of(trainer)) > 1:
                raise MisconfigurationException("Two StructuredPruning callbacks would undo each other: keep one.")
            if (run := length_ahead(trainer)) is not None and self._when.times.is_settled(run):
                self._when.plan(run)  # refuses what can be refused before the data are loaded
        # Last, so that a refusal leaves nothing attached to the module: Lightning tears nothing down after it.
        super().setup(trainer, pl_module, stage)

    def state(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return which cuts were made, in which unit, and the widths that were chosen."""
        kept_whole = [[list(kept.layers), kept.reason] for kept in self._kept_whole]
        done = [point.count for point in self._done]
        state = {"done": done, "unit": self.unit, "round_to": self._options.round_to, "kept_whole": kept_whole}
        return {**state, "share": self.target.amount} if self._is_default else state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore them."""
        # 0.1 had epochs alone.
        self._done = [Point(count, state.get("unit", "epoch")) for count in state["done"]]
        # The widths that the run began with: choosing again on a pruned network could end at another multiple.
        self._options = replace(self._given, round_to=state["round_to"])
        if self._is_default and "share" in state:
            self._aim(replace(DEFAULT, amount=state["share"]))
        # Cuts of a resumed run are those of one that was not interrupted.
        self._kept_whole = tuple(KeptWhole(tuple(layers), reason) for layers, reason in state.get("kept_whole", ()))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trace the network and go through the whole plan on a copy, so that nothing foreseeable fails later."""
        super().on_train_start(trainer, pl_module)
        self._settle(trainer)

        def read() -> tuple[Inputs, nn.Module]:
            self._network = resolved(trainer, pl_module, "train", self.given)
            self._latency = replace(self._latency, output=self._network.output)
            self._goal = replace(self._goal, latency=self._latency)
            # Targets are shares of the dense network; counted on a pruned one, each resumed run would compound them.
            return example_inputs(trainer, pl_module, self._network), self._network.of(dense_copy(pl_module))

        self._inputs, dense = agreed(trainer, "StructuredPruning", read)
        if not self.stopped and any(self._is_ahead(trainer, point) for point in self._plan):
            inputs = self._inputs
            agreed(trainer, "StructuredPruning", lambda: self._prepare(trainer, pl_module, inputs, dense))
            self._rehearse(trainer, pl_module)
        self._report = PruningReport(
            self._network, self._inputs, self._latency if self._report_latency else None, channels(dense)
        )
        self._report.kept_whole = self._kept_whole
        self._report.start(trainer, pl_module)
        # A run that is resumed within an epoch does not begin it again, and steps build it at a cut alone.
        if self.is_resumed or self.unit == "step":
            self._regularize(pl_module, self.now(trainer))

    def change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut if a cut is due."""
        now = self.now(trainer)
        due = self._due(now)
        self._watch_rates(trainer, now, due is not None)
        if due is not None:
            decision = self._decide(trainer, pl_module, due)
            self._keep(decision)
            self._done.append(due)
            # A small ratio can be due without a whole multiple of round_to to remove: no step is taken then.
            if decision.step["kept"]:
                assert self._report is not None  # made in on_train_start
                self._report.before(trainer, now)
                self._report.kept_whole = self._kept_whole
                self.take_step(trainer, pl_module, {**decision.step, "note": str(now)})
                self._report.cut(trainer, pl_module, now, self._describe(decision))
            elif self.target.name != "pruning_ratio" and not decision.is_near:
                # Widths in multiples of round_to may leave no step from here to there.
                # Where nothing goes at all, the plan has warned before the first step.
                is_last = due == list(self._plan)[-1] and bool(recipe_of(pl_module).steps)
                say = rank_zero_warn if is_last else rank_zero_info
                say(
                    f"StructuredPruning, {now}: nothing is cut, and {self._describe(decision)}: widths are multiples of"
                    f" {self._options.round_to}, so take a smaller round_to."
                )
        # Built again after each cut, as pruned parameters are new objects.
        if due is not None or now.unit == "epoch":
            self._regularize(pl_module, now)

    def _due(self, now: Point) -> Point | None:
        """Return the point of the plan whose cut is due."""
        if now.unit == "epoch":
            return now if now in self._plan and now not in self._done else None
        # In manual optimization a batch may take several steps, and pass a point.
        done = max((point.count for point in self._done), default=-1)
        passed = [point for point in self._plan if done < point.count <= now.count]
        return passed[-1] if passed else None

    def _is_ahead(self, trainer: Trainer, point: Point) -> bool:
        return point not in self._done and (point.unit == "step" or point.count >= trainer.current_epoch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the regularizer's gradient: after unscaling, before clipping."""
        if self._regularizer is not None:
            self._regularizer(optimizer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log sizes at the same step as the epoch's metrics."""
        if self._report is not None:
            self._report.epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and save the table of sizes before and after, and warn if the run ended before the last cut."""
        if self._report is not None:
            self._report.end(trainer, pl_module)
        now = self.now(trainer)
        missed = [point for point in self._plan if point not in self._done and point.count >= now.count]
        if missed and not self.stopped:
            rank_zero_warn(
                f"StructuredPruning did not make {len(missed)} of its {len(self._plan)} cuts: the run ended before"
                f" {missed[0]}. Cut earlier, or let the run take longer (max_epochs, max_steps, EarlyStopping)."
            )

    def stop(self, reason: str) -> None:
        """Make no further cut, and prepare for none."""
        super().stop(reason)
        self._regularizer = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure anew what a callback has brought back to an earlier structure, and print the table of that."""
        super().on_fit_end(trainer, pl_module)
        if self.stopped and self._report is not None:
            self._report.end_again(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove everything from the module but its new structure."""
        super().teardown(trainer, pl_module, stage)
        done, unit, options, kept_whole = self._done, self.unit, self._options, self._kept_whole
        self._forget()
        # A checkpoint may still be saved, and be resumed.
        self._done, self.unit, self._options, self._kept_whole = done, unit, options, kept_whole

    # --- decisions ----------------------------------------------------------------------------------------------------

    def _settle(self, trainer: Trainer) -> None:
        """Plan the cuts, now that the length of the run is known."""
        self._plan = self._when.plan(run_length(trainer))
        self.unit = next(iter(self._plan)).unit
        other = next((point.unit for point in self._done if point.unit != self.unit), None)
        if other is not None:
            raise MisconfigurationException(
                f"StructuredPruning made its cuts in {other}s before this run was resumed, and now counts {self.unit}s:"
                f" give it the times, and the Trainer max_epochs and max_steps, that the run began with."
            )

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, inputs: Inputs, dense: nn.Module) -> None:
        """Refuse modules that cannot be pruned, and prepare the remaining cuts."""
        if any(kind_of(step).order > Prune.order for step in recipe_of(pl_module).steps):
            raise MisconfigurationException(
                "StructuredPruning comes before quantization, which this module has been through: start from its float"
                " weights, in an earlier checkpoint (such as a '-dense' one), or leave StructuredPruning out."
            )
        refuse_optimizers(trainer, "StructuredPruning")
        labels = labels_of(trainer, pl_module, "train", self.given)
        samples = TrainingData.read(
            self._importance.make(), trainer, self._importance.samples, self._network.batch_to_inputs, labels
        )

        # Built and shown data for each decision, as what it collects is kept by the modules of one copy.
        def prepared(copied: LightningModule, network: nn.Module) -> Any:
            return samples.show(self._importance.make(), copied, network, self._network.output)

        self._keep_compared(pl_module, inputs)
        facts = DenseFacts.of(dense, self._goal, inputs, self._network.output)
        self._decider = Decider(self._network, self._goal, prepared, facts)

    def _keep_compared(self, pl_module: LightningModule, inputs: Inputs) -> None:
        """Keep the widths that the step compares with results of parts that are cut in step."""
        network, prefix = self._network.of(pl_module), self._network.prefix(pl_module)
        inside = {
            model.removeprefix(prefix): name
            for model, name in self.compared_outputs.items()
            if model.startswith(prefix)
        }
        if inside:
            kept = compared_layers(network, inputs, inside, self._network.output)
            self._kept_whole += tuple(one for one in kept if one not in self._kept_whole)

    def _rehearse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the last step on a copy: it needs what every earlier one needs."""
        decision = self._choose_widths(trainer, pl_module)
        if decision.is_lowest:
            self._take_lowest(decision)
        self._keep(decision)
        removes_nothing = self.target == Target("pruning_ratio", 0.0, True)
        if not decision.step["kept"] and not recipe_of(pl_module).steps and not removes_nothing:
            reason = not_ranked(self._importance.make(), decision.unranked) if decision.unranked else self._too_narrow()
            rank_zero_warn(f"StructuredPruning will remove nothing: {reason}")
        plan = ", ".join(f"{point}: {self._in_words(progress)}" for point, progress in self._plan.items())
        measured = f" Latency is measured {self._latency}." if self.target.name == "target_latency" else ""
        rank_zero_info(f"StructuredPruning cuts {next(iter(self._plan)).place.split(self.unit)[0]}{plan}.{measured}")

    def _choose_widths(self, trainer: Trainer, pl_module: LightningModule) -> Decision:
        """Return the last step with the largest ``round_to`` that meets the target, and keep to that."""
        # A resumed run keeps to the widths that it began with.
        candidates = (self._options.round_to,) if self.is_resumed else self._round_to
        for round_to in candidates:
            self._options = replace(self._given, round_to=round_to)
            try:
                decision = self._agree(trainer, pl_module, 1.0, self._kept_whole, is_rehearsal=True)
            # A target out of reach in multiples of 16 may be met in smaller ones: only the last candidate's error
            # counts.
            except MisconfigurationException:
                if round_to == candidates[-1]:
                    raise
                continue
            if decision.is_near:
                break
        return decision

    def _decide(self, trainer: Trainer, pl_module: LightningModule, due: Point) -> Decision:
        """Return the step that is due; the last one in smaller multiples where the chosen ones miss the target."""
        options = [self._options]
        if due == list(self._plan)[-1] and self.target.name != "pruning_ratio":
            # What the rehearsal reached in one step may be out of reach from where the cuts before it led.
            finer = [one for one in self._round_to if one < self._options.round_to]
            options += [replace(self._options, round_to=one) for one in finer]
        decisions: list[tuple[float, Decision, PruningOptions]] = []
        for one in options:
            self._options = one
            decision = self._agree(trainer, pl_module, self._plan[due], self._kept_whole)
            assert self._decider is not None  # made in on_train_start
            miss = abs(decision.found - decision.wanted) / self._decider.dense.measured
            decisions.append((miss, decision, one))
            if miss < MISSED:
                break
        _, decision, self._options = min(decisions, key=lambda found: found[0])
        return decision

    def _take_lowest(self, decision: Decision) -> None:
        """Take the lowest size within reach for the target, and say so."""
        assert self._decider is not None  # made in on_train_start
        self._aim(replace(DEFAULT, amount=decision.found / self._decider.dense.measured))
        self._kept_whole = decision.kept_whole
        rank_zero_warn(
            f"StructuredPruning, which was given no target, was to leave {DEFAULT.amount:.0%} of the MACs, but that is"
            f" out of reach: it will leave {self._amount(decision.found)}, the fewest within"
            f" reach.{that_stay(decision.staying)}"
        )

    def _keep(self, decision: Decision) -> None:
        """Remember what cannot be cut, for every later cut and on resume, and list it once."""
        new = [kept for kept in decision.kept_whole if kept not in self._kept_whole]
        self._kept_whole = decision.kept_whole
        if new:
            least = "" if decision.lowest is None else f" {self._amount(decision.lowest)} are the least within reach."
            rank_zero_warn(f"StructuredPruning keeps layers whole that cannot lose channels: {in_words(new)}.{least}")

    def _agree(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        progress: float,
        kept_whole: Sequence[KeptWhole],
        is_rehearsal: bool = False,
    ) -> Decision:
        """Let the first process decide, and all of them take the same step."""
        decision: Decision | str = ""
        if trainer.is_global_zero:
            assert self._decider is not None  # made in on_train_start
            assert self._inputs is not None  # as above
            try:
                decision = self._decider.decide(
                    pl_module, self._inputs, self._options, progress, is_rehearsal, kept_whole
                )
            except ValueError as error:  # raised after the broadcast, for which the others wait
                decision = f"StructuredPruning: {error}"
            except Exception as error:  # likewise, whatever an importance of somebody else's raises
                if trainer.world_size == 1:
                    raise
                decision = f"StructuredPruning: {type(error).__name__}: {' '.join(str(error).split())}"
        # Float rounding can rank channels differently on each rank, and ranks with other shapes would no longer average
        # gradients.
        decision = trainer.strategy.broadcast(decision)
        if isinstance(decision, str):
            raise MisconfigurationException(decision)
        return decision

    def _regularize(self, pl_module: LightningModule, now: Point) -> None:
        """Begin to drive channels to zero, up to the last cut."""
        is_sparse = self.regularize is not None and not self.stopped and now.count < list(self._plan)[-1].count
        self._regularizer = self._make_regularizer(pl_module) if is_sparse else None

    def _make_regularizer(self, pl_module: LightningModule) -> Regularizer:
        assert self.regularize is not None  # _regularize checks it
        assert self._inputs is not None  # set in on_train_start
        network = self._network.of(pl_module)
        options: dict[str, Any] = {"output": self._network.output, "kept_whole": self._kept_whole}
        options["ignored_layers"] = self._options.ignored_layers
        return REGULARIZERS[self.regularize](network, self._inputs, self.regularize_strength, **options)

    def _watch_rates(self, trainer: Trainer, now: Point, cuts: bool) -> None:
        for place, group in enumerate(itertools.chain(*(one.param_groups for one in trainer.optimizers))):
            rate = float(group["lr"])
            # The peak so far, at least the initial rate: in a warm-up the rate is still rising, which is no reason to
            # warn.
            peak = self._peaks[place] = max(rate, float(group.get("initial_lr", 0)), self._peaks.get(place, 0.0))
            if cuts and rate < 0.1 * peak:
                rank_zero_warn(
                    f"StructuredPruning cuts at {now} at a learning rate of {rate:.2g}, under"
                    f" 10% of its peak of {peak:.2g}: little is left to recover with; cut earlier."
                )
                return

    # --- messages -----------------------------------------------------------------------------------------------------

    def _too_narrow(self) -> str:
        target, options = self.target, self._options
        amount = "larger pruning_ratio" if target.name == "pruning_ratio" else f"smaller {target.name}"
        advice = " or ".join([*ways_to_remove_more(options), f"a {amount}"])
        any_width = "; round_to=1 allows any width" if options.round_to > 1 else ""
        return (
            f"no layer can give up channels at round_to={options.round_to} for {target.name}={target.amount:g}."
            f" Take {advice}{any_width}."
        )

    def _in_words(self, progress: float) -> str:
        if self.target.name == "pruning_ratio":
            return f"{progress * self.target.amount:.0%} of the channels removed"
        assert self._decider is not None  # made in on_train_start
        return self._amount(self.target.at(self._decider.dense.measured, progress))

    def _describe(self, decision: Decision) -> str:
        if self.target.name == "pruning_ratio":
            reached = f"{decision.found:.0%} of the channels removed"
            rounded = f", in multiples of {self._options.round_to}" if self._options.round_to > 1 else ""
            is_met = f"{decision.found:.0%}" == f"{decision.wanted:.0%}"
            return reached if is_met else f"{reached} of {decision.wanted:.0%} that are due{rounded}"
        reached = self._amount(decision.found)
        nearest_to = f", the nearest to {self._amount(decision.wanted)} that can be reached"
        return reached if decision.is_near else reached + nearest_to

    def _amount(self, value: float) -> str:
        assert self._decider is not None  # made in on_train_start
        words = {
            "target_macs": write_number("MACs", value),
            "target_params": f"{write_number('params', value)} parameters",
            "target_latency": f"{value:.3g} ms",
        }[self.target.name]
        return f"{words} ({value / self._decider.dense.measured:.0%})"
