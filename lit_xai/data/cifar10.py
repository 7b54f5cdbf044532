"""Color photographs of 32 x 32 pixels."""

import os
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from lit_xai.data.damage import damaged
from lit_xai.data.download import download
from lit_xai.data.files import ImageFilesDataModule

_ARCHIVE = "cifar-10-binary.tar.gz"
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


class CIFAR10(ImageFilesDataModule):
    """60,000 color photographs of animals and vehicles, 32 x 32 pixels, 10,000 of them for the test.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009). The six files of the binary version
    belong in the folder ``cifar-10-batches-bin`` of ``data_dir``. Arguments and errors are those of
    :class:`~lit_xai.data.files.ImageFilesDataModule`.

    Example:
        >>> cifar = CIFAR10(data_dir="data", augment=True)
        >>> cifar.input_shape, cifar.num_classes
        ((3, 32, 32), 10)
    """

    class_names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    input_shape = (3, 32, 32)
    pixel_mean = (0.4914, 0.4822, 0.4465)
    pixel_std = (0.2470, 0.2435, 0.2616)
    flip = True
    folder = "cifar-10-batches-bin"
    files = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
    base_url = "https://www.cs.toronto.edu/~kriz"
    checksums = {_ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}

    def fetch(self) -> None:
        """Download the archive, unpack the missing files, and delete the archive."""
        archive = self.directory.parent / _ARCHIVE
        download(f"{self.url.rstrip('/')}/{_ARCHIVE}", archive, self.checksums[_ARCHIVE])
        try:
            self._unpack(archive)
        except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
            raise damaged(archive, str(error)) from None
        finally:
            archive.unlink()

    def _unpack(self, archive: Path) -> None:
        self.directory.mkdir(exist_ok=True)
        # Into another folder first: an interruption must not leave half a file under a name that counts as present.
        with tarfile.open(archive) as tar, TemporaryDirectory(dir=archive.parent, prefix=".unpack-") as unpacked:
            for name in self._missing():
                # The data filter refuses members that would be written outside the folder.
                tar.extract(f"{self.folder}/{name}", unpacked, filter="data")
                os.replace(Path(unpacked, self.folder, name), self.directory / name)

    def read_files(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the training or the test images ``(N, 3, 32, 32)`` and labels ``(N,)``, uint8."""
        names = self.files[:-1] if train else self.files[-1:]
        records = torch.cat([_read_batch(self.directory / name) for name in names])
        return records[:, 1:].reshape(-1, *self.input_shape), records[:, 0]


def _read_batch(path: Path) -> Tensor:
    try:
        data = bytearray(path.read_bytes())
    except OSError as error:
        raise damaged(path, str(error)) from None
    if not data or len(data) % _RECORD:
        raise damaged(path, f"expected a multiple of {_RECORD} bytes, but got {len(data)}")
    return torch.frombuffer(data, dtype=torch.uint8).view(-1, _RECORD)
