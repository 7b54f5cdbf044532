"""Handwritten digits of 28 x 28 pixels."""

from torch import Tensor

from lit_xai.data.files import ImageFilesDataModule
from lit_xai.data.idx import read_idx_pair


class MNIST(ImageFilesDataModule):
    """70,000 handwritten digits of 28 x 28 pixels, 10,000 of them for the test.

    Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998). The four IDX files belong in the
    folder ``mnist`` of ``data_dir``, gzipped as published. Arguments and errors are those of
    :class:`~lit_xai.data.files.ImageFilesDataModule`.

    Example:
        >>> mnist = MNIST(data_dir="data", batch_size=64)
        >>> mnist.input_shape, mnist.mean, mnist.std
        ((1, 28, 28), (0.1307,), (0.3081,))
    """

    class_names = [str(digit) for digit in range(10)]
    input_shape = (1, 28, 28)
    pixel_mean = (0.1307,)
    pixel_std = (0.3081,)
    folder = "mnist"
    base_url = "https://ossci-datasets.s3.amazonaws.com/mnist"
    checksums = {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }
    files = tuple(checksums)

    def read_files(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the training or the test images ``(N, 1, 28, 28)`` and labels ``(N,)``, uint8."""
        return read_idx_pair(self.directory, train)
