"""The LightningModule that trains any encoder-decoder to write one text for another."""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lit_xai.models.optim import Interval
from lit_xai.models.supervised import Metrics, Supervised
from lit_xai.network.calling import LABEL_KEYS, BatchToInputs, OutputSpec, call_network
from lit_xai.network.check import check_integer

IGNORED = -100
"""The label of a position that does not count."""


class Translator(Supervised):
    """Train any encoder-decoder to write a text token by token, and log ``<stage>/loss`` and ``<stage>/accuracy``.

    Batches are dicts: what the network takes (``input_ids``, ``attention_mask``, ``decoder_input_ids``: the tokens
    before each one that is to be written) and ``labels`` ``(N, T)``, the tokens to write, ``-100`` where there is none.
    The accuracy is that of single tokens, given the right ones before; :meth:`translate` writes by itself.

    Args:
        network: gives ``(N, T, vocab_size)``, itself or as ``logits``, such as transformers'
            ``T5ForConditionalGeneration``.
        vocab_size: the number of tokens.
        label_smoothing: share of the probability that is spread over all tokens.
        metrics: torchmetrics of tokens in place of the accuracy.
        optimizer: as for :class:`~lit_xai.models.Classifier`.
        lr_scheduler: as for :class:`~lit_xai.models.Classifier`.
        lr_scheduler_interval: as for :class:`~lit_xai.models.Classifier`.
        lr_scheduler_monitor: as for :class:`~lit_xai.models.Classifier`.
        batch_to_inputs: as for :class:`~lit_xai.models.Classifier`.
        output: as for :class:`~lit_xai.models.Classifier`.

    Raises:
        ValueError: an argument is out of range, or, at the first batch, logits and labels do not fit.

    Example:
        >>> class Copies(nn.Module):
        ...     def forward(self, input_ids, decoder_input_ids):
        ...         return F.one_hot(input_ids, 9).float()
        >>> translator = Translator(Copies(), vocab_size=9)
        >>> translator.translate({"input_ids": torch.tensor([[4, 7, 3]])}, most=5, end=3).tolist()
        [[4, 7, 3]]
    """

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        label_smoothing: float = 0.0,
        metrics: Metrics | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Interval | None = None,
        lr_scheduler_monitor: str = "val/loss",
        batch_to_inputs: BatchToInputs = None,
        output: OutputSpec = None,
    ) -> None:
        check_integer("vocab_size", vocab_size, 2)
        accuracy = MulticlassAccuracy(num_classes=vocab_size, average="micro", validate_args=False)
        super().__init__(
            network,
            {"accuracy": accuracy} if metrics is None else metrics,
            optimizer,
            lr_scheduler,
            lr_scheduler_interval,
            lr_scheduler_monitor,
            batch_to_inputs,
            output,
        )
        self.vocab_size, self.label_smoothing = vocab_size, label_smoothing

    def align(self, outputs: Tensor, labels: Tensor, check_values: bool) -> tuple[Tensor, Tensor]:
        """Return the logits ``(M, vocab_size)`` and labels ``(M,)`` of the tokens that count."""
        if outputs.dim() != 3 or outputs.shape[:2] != labels.shape or outputs.shape[2] != self.vocab_size:
            raise ValueError(
                f"logits expected shape {(*labels.shape, self.vocab_size)}, one row for each label, but got"
                f" {tuple(outputs.shape)} from the network: change its last layer, or vocab_size."
            )
        counts = labels != IGNORED
        kept = labels[counts]
        if check_values and kept.numel() and not (int(kept.min()) >= 0 and int(kept.max()) < self.vocab_size):
            raise ValueError(
                f"labels expected tokens from 0 to {self.vocab_size - 1}, or {IGNORED} for none, but got"
                f" {int(kept.min())} to {int(kept.max())}."
            )
        return outputs[counts].to(torch.promote_types(outputs.dtype, torch.float32)), kept

    def compute_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of the tokens."""
        return F.cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return probabilities of tokens."""
        return outputs.softmax(-1)

    def translate(self, inputs: dict[str, Any], *, most: int = 32, start: int = 0, end: int | None = None) -> Tensor:
        """Return the tokens ``(N, T)`` that the network writes, each time the most probable one.

        Args:
            inputs: of the network, or a batch; what the decoder has read, and labels, are left out.
            most: tokens at most.
            start: the token that the decoder reads first.
            end: the token after which nothing counts; by default all ``most`` are written.
        """
        return write_tokens(self.network, inputs, most=most, start=start, end=end, output=self.output)


@torch.no_grad()
def write_tokens(
    network: nn.Module,
    inputs: dict[str, Any],
    *,
    most: int,
    start: int = 0,
    end: int | None = None,
    output: OutputSpec = None,
) -> Tensor:
    """Return the tokens ``(N, T)`` that an encoder-decoder writes greedily; behind the last one is ``end``.

    Args:
        network: in the mode that it is to write in.
        inputs: or a batch; what the decoder has read, and labels, are left out.
        most: tokens at most.
        start: the token that the decoder reads first.
        end: the token after which nothing counts.
        output: where the logits are.
    """
    given = {name: value for name, value in inputs.items() if name not in ("decoder_input_ids", *LABEL_KEYS)}
    first = next(value for value in given.values() if isinstance(value, Tensor))
    read = torch.full((len(first), 1), start, dtype=torch.int64, device=first.device)
    over = torch.zeros(len(first), dtype=torch.bool, device=first.device)
    for place in range(most):
        logits = call_network(network, given | {"decoder_input_ids": read}, output=output)
        token = logits[:, place].argmax(-1)
        if end is not None:
            token = torch.where(over, end, token)
            over |= token == end
        read = torch.cat([read, token[:, None]], 1)
        if over.all():
            break
    return read[:, 1:]
