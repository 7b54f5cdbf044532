"""The reference of a run beside the model as it is now: their explanations and predictions on the run's samples."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.attribution.samples import Samples
from lit_xai.network.spec import Network
from lit_xai.retention.choosing import choose_places
from lit_xai.retention.explained import Explained, network_of
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.figures import BothMaps
from lit_xai.retention.lines import similarity_numbers
from lit_xai.retention.parts import parts_of, with_parts
from lit_xai.retention.pool import Pool
from lit_xai.retention.predictions import PredictionChanges, compare_predictions
from lit_xai.retention.record import gathered
from lit_xai.retention.reference import Compared, ReferenceExplanations, predict
from lit_xai.retention.retention import References, Retention
from lit_xai.trainer.access import without_log
from lit_xai.trainer.agreement import agreed


class Comparison:
    """Compares networks with a reference on the samples of a run, each process its share.

    Args:
        trainer: inside ``fit``.
        pl_module: its module.
        network: where the network is in a module.
        pool: all samples.
        baseline: returns samples with an explainer's baseline.
        n: how many samples are explained.
        seed: of all that is drawn.
        adverse: name and number of the class that is told apart, if one is.
        warn: called with what cannot be compared, in words.

    Attributes:
        sample: the explained samples, chosen by the reference's predictions.
        n_of_all: how many of these, the first ones, stand for all; the others are there for their part alone.
        parts: rows of the explained samples that are told apart, by name.
        reference: the reference; ``None`` before there is one.
        logits: of the reference on all samples.
        explained: its explanations, by the explainer's name.
        n: how many samples are explained.
        has_parts: whether some may be explained for a part alone.
        took: seconds of the reference's explanations, by the explainer's name.
    """

    def __init__(
        self,
        trainer: Any,
        pl_module: Any,
        network: Network,
        pool: Pool,
        *,
        baseline: Callable[[Explainer, Pool], Samples],
        n: int,
        seed: int,
        adverse: tuple[str, int] | None = None,
        warn: Callable[[str], None],
    ) -> None:
        self.network, self.pool = network, pool
        self._trainer, self._pl_module, self._baseline, self._warn = trainer, pl_module, baseline, warn
        self.n, self._seed, self._adverse = n, seed, adverse
        self.took: dict[str, float] = {}
        self.has_parts, self._rows = True, dict[str, list[int]]()
        self.sample, self.n_of_all, self.parts = pool.rows([]), 0, dict[str, list[int]]()
        self._places: list[int] = []
        self.reference: nn.Module | None = None
        self.logits = torch.empty(0)
        self.explained: dict[str, Explained] = {}

    def start_from(self, reference: nn.Module) -> None:
        """Take a reference, and choose samples by its predictions; call it on every process."""
        reference = reference.to(self._pl_module.device)
        self.logits = self.predict(reference)
        self._choose(self.logits)
        self.explained, self._rows = {}, {}
        self.reference = reference

    def explain_fewer(self, n: int) -> None:
        """Explain fewer samples from now on, and none for a part alone; before the reference is explained.

        Args:
            n: how many.
        """
        self.n, self.has_parts = n, False
        if self.reference is not None:
            self._choose(self.logits)

    def explain_reference(self, explainer: Explainer, n: int | None = None) -> None:
        """Explain the reference by its own predictions; call it on every process.

        Args:
            explainer: of all networks.
            n: how many of the samples, in proportion to their classes; default all.
        """
        trainer, own, logits = self._trainer, self.sample, self._of_sample(self.logits)
        if n is not None and n < len(own):
            rows = self._rows[explainer.name] = self._choose_rows(logits, n)
            own, logits = own.rows(rows), None if logits is None else logits[rows]
        assert self.reference is not None  # whose explanations these are
        began = time.monotonic()
        self.explained[explainer.name] = Explained.of(
            trainer,
            self.network,
            self.reference,
            explainer,
            self._baseline(explainer, own.share(trainer.global_rank, trainer.world_size)),
            len(own),
            self._seed,
            each_output=self.pool.has_values(tuple(self.logits.shape)),
            logits=logits,
        )
        self.took[explainer.name] = time.monotonic() - began

    def seconds(self, explainer: Explainer, n: int) -> float:
        """Explain the reference on a few samples, and return how long that takes; call it on every process.

        Args:
            explainer: of the reference.
            n: how many samples.
        """
        trainer = self._trainer
        few = self.sample.rows(range(min(n, len(self.sample)))).share(trainer.global_rank, trainer.world_size)
        each_output = self.pool.has_values(tuple(self.logits.shape))

        def run() -> float:
            assert self.reference is not None  # that is explained
            module, samples = network_of(self.network, self.reference), self._baseline(explainer, few)
            given: dict[str, Any] = {"output": self.network.output, "baselines": samples.baseline}
            began = time.monotonic()
            ReferenceExplanations(module, samples.inputs, explainer, each_output=each_output, seed=self._seed, **given)
            return time.monotonic() - began

        return self.same(agreed(trainer, "RetentionMonitor", run))

    def same(self, seconds: float) -> float:
        """Return the seconds of the first process, as the clocks of processes differ; call it on every process."""
        return float(self._trainer.strategy.broadcast(seconds))

    def _choose_rows(self, logits: Tensor | None, n: int) -> list[int]:
        predicted = self._predicted(logits)
        return choose_places(None if predicted is None else predicted[: self.n_of_all], self.n_of_all, n)

    def _predicted(self, logits: Tensor | None) -> Tensor | None:
        return logits.argmax(1) if logits is not None and self.pool.has_classes(logits) else None

    def _choose(self, logits: Tensor) -> None:
        predicted = self._predicted(logits)
        places = choose_places(predicted, len(self.pool), self.n)
        self.n_of_all = len(places)
        parts = parts_of(self.pool.groups, predicted, self._adverse) if self.has_parts else {}
        self._places, self.parts = with_parts(places, parts)
        self.sample = self.pool.rows(self._places)

    def _of_sample(self, logits: Tensor | None) -> Tensor | None:
        """Return those of the explained samples; ``None`` where there is no row for each."""
        return None if logits is None or len(logits) != len(self.pool) else logits[self._places]

    # --- what is compared ---------------------------------------------------------------------------------------------

    def predict(self, module: nn.Module) -> Tensor:
        """Return a network's logits on all samples; call it on every process.

        Raises:
            Exception: it fails on this process.
            ValueError: it fails on another one.
        """
        trainer, pool = self._trainer, self.pool
        share = pool.share(trainer.global_rank, trainer.world_size)

        def run() -> Tensor:
            with without_log(self._pl_module):
                return predict(network_of(self.network, module), share.inputs, self.network.output)

        logits = agreed(trainer, "RetentionMonitor", run)
        return gathered(logits.to(self._pl_module.device), trainer.strategy.all_gather, trainer.world_size, len(pool))

    def explain(self, explainer: Explainer, logits: Tensor | None) -> Compared:
        """Explain the model as it is now, whose logits on all samples are known; call it on every process.

        Raises:
            Exception: it fails on this process.
            ValueError: it fails on another one.
        """
        explained, own, rows = self.explained[explainer.name], self._of_sample(logits), self._rows.get(explainer.name)
        own = own if own is None or rows is None else own[rows]
        return agreed(self._trainer, "RetentionMonitor", lambda: explained.compare(self._pl_module, own))

    def whole(self, explainer: Explainer, value: Tensor) -> Tensor:
        """Return a value of all explained samples, NaN where this explainer left one out; call it on every process."""
        whole, rows = self.explained[explainer.name].whole(value), self._rows.get(explainer.name)
        if rows is None:
            return whole
        return whole.new_full((len(self.sample), *whole.shape[1:]), torch.nan).index_copy(0, torch.tensor(rows), whole)

    def summarize(self, explainer: Explainer, found: Compared, references: References) -> Retention:
        """Return the retention of an explained model; call it on every process."""
        explained = self.explained[explainer.name]
        if explainer.name in self._rows:
            return explained.summarize(found, references)
        return explained.summarize(found, references, self.n_of_all, self.parts)

    def numbers(self, explainer: Explainer, found: Compared, logits: Tensor) -> dict[str, float]:
        """Return what is logged of an evaluation; call it on every process."""
        numbers = similarity_numbers(explainer.name, self.whole(explainer, found.similarity)[: self.n_of_all])
        changes = self.changes(logits)
        if changes is None:
            return numbers
        for name in ("flips", "negative_flips"):
            if (share := getattr(changes, name)) is not None:
                numbers[name] = share.value
        if changes.accuracy is not None:
            numbers["accuracy"] = changes.accuracy.candidate
        if changes.kl is not None:
            numbers["kl_divergence"] = changes.kl.value
        return numbers

    def changes(self, logits: Tensor | None) -> PredictionChanges | None:
        """Return what became of the predictions on all samples; ``None`` where they cannot be compared."""
        pool = self.pool
        if self.reference is None or logits is None or logits.dim() > 2 or len(logits) != len(pool):
            return None
        labels = None if pool.labels is None else pool.labels.cpu()
        has_values = pool.has_values(tuple(logits.shape))
        if has_values and labels is not None and labels.numel() != logits.numel():
            labels = None  # of a mean and a variance, say: how near they are is not for us to say
        task = "values" if has_values else None
        try:
            whole = compare_predictions(self.logits, logits, labels, task=task)
            parts = {
                f"{name}={group}": part
                for name, groups in pool.groups.items()
                for group, part in compare_predictions(self.logits, logits, labels, groups, task=task).groups.items()
            }
            return replace(whole, groups=parts)
        except ValueError as error:
            self._warn(f"predictions are not compared: {error}")
            return None

    # --- what is drawn and written ------------------------------------------------------------------------------------

    def both_maps(self, explainer: Explainer, found: Compared, logits: Tensor) -> BothMaps | None:
        """Return the explanations of all samples, before and now; call it on every process."""
        explained = self.explained[explainer.name]
        if explained.own.explanations[0].whole:
            return None
        reference, present = (
            {name: explained.whole(value.to(self._pl_module.device)) for name, value in maps.items()}
            for maps in (explained.own.attributions, found.attributions)
        )
        both = (self.logits[self._places], logits[self._places])
        similarity, by = explained.whole(found.similarity), explainer.by_words(self.sample.inputs)
        words = None if by is None else by.words.cpu()
        return BothMaps(self.sample.inputs, reference, present, similarity, *both, self.sample.labels, words)

    def columns(self, logits: Tensor) -> dict[str, Any]:
        """Return what is known of each explained sample."""
        sample = self.sample
        columns: dict[str, Any] = {"index": torch.tensor(sample.indices)}
        if self.pool.has_classes(self.logits):
            columns["reference"] = self.logits[self._places].argmax(1)
            columns["prediction"] = logits[self._places].argmax(1)
        if sample.labels is not None and sample.labels.dim() == 1:
            columns["label"] = sample.labels.cpu()
        if len(sample) > self.n_of_all:
            columns["of a part alone"] = torch.arange(len(sample)) >= self.n_of_all
        return {**columns, **sample.groups}
