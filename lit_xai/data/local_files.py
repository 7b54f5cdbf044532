"""Published files that users bring themselves: their folder, their checksums, and a sentence for what is wrong."""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any


class LocalFiles:
    """What a data module inherits first whose published files a user puts into a folder.

    Missing files, and others of their names, are refused before anything else is done.

    Attributes:
        folder: of the dataset, inside ``data_dir``.
        checksums: the SHA-256 of each file, as hexadecimal digits.
        published: where, in words.
        data_dir: set by the constructor of a dataset.

    Example:
        >>> class Flowers(LocalFiles):
        ...     folder, checksums, published = "flowers", {"flowers.csv": "0" * 64}, "they are at example.org"
        ...     data_dir = "data"
        >>> Flowers().prepare_data()
        Traceback (most recent call last):
        ...
        FileNotFoundError: Flowers misses flowers.csv in the folder 'data/flowers': put the files there (they are at
        example.org), or set data_dir to another folder.
    """

    folder: str
    checksums: Mapping[str, str]
    published: str
    data_dir: str

    @property
    def directory(self) -> Path:
        """The folder where the files belong."""
        return find_folder(self.data_dir, self.folder)

    def prepare_data(self) -> None:
        """Raise an error that names missing files and their folder."""
        self.require()

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once."""
        # Again: prepare_data runs in one process of a node alone, and not at all where a user calls setup() directly.
        self.require()
        base: Any = super()
        base.setup(stage)

    def require(self) -> None:
        """Refuse a folder that misses files, or holds others under their names."""
        require_files(type(self).__name__, self.directory, self.checksums, self.published)


def find_folder(data_dir: str | Path, folder: str) -> Path:
    """Return the folder of a dataset: that inside ``data_dir``, or ``data_dir`` itself where it is that one.

    Args:
        data_dir: the folder that holds the dataset's own folder, or that folder itself; ``~`` is the user's home.
        folder: the name of the dataset's own.

    Example:
        >>> find_folder("data", "ml-100k").as_posix(), find_folder("data/ml-100k", "ml-100k").as_posix()
        ('data/ml-100k', 'data/ml-100k')
    """
    root = Path(os.path.expanduser(data_dir))
    return root if root.name == folder else root / folder


def require_files(owner: str, folder: Path, checksums: Mapping[str, str], source: str) -> None:
    """Refuse a folder that misses files, or holds others under their names.

    Args:
        owner: the data module's name.
        folder: where they belong.
        checksums: their SHA-256 by name, as hexadecimal digits.
        source: where to get them, in words: the second half of a sentence after "put the files there".

    Raises:
        FileNotFoundError: files are missing; names them and the folder.
        ValueError: a file is not the published one.

    Example:
        >>> require_files("Ratings", Path("nowhere"), {"u.data": ""}, "the archive is at example.org")
        Traceback (most recent call last):
        ...
        FileNotFoundError: Ratings misses u.data in the folder 'nowhere': put the files there (the archive is at
        example.org), or set data_dir to another folder.
    """
    missing = [name for name in checksums if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{owner} misses {', '.join(missing)} in the folder '{folder}': put the files there ({source}), or set"
            " data_dir to another folder."
        )
    for name, expected in checksums.items():
        found = sha256((folder / name).read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(
                f"'{folder / name}' is not the published file: its SHA-256 expected {expected}, but got {found}: put"
                f" the original there ({source})."
            )
