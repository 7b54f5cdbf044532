"""Tokenizers from a folder, and the names of their tokens; the package ``tokenizers`` is imported when one is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_xai.network.check import refusal
from lit_xai.network.packages import require

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")
"""Names of the token for padding, where the tokenizer does not say which one it is."""


def load_tokenizer(source: str | Path, argument: str = "tokenizer") -> Tokenizer:
    """Return the tokenizer of a Hugging Face folder; nothing is downloaded.

    Args:
        source: a folder with ``tokenizer.json``, that file, or anything else that transformers knows without the
            network: a folder in an older form, or a name in its cache.
        argument: whose value it is, for the error.

    Raises:
        ValueError: there is none.
    """
    require(f"{argument}={str(source)!r}", "tokenizers", extra="text")
    from tokenizers import Tokenizer

    path = Path(source).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        return _by_transformers(source, argument)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises Exception itself
        raise refusal(
            argument, "the folder of a tokenizer", str(source), f": '{file}' cannot be read ({error})"
        ) from None


def _by_transformers(source: str | Path, argument: str) -> Tokenizer:
    hint = (
        "There has to be a tokenizer.json in it, as save_pretrained writes it. A name of the Hub has to be in the local"
        " cache of transformers: nothing is downloaded here."
    )
    try:
        from transformers import AutoTokenizer

        found = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    except Exception:  # not installed, no such folder, a damaged file: errors of many kinds
        raise refusal(argument, "the folder of a tokenizer", str(source), hint) from None
    if not hasattr(found, "backend_tokenizer"):
        raise refusal(argument, "a fast tokenizer", str(source), "Its save_pretrained has to write a tokenizer.json.")
    return found.backend_tokenizer


def token_names(tokenizer: Tokenizer) -> list[str]:
    """Return the name of each id, as figures show it.

    Args:
        tokenizer: of the package ``tokenizers``.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> token_names(Tokenizer(WordLevel({"good": 1, "[PAD]": 0}, unk_token="[PAD]")))
        ['[PAD]', 'good']
    """
    known = {number: name for name, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    return [known.get(number, str(number)) for number in range(max(known, default=-1) + 1)]


def padding_of(tokenizer: Tokenizer, folder: Path | None = None) -> int | None:
    """Return the id of the token for padding, or ``None`` where there is none.

    Args:
        tokenizer: that says so itself, or has one of the usual names.
        folder: whose ``tokenizer_config.json`` may say it.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> padding_of(Tokenizer(WordLevel({"a": 0, "<pad>": 1}, unk_token="a")))
        1
    """
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    named = _configured(folder).get("pad_token")
    name = named.get("content") if isinstance(named, dict) else named
    ids = (tokenizer.token_to_id(one) for one in (name, *PADDING) if one)
    return next((one for one in ids if one is not None), None)


def _configured(folder: Path | None) -> dict[str, Any]:
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save_tokenizer(tokenizer: Tokenizer, folder: Path, padding: int | None) -> None:
    """Write a tokenizer as transformers reads it.

    Args:
        tokenizer: of the package ``tokenizers``.
        folder: which is created.
        padding: the id of the token for padding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    special = {key: name for key, name in special.items() if tokenizer.token_to_id(name) is not None}
    if padding is not None:
        special["pad_token"] = tokenizer.id_to_token(padding)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
