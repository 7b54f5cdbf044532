"""The callback that draws a model's attributions, epoch by epoch."""

import contextlib
import copy
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import torch
from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_xai.attribution.attribution import rehearse
from lit_xai.attribution.baselines import check_baseline
from lit_xai.attribution.evaluation import DataInfo, Evaluation, draw, known_about, report
from lit_xai.attribution.explanation import Explanation, check_target, class_labels, explain
from lit_xai.attribution.methods import attribute_parameters, resolve_method
from lit_xai.attribution.promises import gap_warning, should_add_up
from lit_xai.attribution.quality import AnyMetric, compute_metric, resolve_metrics, update_metric
from lit_xai.attribution.samples import Samples, read_samples, save_samples, with_baseline
from lit_xai.attribution.tokens import METHOD, embedding_instead, names_of_tokens
from lit_xai.attribution.words import by_words
from lit_xai.network.calling import BatchToInputs, BatchToTarget, OutputSpec
from lit_xai.network.check import Name, check_choice, check_integer, refusal
from lit_xai.network.probing import Probe, as_probe
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.render.registry import find_renderer
from lit_xai.render.renderer import Renderer
from lit_xai.render.samples import LEFT_OUT, SAMPLES
from lit_xai.structure.schema import NonNegative, entries
from lit_xai.trainer.access import (
    callbacks_of,
    logged_step,
    refuse_strategies,
    require_writable,
    run_folder,
    without_log,
)
from lit_xai.trainer.agreement import agreed
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.batches import loader_name
from lit_xai.trainer.budget import Budget
from lit_xai.trainer.guarding import guard, unguard
from lit_xai.trainer.regular import Moment, Regular
from lit_xai.trainer.saved_state import check_state, drop_damaged_state
from lit_xai.trainer.scheduling import Epochs, Steps, Times
from lit_xai.trainer.watching import labels_of, resolved


class AttributionMonitor(AnyCallback):
    """Attribute a few fixed samples after every epoch and log one figure of them, leaving the training untouched.

    The figure goes to every logger that shows images and, as ``figure.png`` (of text also as ``figure.html``), into the
    run's folder, next to ``attributions.npz`` (arrays ``attributions``, ``logits``, ``targets``, ``sample_ids``,
    ``labels``, ``baseline`` and ``metrics/...``) for analysis. In ``fit`` it is drawn after each epoch, in
    ``validate`` and ``test`` at the end; red speaks for the class, blue against it. Weights, optimizer, random numbers
    and losses are bit for bit those of a run without it.

    Args:
        method: a class of ``captum.attr``, its name, or an import path; default IntegratedGradients, or, where a
            network's only inputs are integer tokens, LayerIntegratedGradients at the embedding that they enter,
            compared with its ``padding_idx`` (0 if it names none).
        init_args: for the method's constructor.
        attribute_args: for the method's ``attribute``; lists become tuples, and an integer ``feature_mask`` stands for
            square patches of that side.
        noise_tunnel: wrap the method in Captum's NoiseTunnel with these arguments (``{"nt_samples": 10}``).
        layer: dotted name of the layer, for the ``Layer*`` methods, seen from ``module``.
        baselines: ``"zero"`` (in the model's space), ``"black"`` (in pixel space), ``"mean"``, ``"blur"``,
            ``"training"`` (samples), a number or a tensor; default ``"black"`` for images whose ``mean`` and ``std``
            are known, and else ``"zero"``. The figure's title says which one it was.
        probe: how many samples, their dataset indices, or a :class:`~lit_xai.network.probing.Probe`.
        target: ``"label"`` (maps compare across epochs), ``"prediction"``, or a class.
        every_n_epochs: an integer, or a fraction of the run; the last epoch is always shown. Where the run has a single
            epoch, or ends by ``max_steps``, a fraction counts its optimizer steps.
        every_n_steps: steps of the first optimizer, instead of epochs: an integer, or a fraction of the run's; the last
            step is always shown.
        at_start: also before the first step.
        name: of the tag, folder and state; default from method, layer and target. (The state of a monitor of tokens by
            default stands under "IntegratedGradients", since a checkpoint is read before the embedding is found.)
        on_error: ``"warn"`` (skip that figure or metric, and training continues; the same problem is one warning a
            run) or ``"raise"``. Errors that can be found before the first step, those of drawing included, are raised
            there in any case.
        module: the network inside the LightningModule, a dotted name; default the LightningModule itself, or its one
            part with weights where it defines no forward.
        batch_to_inputs: the model's inputs in a batch: a key, an index, several, a function or its import path.
        batch_to_target: the labels in a batch: a key, an index, a function or its import path; default the usual
            places.
        output: the logits in its output: a key, an attribute, an index, a function or its import path.
        class_names: of the labels, one per output or more; default the data module's ``class_names``.
        feature_names: of tabular inputs, one per feature; default the data module's ``feature_names``.
        mean: the mean that normalization subtracted, one number per channel; default the data module's ``mean``, or
            that of a ``Normalize`` among the dataset's transforms.
        std: the standard deviation that it divided by; default likewise.
        kind: of figure: ``"image"``, ``"tabular"``, ``"beeswarm"``, ``"series"``, ``"text"``, ``"heatmap"``, or a
            :class:`~lit_xai.render.Renderer` of one's own: an instance, its import path, or the name under which it was
            registered; default by the input's shape and dtype.
        internal_batch_size: most samples in one forward/backward pass.
        metrics: of the explanations' quality, one or several of different classes: instances, classes or import paths
            of ``torchmetrics.Metric`` that implement :class:`~lit_xai.attribution.quality.ExplanationMetric`, updated
            with every evaluation and logged as ``attribution/<name>/<class>``, over all processes. They go to the
            loggers and into ``attributions.npz``; ModelCheckpoint and EarlyStopping do not see them.
        seed: for methods that draw samples, and for augmentation while the probe is read.
        samples: what figures and files may hold of samples: ``"show"``; ``"maps_only"`` for maps without the inputs,
            and without baselines that are made of samples; ``"none"`` for numbers alone, without figures and maps.
            Logits, labels and indices are kept in any case, and checkpoints never hold samples.
        token_names: of the ids of text, one per id, or the folder of a Hugging Face tokenizer, which is read before the
            first step and without the network; default the data module's ``token_names``. Without names, figures show
            ids.

    Raises:
        ValueError: in the constructor or before the first step, one sentence that names the argument.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[AttributionMonitor()], logger=False)
        >>> AttributionMonitor("LayerGradCam", layer="layer3", target="prediction").name
        'LayerGradCam-layer3-prediction'
    """

    def __init__(
        self,
        method: str | type | None = None,
        *,
        init_args: dict[str, Any] | None = None,
        attribute_args: dict[str, Any] | None = None,
        noise_tunnel: dict[str, Any] | None = None,
        layer: str | None = None,
        baselines: Any = None,
        probe: int | list[int] | Probe = 8,
        target: int | str = "label",
        every_n_epochs: Epochs = 1,
        every_n_steps: Steps | None = None,
        at_start: bool = False,
        name: str | None = None,
        on_error: str = "warn",
        module: str | None = None,
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
        class_names: list[str] | None = None,
        feature_names: list[str] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        kind: Renderer | Name | None = None,
        internal_batch_size: int = 64,
        metrics: list[AnyMetric] | AnyMetric | None = None,
        seed: int = 0,
        batch_to_target: BatchToTarget = None,
        samples: Literal["show", "maps_only", "none"] = "show",
        token_names: list[str] | Name | None = None,
    ) -> None:
        super().__init__()
        check_target(target)
        self.samples = check_choice("samples", samples, SAMPLES)
        check_baseline(baselines)
        check_choice("on_error", on_error, ("warn", "raise"))
        check_integer("internal_batch_size", internal_batch_size)
        if kind is not None:
            find_renderer(kind)
        if name is not None and set(name) & set("/\\:"):
            raise refusal("name", "the name of a folder, without slashes or colons", name)
        self.probe = as_probe(probe)
        self._method_given, self._layer_given, self.baselines, self.target = method, layer, baselines, target
        self.every_n_epochs, self.at_start, self.on_error = every_n_epochs, at_start, on_error
        self.every_n_steps = every_n_steps
        self._regular = Regular(Times.given((1,), {"every_n_epochs": every_n_epochs}, {"every_n_steps": every_n_steps}))
        self.given, self.batch_to_target, self.seed = Network(module, batch_to_inputs, output), batch_to_target, seed
        self._name_given = name
        self.data_info = DataInfo(class_names, feature_names, mean, std, kind)
        self._token_names_given = token_names
        self._call: dict[str, Any] = {"init_args": init_args}
        self._call |= {"attribute_args": attribute_args, "noise_tunnel": noise_tunnel}
        self._explain_with(method or "IntegratedGradients", layer)
        self._state_name = self.name
        self._internal_batch_size = internal_batch_size
        self.metrics = resolve_metrics(metrics)
        # What a resumed run shares with its first part: plain values, which load with weights_only=True.
        self._state: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._forget()

    def _explain_with(self, method: str | type, layer: str | None) -> None:
        self.method = method
        self._call |= {"method": method, "layer": layer}
        self.name = self._name_given or _default_name(method, layer, self.target, self._call["noise_tunnel"])

    def _forget(self) -> None:
        self._samples: Samples | None = None
        self._padding: int | None = None
        self._network = self.given
        self._folder = Path()
        self._batch_to_target = self.batch_to_target
        self._regular.forget()
        self._is_reported = False
        self._known = self.data_info
        self._budget = Budget(1.0, 1.0)

    @property
    def state_key(self) -> str:
        """The key under which checkpoints hold the probe's indices and hash and the color limits."""
        return f"AttributionMonitor[{self._state_name}]"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the state where Lightning looks for it.

        Not in ``state_dict``: Lightning would refuse two monitors of one name with an error of its own, before
        :meth:`setup` can explain what to do.
        """
        state = copy.deepcopy(self._state)
        steps = {"optimizer_steps": self._regular.steps(trainer)} if state else {}
        checkpoint.setdefault("callbacks", {})[self.state_key] = state | steps

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Start afresh, with a warning, instead of from a damaged state."""
        drop_damaged_state(self, checkpoint, self._check_state)

    def _check_state(self, state: Any) -> None:
        check_state(f"AttributionMonitor {self.name!r}", state, _STATE if state else dict)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the probe and the color limits of the resumed run.

        Raises:
            ValueError: the state is damaged; names the entry. Nothing is changed then.
        """
        self._check_state(state_dict)
        self._state = dict(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what does not depend on the model, and create the run's folder."""
        guard(trainer)
        if stage not in ("fit", "validate", "test"):
            return
        self._forget()
        self._warned = set()
        self._explain_with(self._method_given or "IntegratedGradients", self._layer_given)
        resolve_method(self.method)
        if self._token_names_given is not None and self.samples == "show":
            self.data_info = replace(self.data_info, token_names=names_of_tokens(self._token_names_given))
        refuse_strategies(
            trainer, "AttributionMonitor", "leave the monitor out and explain a consolidated checkpoint afterwards"
        )
        self._refuse_same_name(trainer)
        if stage == "fit":
            self._state = {}  # Lightning loads a checkpoint's after setup
            self._regular.check(trainer)
        self._folder = run_folder(trainer) / "attribution" / self.name
        agreed(trainer, "AttributionMonitor", lambda: require_writable(self._folder))

    def _refuse_same_name(self, trainer: Trainer) -> None:
        monitors = [other for other in callbacks_of(trainer) if isinstance(other, AttributionMonitor)]
        if sum(other.name == self.name for other in monitors) > 1:
            raise MisconfigurationException(
                f"Two AttributionMonitors have the name {self.name!r}: give one of them another, with name=."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the probe, and rehearse explaining and drawing: foreseeable errors come before the first step."""
        self._regular.start(trainer, self._state.pop("optimizer_steps", None))
        self._budget.start({})
        with self._budget.once():
            self._prepare(trainer, pl_module, "fit")
        # A resumed run has its figure from before training.
        if self.at_start and trainer.global_step == 0:
            self._evaluate(trainer, pl_module, "before training", logged_step(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate the step if it is due."""
        self._evaluate_at(trainer, pl_module, self._regular.after_batch(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the epoch if it is due."""
        self._evaluate_at(trainer, pl_module, self._regular.after_epoch(trainer))

    def _evaluate_at(self, trainer: Trainer, pl_module: LightningModule, moment: Moment | None) -> None:
        if moment is not None:
            with self._budget.recurring():
                self._evaluate(trainer, pl_module, str(moment.point), moment.step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the last epoch or step in any case: its model is the one that is kept."""
        self._regular.stop()
        self._evaluate_at(trainer, pl_module, self._regular.at_end())
        if self._is_reported:
            took = self._budget.sentence()
            what = "numbers" if self.samples == "none" else "figures and attributions"
            rank_zero_info(f"{self.name}: {what} are in '{self._folder}'. They took {took}.")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the probe and rehearse before ``trainer.validate`` starts, which may take long."""
        if trainer.state.fn == "validate":
            self._prepare(trainer, pl_module, "validate")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate in ``trainer.validate``; in ``fit`` that happens at the end of the epoch."""
        if trainer.state.fn == "validate":
            self._evaluate(trainer, pl_module, "validate", logged_step(trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the probe and rehearse before ``trainer.test`` starts, which may take long."""
        self._prepare(trainer, pl_module, "test")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate in ``trainer.test``."""
        self._evaluate(trainer, pl_module, "test", logged_step(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the samples."""
        unguard(trainer)
        self._regular.stop()
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release the samples after an exception, when Lightning does not call ``teardown``."""
        self.teardown(trainer, pl_module, "exception")

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        agreed(trainer, f"AttributionMonitor {self.name!r}", lambda: self._rehearse(trainer, pl_module, stage))

    def _rehearse(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        loader = loader_name(trainer, self.probe, stage)
        self._network = resolved(trainer, pl_module, loader, self.given)
        self._batch_to_target = labels_of(trainer, pl_module, loader, self.given, self.batch_to_target)
        network = self._network.of(pl_module)
        samples = self._read(trainer, network, stage)
        with without_log(pl_module):
            self._choose_method(trainer, network, samples)
            rehearse(network, samples.inputs, output=self._network.output, **self._call)
        self._known = data_info = known_about(trainer, self.data_info, samples)
        method = resolve_method(self.method)
        # Baselines may be made of training samples, whose batches need not be those of the evaluation.
        of_training = "train" if trainer.train_dataloader is not None else loader
        inputs = resolved(trainer, pl_module, of_training, self.given).batch_to_inputs
        self._samples = with_baseline(trainer, network, samples, method, self.baselines, inputs, data_info, self.seed)
        if self._padding is not None and self.baselines is None:
            names = data_info.token_names
            known = names is not None and self._padding < len(names)
            padding = names[self._padding] if names is not None and known else self._padding
            self._samples = replace(self._samples, baseline=self._padding, compared=f"token {padding}")
        if self.baselines is None and self._samples.compared == "black":
            rank_zero_info(f"{self.name}: the baseline is black, as the images' mean and std are known.")
        if stage == "fit":
            # Indices may still be valid while the data behind them has changed.
            known = self._state.get("hash", samples.hash)
            if known != samples.hash:
                self._warn_of_other_samples(f"their hash is {samples.hash}, it was {known}")
            if "elements" in self._state:
                self._samples = replace(self._samples, elements=torch.tensor(self._state["elements"]))
            self._state |= {"indices": samples.indices if samples.by_index else []}
            self._state |= {"loader": samples.loader, "hash": samples.hash, "probe": repr(self.probe)}
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            save_samples(self._folder, samples, self.samples)
        if self.samples != "show":
            rank_zero_info(f"{self.name}: {LEFT_OUT[self.samples]}")
        self._rehearse_figure(trainer, pl_module, self._samples)

    def _choose_method(self, trainer: Trainer, network: nn.Module, samples: Samples) -> None:
        """Explain tokens at the embedding that they enter, where no method, layer or noise was named."""
        if any(one is not None for one in (self._method_given, self._layer_given, self._call["noise_tunnel"])):
            return
        found = embedding_instead(network, samples.inputs, output=self._network.output)
        if found is None:
            return
        self._explain_with(METHOD, found.layer)
        self._refuse_same_name(trainer)
        self._padding = found.padding
        with contextlib.suppress(OSError):  # of the name that it would have had; another monitor may use it
            self._folder.rmdir()
        self._folder = self._folder.parent / self.name
        require_writable(self._folder)
        rank_zero_info(
            f"{self.name}: the inputs are integer tokens, which are explained at the embedding {found.layer!r} that"
            " they enter."
        )

    def _rehearse_figure(self, trainer: Trainer, pl_module: LightningModule, samples: Samples) -> None:
        """Explain and draw a few samples, so that a figure that cannot be drawn is found before the first step."""
        # On every process, so that all of them stop. As the share of one of n // 2 processes, which is two samples or
        # three: methods that swap samples need more than one, and the cost is a quarter of an evaluation's.
        method = resolve_method(self.method)
        few = samples.share(0, max(1, len(samples.indices) // 2), method)
        try:
            explanation = self._explain(pl_module, few)
        except Exception:  # a method that fails is for the evaluation to report, as on_error says
            return
        self.data_info.check_classes(explanation.logits)
        if self.samples != "none":
            list(draw(self._evaluation(few, explanation, "rehearsal", 0), self._known, limits={}))

    def _read(self, trainer: Trainer, network: nn.Module, stage: str) -> Samples:
        """Read the probe, the one of the resumed run if ``probe`` is unchanged."""
        name = loader_name(trainer, self.probe, stage)
        if stage == "fit" and self._state.get("probe") == repr(self.probe) and self._state["indices"]:
            known = Probe(indices=self._state["indices"])
            try:
                return self._read_from(trainer, network, known, self._state["loader"])
            except ValueError as error:
                self._warn_of_other_samples(str(error))
        probe = self.probe
        if self.probe.indices is not None and self.probe.loader not in (None, name):
            probe = Probe(n=len(self.probe.indices))  # the indices are of another dataset
        return self._read_from(trainer, network, probe, name)

    def _read_from(self, trainer: Trainer, network: nn.Module, probe: Probe, loader: str) -> Samples:
        inputs, labels = self._network.batch_to_inputs, self._batch_to_target
        return read_samples(trainer, network, probe, loader, inputs, self.seed, labels)

    def _warn_of_other_samples(self, reason: str) -> None:
        self._state.pop("hash", None)
        self._state.pop("elements", None)
        self._warn(
            f"{self.name}: the probe's samples differ from those of the resumed run ({reason}): figures before and"
            " after cannot be compared.",
            reason,
        )

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, when: str, step: int) -> None:
        """Explain the probe, each process its share, and report it; an error on one process is handled on all."""
        samples, error, explanation = self._samples, None, None
        assert samples is not None  # every hook prepares first
        try:
            method = resolve_method(self.method)
            explanation = self._explain(pl_module, samples.share(trainer.global_rank, trainer.world_size, method))
        except Exception as caught:  # an observer never ends a run
            error = caught
        # If one process fails, all skip: the others would wait forever for its share.
        if not trainer.strategy.reduce_boolean_decision(error is None, all=True) or explanation is None:
            return self._fail(error or RuntimeError("another process failed"), when)
        metrics = self._measure(trainer, pl_module, samples, explanation)
        whole = explanation.gathered(trainer.strategy.all_gather, trainer.world_size, len(samples.indices))
        self._fix_elements(trainer, samples, whole)
        self._warn_of_gap(whole)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            loaded = trainer.ckpt_path if when in ("validate", "test") else None
            weights = f", {Path(loaded).name}" if loaded else ""
            evaluation = self._evaluation(samples, whole, when, step, weights, metrics)
            # One limit per input for the whole run, resumed or not: colors compare across epochs.
            limits = self._state.setdefault("limits", {})
            try:
                report(trainer, evaluation, self._known, limits, self._folder)
                self._is_reported = True
            except Exception as caught:  # a full disk, or a figure that cannot be drawn
                self._fail(caught, when)
        return None

    def _fix_elements(self, trainer: Trainer, samples: Samples, explanation: Explanation) -> None:
        """Explain the same pixels, tokens or queries from now on, where what is said of them does not move either."""
        has_class = explanation.labels is not None if self.target == "label" else isinstance(self.target, int)
        if explanation.form is None or explanation.targets is None or samples.elements is not None or not has_class:
            return
        self._samples = replace(samples, elements=explanation.targets)
        if trainer.state.fn == "fit":  # a resumed run goes on with them
            self._state["elements"] = explanation.targets.tolist()

    def _evaluation(
        self,
        samples: Samples,
        explanation: Explanation,
        when: str,
        step: int,
        weights: str = "",
        metrics: dict[str, float] | None = None,
    ) -> Evaluation:
        title = self._title(samples, explanation)
        has_target = "target" in attribute_parameters(resolve_method(self.method))
        return Evaluation(
            self.name,
            title,
            when,
            weights,
            step,
            samples,
            explanation,
            metrics or {},
            has_target=has_target,
            shown=self.samples,
        )

    def _explain(self, pl_module: LightningModule, share: Samples) -> Explanation:
        with warnings.catch_warnings(), without_log(pl_module):
            # The rehearsal has warned already.
            warnings.filterwarnings("ignore", message=".* treats these as plain gradients")
            # Told once a run, of all processes' samples.
            warnings.filterwarnings("ignore", message=".* does not add up")
            names = None if self._call["noise_tunnel"] is not None else self._known.token_names
            found = by_words(self.method, self._call["attribute_args"], share.inputs, names)
            by = {} if found is None else {"method": found.method, "attribute_args": found.attribute_args}
            explanation = explain(
                self._network.of(pl_module),
                share.inputs,
                share.labels,
                target=self.target,
                baselines=share.baseline,
                elements=share.elements,
                internal_batch_size=self._internal_batch_size,
                output=self._network.output,
                seed=self.seed + pl_module.global_rank,  # each process draws noise of its own for its samples
                **(self._call | by),
            )
            return explanation if found is None else replace(explanation, words=found.words)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, samples: Samples, explanation: Explanation
    ) -> dict[str, float]:
        """Return the metrics of all processes' explanations; one that fails is left out."""
        rank, world_size, numbers = trainer.global_rank, trainer.world_size, dict[str, float]()
        if not self.metrics:
            return numbers
        share = samples.share(rank, world_size, resolve_method(self.method))
        own = len(range(rank, len(samples.indices), world_size))  # the rest of the share repeats other processes'
        network = self._network.of(pl_module)
        with without_log(pl_module), untouched(network, self.seed + rank):
            for name, metric in self.metrics.items():
                error: Exception | None = None
                try:
                    update_metric(metric, network, share.inputs, explanation, own)
                except Exception as caught:  # somebody's code must not end a run
                    error = caught
                # As in _evaluate: its states are gathered from all processes or from none.
                if not trainer.strategy.reduce_boolean_decision(error is None, all=True):
                    self._fail_metric(name, error or RuntimeError("another process failed"))
                    continue
                try:
                    # Every process computes, since torchmetrics gathers the states in it.
                    values = compute_metric(metric)
                except Exception as caught:
                    self._fail_metric(name, caught)
                    continue
                named = {f"{name}/{key}".rstrip("/"): value for key, value in values.items()}
                self._warn_of_no_numbers(named)
                numbers |= named
        return numbers

    def _warn_of_gap(self, explanation: Explanation) -> None:
        method = resolve_method(self.method)
        options = (self._call[name] for name in ("init_args", "attribute_args", "noise_tunnel"))
        if explanation.delta is not None and should_add_up(method, *options):
            scale = float(explanation.logits.abs().amax())
            message = gap_warning(method, explanation.attributions.values(), explanation.delta, scale)
            if message is not None:
                self._warn(f"{self.name}: {message}", "does not add up")

    def _fail_metric(self, name: str, error: Exception) -> None:
        if self.on_error == "raise":
            raise error
        self._warn(f"{self.name}: the metric {name} is left out. {type(error).__name__}: {error}", f"{name}: {error}")

    def _warn_of_no_numbers(self, numbers: dict[str, float]) -> None:
        # Loggers draw a gap for NaN or refuse it, and a mean over runs becomes NaN without a trace of where it began.
        for name, value in numbers.items():
            if not math.isfinite(value):
                self._warn(
                    f"{self.name}: the metric {name} is {value}. Attributions may all be 0: guard against division by"
                    " their sum.",
                    f"{name} is no number",
                )

    def _title(self, samples: Samples, explanation: Explanation) -> str:
        method, logits = resolve_method(self.method), explanation.logits
        parts = [f"NoiseTunnel({method.__name__})" if self._call["noise_tunnel"] else method.__name__]
        parts += [f"layer {self._call['layer']}"] if self._call["layer"] else []
        if logits.dim() == 2 and (logits.shape[1] > 1 or explanation.form is not None):
            unlabeled = self.target == "label" and class_labels(explanation.labels, logits.shape) is None
            why = "no labels found" if explanation.labels is None else "labels are no classes"
            target = f"target: prediction ({why})" if unlabeled else f"target: {self.target}"
            parts += [target + self._place_in_words(explanation)]
        parts += [f"head: {explanation.head}"] if explanation.head else []
        parts += [f"baseline: {samples.compared}"] if samples.compared else []
        return ", ".join(parts)

    def _place_in_words(self, explanation: Explanation) -> str:
        places = explanation.places()
        if explanation.form is None or explanation.targets is None:
            return ""
        if len(places) > 1:
            return f" at each sample's top {explanation.form.place}"
        index, names = explanation.targets[0], self._known.class_names
        channel = int(index[0] if explanation.form.class_dim == 1 else index[-1]) - explanation.form.classes[0]
        name = names[channel] if names is not None and channel < len(names) else channel
        return f", top {places[0]} of class {name}"

    def _fail(self, error: Exception, when: str) -> None:
        if self.on_error == "raise":
            raise error
        self._warn(f"{self.name}: no figure of {when}; training continues. {type(error).__name__}: {error}", str(error))

    def _warn(self, message: str, reason: str) -> None:
        if reason not in self._warned:  # the same problem in every epoch is one warning
            self._warned.add(reason)
            rank_zero_warn(message)


_STATE = entries(
    {
        "indices": list[NonNegative],
        "loader": Literal["train", "val", "test"],
        "optimizer_steps": NotRequired[NonNegative],
        "hash": NotRequired[str],
        "probe": NotRequired[str],
        "elements": NotRequired[list[list[NonNegative]]],
        "limits": NotRequired[dict[str, Annotated[float, Ge(0)]]],
    }
)


def _default_name(method: str | type, layer: str | None, target: str | int, noise_tunnel: Any) -> str:
    parts = [method.rpartition(".")[2] if isinstance(method, str) else method.__name__]
    parts += ["NoiseTunnel"] if noise_tunnel else []
    parts += [layer] if layer else []
    if target != "label":
        parts += [f"class{target}" if isinstance(target, int) else target]
    return "-".join(parts)
