import torch

from lit_xai.data import MNIST


def test_reads_its_files(tmp_path, write_mnist):
    data = MNIST(tmp_path, val_size=0, normalize=False)
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
    data = MNIST()
    assert data.directory.parts == ("data", "mnist")
    assert (data.num_classes, data.class_names[7]) == (10, "7")
    assert data.flip is False
