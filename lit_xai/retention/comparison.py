"""The reference of a run beside the model as it is now: their explanations and predictions on the run's samples."""

from collections.abc import Callable, Sequence
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
from lit_xai.retention.reference import Compared, predict
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
        self._n, self._seed, self._adverse = n, seed, adverse
        self.sample, self.n_of_all, self.parts = pool.rows([]), 0, dict[str, list[int]]()
        self._places: list[int] = []
        self.reference: nn.Module | None = None
        self.logits = torch.empty(0)
        self.explained: dict[str, Explained] = {}

    def start_from(self, reference: nn.Module, explainers: Sequence[Explainer]) -> None:
        """Explain a reference by its own predictions; call it on every process."""
        trainer = self._trainer
        reference = reference.to(self._pl_module.device)
        self.logits = self.predict(reference)
        self._choose(self.logits)
        share = self.sample.share(trainer.global_rank, trainer.world_size)
        self.explained = {
            one.name: Explained.of(
                trainer,
                self.network,
                reference,
                one,
                self._baseline(one, share),
                len(self.sample),
                self._seed,
                each_output=self.pool.has_values(tuple(self.logits.shape)),
                logits=self._of_sample(self.logits),
            )
            for one in explainers
        }
        self.reference = reference

    def _choose(self, logits: Tensor) -> None:
        predicted = logits.argmax(1) if self.pool.has_classes(logits) else None
        places = choose_places(predicted, len(self.pool), self._n)
        self.n_of_all = len(places)
        self._places, self.parts = with_parts(places, parts_of(self.pool.groups, predicted, self._adverse))
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
        explained, own = self.explained[explainer.name], self._of_sample(logits)
        return agreed(self._trainer, "RetentionMonitor", lambda: explained.compare(self._pl_module, own))

    def whole(self, explainer: Explainer, value: Tensor) -> Tensor:
        """Return a value of all explained samples; call it on every process."""
        return self.explained[explainer.name].whole(value)

    def summarize(self, explainer: Explainer, found: Compared, references: References) -> Retention:
        """Return the retention of an explained model; call it on every process."""
        return self.explained[explainer.name].summarize(found, references, self.n_of_all, self.parts)

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
