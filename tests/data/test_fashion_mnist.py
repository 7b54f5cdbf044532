import torch

from lit_xai.data import MNIST, FashionMNIST


def test_reads_its_files(tmp_path, write_mnist):
    data = FashionMNIST(tmp_path, val_size=0, normalize=False)
    write_mnist(data.directory)
    data.prepare_data()
    data.setup()
    x, y = data.train_dataset.__getitems__(data.train_dataset.targets.argsort(stable=True))
    assert x.shape == (40, 1, 28, 28)
    index = (x * 255).round().long()
    assert torch.equal(index, index[:, :1, :1, :1].expand(-1, -1, 28, 28))
    assert sorted(index[:, 0, 0, 0].tolist()) == list(range(40))
    assert torch.equal(index[:, 0, 0, 0] % 10, y)
    assert (data.test_dataset.images[:, 0, 5, 7] == torch.arange(10)).all()
    assert data.test_dataset.targets.tolist() == list(range(10))


def test_describes_itself():
    data = FashionMNIST()
    assert data.directory.parts == ("data", "fashion-mnist")
    assert (data.num_classes, data.class_names[6]) == (10, "Shirt")
    assert data.flip is True


def test_published_checksums_differ_from_mnist():
    assert not set(FashionMNIST.checksums.values()) & set(MNIST.checksums.values())
