"""Names of countries, languages, scripts and currencies in English and another language."""

import struct
from pathlib import Path

from lit_xai.data.pairs import PairDataModule

SYSTEM = "/usr/share/locale"
"""Where Debian's package iso-codes puts its translations, and most other distributions theirs."""
KINDS = ("iso_3166-1", "iso_639-3", "iso_639-5", "iso_15924", "iso_4217", "iso_3166-2")


class Phrases(PairDataModule):
    """Names of countries and their parts, languages, scripts and currencies, from English into another language.

    They are those that the package iso-codes of most Linux distributions translates: some four to eight thousand names
    for German, French or Spanish. Names that are the same in both languages are left out. Nothing is downloaded.

    Args:
        language: such as ``"de"``.
        folder: that holds a folder of this name with the ``.mo`` files in it, or in its ``LC_MESSAGES``.
        kinds: names of the files, without ``.mo``; by default countries, languages, scripts, currencies and parts of
            countries.
        batch_size: pairs per batch (and per process).
        test_size: number of pairs held out for the test; a float is a fraction.
        val_size: number of the remaining pairs held out for validation; a float is a fraction of them.
        vocab_size: of the vocabulary, special tokens included.
        lowercase: whether the vocabulary drops case and accents.
        max_length: pairs of which a side has more tokens are left out.
        num_workers: processes that load batches.
        pin_memory: whether batches are copied to page-locked memory.
        seed: seed of the split.

    Raises:
        FileNotFoundError: there are no such files; says what installs them.
        ValueError: a file is damaged, or an argument out of range.

    Example:
        >>> Phrases("fr", folder="data/phrases").language
        'fr'
    """

    def __init__(
        self,
        language: str = "de",
        folder: str | Path = SYSTEM,
        kinds: list[str] | None = None,
        batch_size: int = 64,
        test_size: int | float = 0.1,
        val_size: int | float = 0.1,
        vocab_size: int = 2000,
        lowercase: bool = False,
        max_length: int | None = 24,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        folder = str(folder)  # a hyperparameter in the checkpoint
        super().__init__(
            batch_size, test_size, val_size, vocab_size, lowercase, max_length, num_workers, pin_memory, seed
        )
        self.language, self.folder, self.kinds = language, folder, kinds

    def prepare_data(self) -> None:
        """Check that the files are there, before anything else is done."""
        self._files()

    def read(self) -> list[tuple[str, str]]:
        """Return the pairs, in the order of the alphabet."""
        found: dict[str, str] = {}
        for file in self._files():
            found |= {source: target for source, target in read_catalog(file).items() if source != target}
        return sorted(found.items())

    def _files(self) -> list[Path]:
        place = Path(self.folder).expanduser() / self.language
        folders = [place, place / "LC_MESSAGES"]
        files = [folder / f"{kind}.mo" for kind in self.kinds or KINDS for folder in folders]
        there = [file for file in files if file.is_file()]
        if not there or (self.kinds is not None and len(there) < len(self.kinds)):
            wanted = " and ".join(f"{kind}.mo" for kind in self.kinds or KINDS[:2])
            raise FileNotFoundError(
                f"Phrases expected {wanted} in '{place}' or its LC_MESSAGES: install the package iso-codes of your"
                " distribution, or set folder= to a copy of its locale folder."
            )
        return there


def read_catalog(file: str | Path) -> dict[str, str]:
    """Return the messages of a gettext catalog (``.mo``) and their translations.

    Source: the format in the manual of GNU gettext, "The Format of GNU MO Files". Contexts are dropped, plurals too.

    Raises:
        ValueError: it is none, or damaged.
    """
    data = Path(file).read_bytes()
    try:
        order = {0x950412DE: "<", 0xDE120495: ">"}[struct.unpack("<I", data[:4])[0]]
        count, *tables = struct.unpack(f"{order}3I", data[8:20])
        keys, values = (_strings(data, order, start, count) for start in tables)
    except (KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"'{file}' expected a gettext catalog, but is none, or damaged ({error!r}).") from None
    # A context stands before its message, ended by the byte 4; a plural behind it, after a zero. The header has no key.
    pairs = {key.rpartition("\4")[2]: value for key, value in zip(keys, values, strict=True) if "\0" not in key}
    return {source: target for source, target in pairs.items() if source.strip() and target.strip()}


def _strings(data: bytes, order: str, start: int, count: int) -> list[str]:
    numbers = struct.unpack(f"{order}{2 * count}I", data[start : start + 8 * count])
    places = list(zip(numbers[1::2], numbers[::2], strict=True))
    if any(place + length > len(data) for place, length in places):
        raise struct.error("it ends too early")
    return [data[place : place + length].decode() for place, length in places]
