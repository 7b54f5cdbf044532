"""The base of data modules whose samples are texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_xai.data.in_memory import InMemoryDataModule
from lit_xai.data.positions import most_ids, most_positions
from lit_xai.data.split import count_of, some_of, split_groups
from lit_xai.data.text_rows import TextRows
from lit_xai.data.tokenizers import load_tokenizer, padding_of, save_tokenizer, token_names
from lit_xai.data.wordpiece import SPECIAL, learn_wordpiece
from lit_xai.network.check import Name, check_choice, check_flag, check_integer, refusal

Module = TypeVar("Module", bound="TextDataModule")


def _row(i: int) -> str:
    return f"row {i}"


@dataclass
class Texts:
    """Texts and their classes.

    Args:
        texts: one per sample, none of them empty.
        labels: class indices ``(N,)``.
        class_names: one per class.
        groups: of each text, where texts of one group must not be trained and tested on; by default each is its own.
        place: returns where a text is from, in words, for errors.

    Raises:
        ValueError: a text is empty, or there is not one label per text.

    Example:
        >>> Texts(["a good film", " "], [1, 0], ["bad", "good"])
        Traceback (most recent call last):
        ...
        ValueError: texts expected words in every text, but row 1 is empty: drop the row.
    """

    texts: Sequence[str]
    labels: Any
    class_names: Sequence[str]
    groups: Sequence[str] | None = None
    place: Callable[[int], str] = field(default=_row, repr=False)

    def __post_init__(self) -> None:
        self.labels = torch.as_tensor(self.labels, dtype=torch.int64)
        if len(self.labels) != len(self.texts) or (self.groups is not None and len(self.groups) != len(self.texts)):
            raise refusal("labels", f"one for each of {len(self.texts)} texts, as groups", len(self.labels))
        empty = next((i for i, text in enumerate(self.texts) if not text.strip()), None)
        if empty is not None:
            raise ValueError(f"texts expected words in every text, but {self.place(empty)} is empty: drop the row.")


class TextDataModule(InMemoryDataModule):
    """Base of the data modules of texts: a dataset implements :meth:`read`, and the rest is done here.

    Batches are dicts of ``input_ids`` and ``attention_mask``, int64 ``(N, T)``, and ``labels`` ``(N,)``, as long as
    their longest text. Without a tokenizer, a WordPiece vocabulary is learned from the training texts; a run saves it
    as ``tokenizer/`` in its folder, which transformers reads too. For texts that are there already, see
    :meth:`from_texts`.

    Args:
        batch_size: texts per batch (and per process).
        test_size: number of texts held out for the test; a float is a fraction. Groups stay together.
        val_size: number of the remaining texts held out for validation; a float is a fraction of them.
        train_size: number of the then remaining ones to train on; a float is a fraction of them.
        tokenizer: the folder of a Hugging Face tokenizer, or its name in the local cache of transformers; nothing is
            downloaded. By default one is trained.
        vocab_size: of a tokenizer that is trained.
        lowercase: whether a tokenizer that is trained drops case and accents.
        max_length: longer texts are cut to so many tokens; default none is.
        pad_to: ``"longest"`` text of the batch, or ``"max_length"``.
        num_workers: processes that load batches; the texts are in memory, so 0 is usually the fastest.
        pin_memory: whether batches are copied to page-locked memory, for faster transfer to a GPU.
        drop_last: whether a smaller last training batch is left out.
        seed: seed of the split; the order of training batches follows ``seed_everything``.

    Attributes:
        tokenizer: of the package ``tokenizers``; like those that follow, known once the texts have been read.
        token_names: the name of each id; figures of the monitor show them.
        vocab_size: the number of ids.
        padding: the id that batches are filled up with.
        class_names: one per class.

    Raises:
        ValueError: an argument is out of range; a text is empty; or, where the data module belongs to a Trainer, a text
            is longer than the network has positions, or the tokenizer has more ids than its embedding.

    Example:
        >>> class Opinions(TextDataModule):
        ...     def read(self):
        ...         return Texts(["a good film", "a bad film"] * 20, [1, 0] * 20, ["bad", "good"])
        >>> opinions = Opinions(batch_size=4, vocab_size=50)
        >>> opinions.setup("fit")
        >>> batch = next(iter(opinions.train_dataloader()))
        >>> {name: tuple(value.shape) for name, value in batch.items()}
        {'input_ids': (4, 5), 'attention_mask': (4, 5), 'labels': (4,)}
        >>> [opinions.token_names[i] for i in batch["input_ids"][0]][:2]
        ['[CLS]', 'a']
    """

    def __init__(
        self,
        batch_size: int = 64,
        test_size: int | float = 0.2,
        val_size: int | float = 0.1,
        train_size: int | float = 1.0,
        tokenizer: Name | None = None,
        vocab_size: int = 8000,
        lowercase: bool = True,
        max_length: int | None = None,
        pad_to: Literal["longest", "max_length"] = "longest",
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        tokenizer = None if tokenizer is None else str(tokenizer)  # a hyperparameter in the checkpoint
        super().__init__(batch_size, val_size, train_size, num_workers, pin_memory, drop_last, seed)
        self.test_size, self.source = test_size, tokenizer
        self.vocab_size = check_integer("vocab_size", vocab_size, len(SPECIAL) + 1)
        self.lowercase = check_flag("lowercase", lowercase)
        self.max_length = max_length if max_length is None else check_integer("max_length", max_length, 3)
        self.pad_to = check_choice("pad_to", pad_to, ("longest", "max_length"))
        if pad_to == "max_length" and max_length is None:
            raise refusal("max_length", "a number of tokens, with pad_to='max_length'", max_length)
        self.tokenizer: Any = None
        self.token_names: list[str] | None = None
        self.padding: int | None = None
        self._texts: Texts | None = None

    @classmethod
    def from_texts(cls: type[Module], texts: Texts, **options: Any) -> Module:
        """Return the data module of texts.

        Args:
            texts: with labels and names.
            options: arguments of the constructor.

        Example:
            >>> texts = Texts(["a good film", "a bad film"] * 20, [1, 0] * 20, ["bad", "good"])
            >>> data = TextDataModule.from_texts(texts, vocab_size=50)
            >>> data.setup()
            >>> len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)
            (29, 3, 8)
        """
        found = cls(**options)
        found._texts = texts
        return found

    def read(self) -> Texts:
        """Return all texts; a dataset overrides this.

        Called once in each process, at the first stage that is set up.
        """
        if self._texts is None:
            raise MisconfigurationException(
                f"{type(self).__name__} has no texts: implement read(), which returns Texts, or build the module with"
                " TextDataModule.from_texts()."
            )
        return self._texts

    def split(self, texts: Texts) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices of the texts to train, validate and test on, drawn at random, groups as a whole.

        Args:
            texts: all of them.
        """
        n = len(texts.texts)
        groups = list(range(n)) if texts.groups is None else texts.groups
        others, test = split_groups(groups, count_of("test_size", self.test_size, n), self.seed)
        if not len(others):
            raise refusal("test_size", f"to leave some of the {n} texts to train on", self.test_size)
        kept = [groups[i] for i in others.tolist()]
        train, val = split_groups(kept, count_of("val_size", self.val_size, len(others)), self.seed)
        train = some_of(train, count_of("train_size", self.train_size, len(train)), self.seed)
        if not len(train):
            raise refusal("train_size", "to leave texts to train on", self.train_size)
        return others[train], others[val], test

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once, refuse what the Trainer's network cannot read, and save the tokenizer."""
        super().setup(stage)
        trainer = self.trainer
        if trainer is None:
            return
        self.check_network(trainer.lightning_module)
        self.spell(trainer.lightning_module)
        folder = trainer.log_dir or trainer.default_root_dir
        if stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            save_tokenizer(self.tokenizer, Path(folder, "tokenizer"), self.padding)

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network that has no room for these texts.

        Args:
            network: whose tables of embeddings are looked at.

        Raises:
            ValueError: a text has more tokens than the network has positions, or the tokenizer has more ids than the
                largest embedding.
        """
        positions, ids = most_positions(network), most_ids(network)
        longest = max(part.inputs.shape[1] for part in self._datasets)
        if positions is not None and longest > positions:
            raise ValueError(
                f"The network has {positions} positions, but the longest text has {longest} tokens: set"
                f" max_length={positions} to cut longer texts, or give the network more."
            )
        if ids is not None and self.vocab_size > ids:
            raise ValueError(
                f"The network's embedding has {ids} rows, but the tokenizer has {self.vocab_size} ids: set vocab_size"
                f" of the network to {self.vocab_size}."
            )

    def spell(self, network: nn.Module) -> None:
        """Tell the parts of a network that ask for it, by a method ``spell``, how the tokens are written.

        Args:
            network: with a :class:`~lit_xai.models.SpelledEmbedding`, say.
        """
        for part in network.modules():
            if callable(getattr(part, "spell", None)):
                part.spell(self.token_names)  # type: ignore[operator]  # torch types attributes as tensors or modules

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint remembers of the vocabulary: its checksum."""
        return {} if self.token_names is None else {"vocabulary": _checksum(self.token_names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint that was trained with another vocabulary.

        Raises:
            ValueError: ids of the checkpoint stand for other tokens.
        """
        known = state_dict.get("vocabulary")
        if known is not None and self.token_names is not None and known != _checksum(self.token_names):
            raise ValueError(
                "The checkpoint was trained with another vocabulary than the tokenizer has: set tokenizer to the folder"
                " tokenizer/ of the run that wrote the checkpoint."
            )

    def training_datasets(self) -> tuple[TextRows, TextRows]:
        """Return the texts to train on and those to validate on."""
        return self._datasets[0], self._datasets[1]

    def testing_dataset(self) -> TextRows:
        """Return the texts to test on."""
        return self._datasets[2]

    @cached_property
    def _datasets(self) -> tuple[TextRows, TextRows, TextRows]:
        texts = self.read()
        parts = self.split(texts)
        self.class_names = [str(name) for name in texts.class_names]
        self._find_tokenizer([texts.texts[i] for i in parts[0].tolist()])
        found = self.tokenizer.encode_batch(list(texts.texts))
        ids = [encoded.ids for encoded in found]
        nothing = next((i for i, row in enumerate(ids) if not row), None)
        if nothing is not None:
            raise ValueError(f"texts expected words that the tokenizer reads, but {texts.place(nothing)} has none.")
        length = self.max_length if self.pad_to == "max_length" else None
        train, val, test = (
            TextRows([ids[i] for i in part.tolist()], texts.labels[part], self.padding or 0, length) for part in parts
        )
        return train, val, test

    def _find_tokenizer(self, training: Sequence[str]) -> None:
        if self.source is None:
            self.tokenizer, folder = learn_wordpiece(training, self.vocab_size, self.lowercase), None
        else:
            self.tokenizer, folder = load_tokenizer(self.source), Path(self.source).expanduser()
        self.padding = padding_of(self.tokenizer, folder)
        if self.padding is None:
            raise refusal("tokenizer", "one with a token for padding, such as [PAD]", self.source)
        # Batches are filled up here, and to their own length.
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation() if self.max_length is None else self.tokenizer.enable_truncation(self.max_length)
        self.token_names = token_names(self.tokenizer)
        self.vocab_size = len(self.token_names)


def _checksum(names: Sequence[str]) -> str:
    return sha256("\n".join(names).encode()).hexdigest()
