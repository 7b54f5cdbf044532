"""Data modules that read published files: their folder, missing files, downloads."""

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from lit_xai.data.download import download as download_file
from lit_xai.data.local_files import LocalFiles
from lit_xai.network.check import refusal


class DataFiles(LocalFiles):
    """What a data module of published files inherits first: it knows their folder, and names what is missing there.

    The constructor of a dataset calls :meth:`place_files`; :meth:`prepare_data` and :meth:`setup` then run before the
    data module's own.

    Attributes:
        folder: of the dataset, inside ``data_dir``.
        files: the names of its files.
        base_url: the address of the public folder that holds them.
        checksums: the SHA-256 of each, as hexadecimal digits.

    Example:
        >>> class Flowers(DataFiles):
        ...     folder, files = "flowers", ("flowers.csv",)
        ...     base_url, checksums = "https://example.org", {"flowers.csv": "0" * 64}
        >>> flowers = Flowers()
        >>> flowers.place_files("data", download=False, url=None)
        >>> flowers.prepare_data()
        Traceback (most recent call last):
        ...
        FileNotFoundError: Flowers misses flowers.csv in the folder 'data/flowers': put the files there, set data_dir
        to another folder, or set download=True.
    """

    files: Sequence[str]
    base_url: str
    download: bool
    url: str

    def place_files(self, data_dir: str, download: bool, url: str | None) -> None:
        """Keep where the files are.

        Args:
            data_dir: the folder that holds the dataset's own folder, or that folder itself.
            download: whether missing files are downloaded.
            url: address of the folder to download from, if it is not the public one.

        Raises:
            ValueError: the address is none.
        """
        if url is not None and urlsplit(url).scheme not in ("http", "https", "file"):
            raise refusal("url", f"an address such as '{self.base_url}'", url)
        self.data_dir, self.download, self.url = data_dir, download, url or self.base_url

    def prepare_data(self) -> None:
        """Download missing files (with ``download=True``), or raise an error that names them and their folder."""
        if self.download and self._missing():
            self.fetch()
        self.require()

    def fetch(self) -> None:
        """Download the missing files; each appears only when it is complete and checked."""
        for name in self._missing():
            download_file(f"{self.url.rstrip('/')}/{name}", self.directory / name, self.checksums[name])

    def _missing(self) -> list[str]:
        return [name for name in self.files if not os.path.isfile(self.directory / name)]

    def require(self) -> None:
        """Refuse a folder that misses files; those that are there may be the user's own."""
        missing = self._missing()
        if missing:
            raise FileNotFoundError(
                f"{type(self).__name__} misses {', '.join(missing)} in the folder '{self.directory}': put the files"
                " there, set data_dir to another folder, or set download=True."
            )
