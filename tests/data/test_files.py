from pathlib import Path

import pytest

from lit_xai.data import CIFAR10, MNIST, FashionMNIST

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@pytest.fixture
def served_mnist(server, write_mnist):
    """MNIST whose checksums are those of the tiny files on the server."""
    checksums = write_mnist(server.folder)
    return type("ServedMNIST", (MNIST,), {"checksums": checksums, "base_url": server.url})


@pytest.mark.parametrize("data_class", [MNIST, FashionMNIST, CIFAR10])
def test_missing_files_are_named_with_their_folder(tmp_path, data_class, make_trainer, make_model):
    data = data_class(tmp_path)
    with pytest.raises(FileNotFoundError) as info:
        make_trainer().fit(make_model(784), datamodule=data)
    message = str(info.value)
    assert all(name in message for name in data_class.files)
    assert f"in the folder '{tmp_path / data_class.folder}'" in message
    assert "download=True" in message
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_missing_is_named(tmp_path, write_mnist):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"MNIST misses t10k-labels-idx1-ubyte\.gz in the folder"):
        MNIST(tmp_path).prepare_data()
    with pytest.raises(FileNotFoundError, match="misses t10k-labels"):
        MNIST(tmp_path).setup()


def test_the_folder_may_be_named_itself_and_from_home(tmp_path, monkeypatch, write_mnist):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mnist(tmp_path / "data" / "mnist")
    for data_dir in (tmp_path / "data", str(tmp_path / "data" / "mnist"), "~/data"):
        data = MNIST(data_dir, val_size=10)
        data.prepare_data()
        data.setup()
        assert (len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)) == (30, 10, 10)
        assert data.hparams["data_dir"] == str(data_dir)


def test_downloads_what_is_missing_and_nothing_twice(tmp_path, server, served_mnist, make_trainer, make_model):
    data = served_mnist(tmp_path / "data", download=True)
    make_trainer().fit(make_model(784), datamodule=data)
    assert sorted(server.requested) == sorted(f"/{name}" for name in MNIST.files)
    assert sorted(path.name for path in data.directory.iterdir()) == sorted(MNIST.files)
    (data.directory / "t10k-labels-idx1-ubyte.gz").unlink()
    server.requested.clear()
    served_mnist(tmp_path / "data", download=True).prepare_data()
    assert server.requested == ["/t10k-labels-idx1-ubyte.gz"]


def test_url_replaces_the_public_address(tmp_path, server, served_mnist):
    served_mnist.base_url = "https://unreachable.invalid"
    served_mnist(tmp_path, download=True, url=f"{server.url}/").prepare_data()
    assert len(list((tmp_path / "mnist").iterdir())) == 4


def test_public_addresses_are_https():
    for data_class in (MNIST, FashionMNIST, CIFAR10):
        assert data_class("data").url.startswith("https://")
        assert all(len(bytes.fromhex(checksum)) == 32 for checksum in data_class.checksums.values())


def test_a_file_with_the_wrong_checksum_is_removed(tmp_path, server, served_mnist, make_trainer, make_model):
    (server.folder / "train-labels-idx1-ubyte.gz").write_bytes(b"something else")
    data = served_mnist(tmp_path, download=True)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz was refused and removed"):
        make_trainer().fit(make_model(784), datamodule=data)
    assert [path.name for path in data.directory.iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_a_truncated_file_is_removed(tmp_path, server, served_mnist):
    server.short.add("train-images-idx3-ubyte.gz")
    data = served_mnist(tmp_path, download=True)
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte\.gz could not be downloaded"):
        data.prepare_data()
    assert list(data.directory.iterdir()) == []


@pytest.mark.parametrize("url", ["mirror.example/mnist", "", "ftp://mirror.example", "/mnt/mnist"])
def test_refuses_what_is_no_address(url):
    with pytest.raises(ValueError, match=f"url expected an address such as 'https://.*', but got '{url}'"):
        MNIST(url=url)


def test_labels_and_images_have_to_belong_together(tmp_path, write_mnist):
    folder = tmp_path / "mnist"
    write_mnist(folder)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(ValueError, match=r"training files in '.*mnist' expected .* 40 images .* and 10 labels"):
        MNIST(tmp_path).setup("fit")


def test_other_images_and_labels_are_refused(tmp_path, write_mnist, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setattr(MNIST, "input_shape", (1, 32, 32))
    with pytest.raises(ValueError, match=r"images of shape \(1, 32, 32\) .* shape \(1, 28, 28\)"):
        MNIST(tmp_path).setup("fit")
    monkeypatch.setattr(MNIST, "input_shape", (1, 28, 28))
    monkeypatch.setattr(MNIST, "class_names", ["0", "1"])
    with pytest.raises(ValueError, match="expected labels below 2, but got 9"):
        MNIST(tmp_path).setup("test")


def test_a_damaged_file_is_one_sentence(tmp_path, write_mnist, make_trainer, make_model):
    write_mnist(tmp_path / "mnist")
    path = Path(tmp_path, "mnist", "train-images-idx3-ubyte.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"'{path}' cannot be read .*: delete it and set `download=True`"):
        make_trainer().fit(make_model(784), datamodule=MNIST(tmp_path))


def test_the_checkpoint_loads_again_with_a_path(tmp_path, write_mnist, make_trainer, make_model):
    write_mnist(tmp_path / "mnist")
    trainer = make_trainer()
    trainer.fit(make_model(784), datamodule=MNIST(tmp_path, batch_size=8))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    again = MNIST.load_from_checkpoint(tmp_path / "some.ckpt")
    assert (again.batch_size, again.directory) == (8, tmp_path / "mnist")
