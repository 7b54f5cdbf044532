"""A reference's explanations of a run's samples, each process its share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_xai.attribution.evaluation import DataInfo, known_about
from lit_xai.attribution.methods import resolve_method
from lit_xai.attribution.samples import Samples, with_baseline
from lit_xai.network.spec import Network
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.pool import Pool
from lit_xai.retention.record import gathered, share_rows
from lit_xai.retention.reference import Compared, ReferenceExplanations
from lit_xai.retention.retention import References, Retention, summarize
from lit_xai.trainer.access import without_log
from lit_xai.trainer.watching import resolved


def with_known_baseline(
    trainer: Trainer,
    pl_module: LightningModule,
    network: Network,
    explainer: Explainer,
    sample: Pool,
    data_info: DataInfo,
    loader: str,
) -> Samples:
    """Return samples with the explainer's baseline: black where the mean and std of images are known.

    Args:
        trainer: inside ``fit``.
        pl_module: its module.
        network: that is explained.
        explainer: of the network.
        sample: to explain.
        data_info: the mean and std that the user gave.
        loader: the samples' own, ``"val"``.

    Raises:
        ValueError: the method takes no such baseline.
    """
    samples = Samples(sample.inputs, sample.labels, sample.indices, loader, True, sample.hash)
    known = known_about(trainer, data_info, samples)
    of_training = "train" if trainer.train_dataloader is not None else loader
    inputs = resolved(trainer, pl_module, of_training, network).batch_to_inputs
    module = network.of(pl_module)
    return with_baseline(
        trainer, module, samples, resolve_method(explainer.method), explainer.baselines, inputs, known, seed=0
    )


@dataclass
class Explained:
    """The explanations of a reference, of this process's share of the samples.

    Args:
        trainer: whose processes share.
        network: where the network is in a module.
        own: explanations of this process's samples.
        n: samples of all processes.
        compared_with: the name of the baseline.
    """

    trainer: Trainer
    network: Network
    own: ReferenceExplanations
    n: int
    compared_with: str = ""

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        network: Network,
        reference: nn.Module,
        explainer: Explainer,
        share: Samples,
        n: int,
        seed: int,
        each_output: bool = False,
        logits: Tensor | None = None,
    ) -> "Explained":
        """Explain a reference; call it on every process.

        Args:
            trainer: inside ``fit``.
            network: where the network is in a module.
            reference: a LightningModule, or a bare network.
            explainer: of all networks.
            share: this process's samples, with their baseline.
            n: samples of all processes.
            seed: of what is drawn.
            each_output: whether outputs are values, each explained on its own, rather than scores of classes.
            logits: of the reference for all samples, if they are known.
        """
        module = network_of(network, reference)
        given: dict[str, Any] = {"output": network.output, "baselines": share.baseline, "seed": seed}
        given |= {"each_output": each_output, "logits": _share(trainer, logits, n, reference)}
        own = ReferenceExplanations(module, share.inputs, explainer, **given)
        if own.steps is not None and trainer.world_size > 1:
            # As many as the process with the hardest samples needs: one explainer for all.
            steps = int(trainer.strategy.reduce(torch.tensor(float(own.steps)), reduce_op="max"))
            if steps != own.steps:
                own = ReferenceExplanations(module, share.inputs, explainer, steps=steps, **given)
        return cls(trainer, network, own, n, share.compared)

    def compare(self, module: nn.Module, logits: Tensor | None = None) -> Compared:
        """Explain a LightningModule's network, of this process's samples; nothing is exchanged.

        Args:
            module: with the network, or a bare one.
            logits: of all samples, if they are known.
        """
        with without_log(module) if isinstance(module, LightningModule) else torch.no_grad():
            own = _share(self.trainer, logits, self.n, module)
            return self.own.compare(network_of(self.network, module), logits=own)

    def whole(self, value: Tensor) -> Tensor:
        """Return a value of all samples; call it on every process."""
        return gathered(value, self.trainer.strategy.all_gather, self.trainer.world_size, self.n)

    def summarize(
        self,
        compared: Compared,
        references: References,
        n: int | None = None,
        parts: Mapping[str, Sequence[int]] | None = None,
    ) -> Retention:
        """Return the retention over all processes; call it on every process.

        Args:
            compared: this process's share.
            references: what it is held against, likewise.
            n: how many of the samples, the first ones, stand for all; default every one.
            parts: rows of the samples that are told apart, by name.
        """
        agree = self.own.agree(compared.logits)
        rows = [*references.null, *references.others.values()]
        whole = [self.whole(row) for row in rows]
        count = len(references.null)
        null = torch.stack(whole[:count]) if count else torch.empty(0, self.n, dtype=torch.float64)
        held = References(null, dict(zip(references.others, whole[count:], strict=True)))
        similarity = self.whole(compared.similarity)
        agrees = None if agree is None else self.whole(agree.double()).bool()
        is_zero = self.whole(compared.is_zero.double()).bool()

        def of(rows: Sequence[int] | slice) -> Retention:
            return summarize(
                self.own.explainer.name,
                similarity[rows],
                held.rows(rows),
                agree=None if agrees is None else agrees[rows],
                zero_maps=int(is_zero[rows].sum()),
                steps=self.own.steps,
                completeness_error=self.own.completeness_error,
                seed=self.own.seed,
            )

        return replace(of(slice(n)), parts={name: of(rows) for name, rows in (parts or {}).items()})


def _share(trainer: Trainer, logits: Tensor | None, n: int, module: nn.Module) -> Tensor | None:
    """Return the logits of this process's samples, on the module's device, from those of all ``n``."""
    if logits is None or len(logits) != n:
        return None
    device = next((one.device for one in module.parameters()), logits.device)
    return logits[share_rows(n, trainer.global_rank, trainer.world_size)].to(device)


def network_of(network: Network, module: nn.Module) -> nn.Module:
    """Return the network in a LightningModule; of a bare network itself."""
    is_module = isinstance(module, LightningModule) or hasattr(module, "training_step")
    return network.of(module) if is_module else module
