"""Images of clothes of 28 x 28 pixels."""

from torch import Tensor

from lit_xai.data.files import ImageFilesDataModule
from lit_xai.data.idx import read_idx_pair


class FashionMNIST(ImageFilesDataModule):
    """70,000 gray images of clothes, shoes and bags, 28 x 28 pixels, 10,000 of them for the test.

    H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms" (2017). The four IDX files belong in the folder ``fashion-mnist`` of ``data_dir``, gzipped as published.
    Arguments and errors are those of :class:`~lit_xai.data.files.ImageFilesDataModule`.

    Example:
        >>> fashion = FashionMNIST(data_dir="data", normalize=False)
        >>> fashion.class_names[9], fashion.mean, fashion.std
        ('Ankle boot', (0.0,), (1.0,))
    """

    class_names = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
    input_shape = (1, 28, 28)
    pixel_mean = (0.2860,)
    pixel_std = (0.3530,)
    flip = True
    folder = "fashion-mnist"
    base_url = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
    checksums = {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }
    files = tuple(checksums)

    def read_files(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the training or the test images ``(N, 1, 28, 28)`` and labels ``(N,)``, uint8."""
        return read_idx_pair(self.directory, train)
