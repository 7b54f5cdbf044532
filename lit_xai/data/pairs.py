"""The base of data modules whose samples are pairs of texts: what is read, and what is to be written."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import default_collate

from lit_xai.data.in_memory import InMemoryDataModule
from lit_xai.data.split import count_of, shuffled, split_groups
from lit_xai.data.tensor_rows import TensorRows
from lit_xai.data.tokenizers import save_tokenizer, token_names
from lit_xai.data.wordpiece import SPECIAL, learn_wordpiece
from lit_xai.network.check import check_flag, check_integer, refusal

Module = TypeVar("Module", bound="PairDataModule")
IGNORED = -100
"""The label of a position that does not count, as torch's cross entropy has it."""
PADDING = SPECIAL.index("[PAD]")


class PairRows(TensorRows):
    """Pairs of token ids, read a whole batch at a time.

    A batch is a dict of ``input_ids`` and ``attention_mask`` ``(N, S)``, of ``decoder_input_ids`` ``(N, T)``, what the
    decoder has read when it writes a token (padding first), and of ``labels`` ``(N, T)``, ``-100`` at padding.

    Args:
        sources: ids of each source.
        targets: ids of each target.

    Example:
        >>> rows = PairRows([[2, 7, 3]], [[8, 9, 3]])
        >>> {name: value.tolist() for name, value in rows.__getitems__([0]).items() if name != "attention_mask"}
        {'input_ids': [[2, 7, 3]], 'decoder_input_ids': [[0, 8, 9]], 'labels': [[8, 9, 3]]}
    """

    def __init__(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
        super().__init__(_padded(sources, PADDING), _padded(targets, IGNORED))

    def __getitem__(self, index: int) -> Any:
        """Return one pair, of its own lengths."""
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return a batch, as long as its longest source and its longest target."""
        index = torch.as_tensor(indices)
        sources, labels = self.inputs.index_select(0, index), self.targets.index_select(0, index)
        sources, labels = _cut(sources, PADDING), _cut(labels, IGNORED)
        before = torch.full_like(labels[:, :1], PADDING)
        read = torch.cat([before, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, PADDING)], 1)
        mask = (sources != PADDING).long()
        return {"input_ids": sources, "attention_mask": mask, "decoder_input_ids": read, "labels": labels}

    @staticmethod
    def collate_fn(batch: Any) -> Any:
        """Pass a finished batch on; a list of single pairs is filled up and stacked."""
        if not isinstance(batch, list):
            return batch
        filled = {"labels": IGNORED}
        names = batch[0]
        longest = {name: max(len(row[name]) for row in batch) for name in names}
        rows = [
            {
                name: torch.nn.functional.pad(row[name], (0, longest[name] - len(row[name])), value=filled.get(name, 0))
                for name in names
            }
            for row in batch
        ]
        return default_collate(rows)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows] or [torch.empty(0, dtype=torch.int64)]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def _cut(rows: Tensor, padding: int) -> Tensor:
    return rows[:, : max(1, int((rows != padding).sum(1).max()))]


class PairDataModule(InMemoryDataModule):
    """Base of the data modules of translations: a dataset implements :meth:`read`, and the rest is done here.

    One WordPiece vocabulary for both sides is learned from the training pairs; a run saves it as ``tokenizer/`` in its
    folder. Sources that are equal are all in one part of the split. Batches are those of :class:`PairRows`.

    Args:
        batch_size: pairs per batch (and per process).
        test_size: number of pairs held out for the test; a float is a fraction.
        val_size: number of the remaining pairs held out for validation; a float is a fraction of them.
        vocab_size: of the vocabulary, special tokens included.
        lowercase: whether the vocabulary drops case and accents.
        max_length: pairs of which a side has more tokens are left out; default none is.
        num_workers: processes that load batches; the pairs are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        tokenizer: of the package ``tokenizers``; like the next one, known once the pairs have been read.
        token_names: the name of each id; figures show them.

    Raises:
        ValueError: an argument is out of range, or a text is empty.

    Example:
        >>> class Numbers(PairDataModule):
        ...     def read(self):
        ...         return [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier")] * 10
        >>> numbers = Numbers(batch_size=2, vocab_size=60, test_size=0.25)
        >>> numbers.setup("fit")
        >>> sorted(next(iter(numbers.train_dataloader())))
        ['attention_mask', 'decoder_input_ids', 'input_ids', 'labels']
    """

    def __init__(
        self,
        batch_size: int = 64,
        test_size: int | float = 0.1,
        val_size: int | float = 0.1,
        vocab_size: int = 2000,
        lowercase: bool = False,
        max_length: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_size, 1.0, num_workers, pin_memory, False, seed)
        self.test_size = test_size
        self.vocab_size = check_integer("vocab_size", vocab_size, len(SPECIAL) + 1)
        self.lowercase = check_flag("lowercase", lowercase)
        self.max_length = max_length if max_length is None else check_integer("max_length", max_length, 3)
        self.tokenizer: Any = None
        self.token_names: list[str] | None = None

    def read(self) -> list[tuple[str, str]]:
        """Return all pairs; a dataset overrides this."""
        raise MisconfigurationException(f"{type(self).__name__} has no pairs: implement read(), which returns a list.")

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once, and save the tokenizer in the run's folder."""
        super().setup(stage)
        trainer = self.trainer
        if trainer is not None and stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            folder = trainer.log_dir or trainer.default_root_dir
            save_tokenizer(self.tokenizer, Path(folder, "tokenizer"), PADDING)

    def training_datasets(self) -> tuple[TensorRows, TensorRows]:
        """Return the pairs to train on and those to validate on."""
        return self._datasets[0], self._datasets[1]

    def testing_dataset(self) -> TensorRows:
        """Return the pairs to test on."""
        return self._datasets[2]

    @cached_property
    def _datasets(self) -> tuple[PairRows, ...]:
        pairs = self.read()
        empty = next((i for i, pair in enumerate(pairs) if not all(text.strip() for text in pair)), None)
        if empty is not None:
            raise ValueError(f"read() expected two texts in every pair, but pair {empty} has an empty one: drop it.")
        sources = [source for source, _ in pairs]
        others, test = split_groups(sources, count_of("test_size", self.test_size, len(pairs)), self.seed)
        if not len(others):
            raise refusal("test_size", f"to leave some of the {len(pairs)} pairs to train on", self.test_size)
        kept = [sources[i] for i in others.tolist()]
        train, val = split_groups(kept, count_of("val_size", self.val_size, len(kept)), self.seed)
        # Held-out pairs in an order drawn at random: figures show the first ones, and files are often sorted.
        held_out = [shuffled(part, self.seed) for part in (others[val], test)]
        parts = [[pairs[i] for i in part.tolist()] for part in (others[train], *held_out)]
        self.tokenizer = learn_wordpiece((text for pair in parts[0] for text in pair), self.vocab_size, self.lowercase)
        self.token_names = token_names(self.tokenizer)
        self.vocab_size = len(self.token_names)
        return tuple(self._rows(part) for part in parts)

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> PairRows:
        sources, targets = (self.tokenizer.encode_batch([pair[side] for pair in pairs]) for side in (0, 1))
        # What is written begins without [CLS] and ends with [SEP].
        ids = [(source.ids, target.ids[1:]) for source, target in zip(sources, targets, strict=True)]
        if self.max_length is not None:
            ids = [pair for pair in ids if max(map(len, pair)) <= self.max_length]
        return PairRows([source for source, _ in ids], [target for _, target in ids])
