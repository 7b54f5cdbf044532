import io
import tarfile
from hashlib import sha256

import numpy as np
import pytest
import torch

from lit_xai.data import CIFAR10


def record(label, index):
    """One label byte, then the red, green and blue planes; red holds the rows, green the columns, blue the index."""
    rows, columns = np.mgrid[:32, :32]
    planes = np.stack([rows, columns, np.full((32, 32), index)]).astype(np.uint8)
    return bytes([label]) + planes.tobytes()


def write_cifar10(folder, per_file=4):
    folder.mkdir(parents=True)
    for number, name in enumerate(CIFAR10.files):
        indices = range(number * per_file, (number + 1) * per_file)
        (folder / name).write_bytes(b"".join(record(index % 10, index) for index in indices))


def test_reads_its_files(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    data = CIFAR10(tmp_path, val_size=0, normalize=False)
    data.prepare_data()
    data.setup()
    assert data.train_dataset.images.shape == (20, 3, 32, 32)
    assert sorted(data.train_dataset.images[:, 2, 0, 0].tolist()) == list(range(20))
    assert torch.equal(data.train_dataset.images[:, 2, 3, 4] % 10, data.train_dataset.targets.to(torch.uint8))
    assert data.test_dataset.images[:, 2, 9, 9].tolist() == [20, 21, 22, 23]
    x, y = data.test_dataset[1]
    assert y == 1
    assert torch.equal(x[0] * 255, torch.arange(32.0)[:, None].expand(32, 32))
    assert torch.equal(x[1] * 255, torch.arange(32.0)[None].expand(32, 32))


def test_normalizes_each_channel(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    data = CIFAR10(tmp_path)
    data.setup("test")
    x, _ = data.test_dataset[0]
    expected = (torch.tensor([5.0, 7.0, 20.0]) / 255 - torch.tensor(data.mean)) / torch.tensor(data.std)
    torch.testing.assert_close(x[:, 5, 7], expected, atol=1e-6, rtol=0)


def test_augmentation_shifts_and_mirrors(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    data = CIFAR10(tmp_path, val_size=0, normalize=False, augment=True)
    data.setup("fit")
    torch.manual_seed(0)
    x, _ = data.train_dataset.__getitems__([0] * 400)
    row, column = (x[:, 0, 16, 16] * 255).round(), (x[:, 1, 16, 16] * 255).round()
    assert set(row.tolist()) == set(range(12, 21))  # shifts of up to 4 pixels
    assert set(column.tolist()) == set(range(11, 21))  # the same, and from the other side (31 - 16 = 15)
    mirrored = x[:, 1, 16, 15] > x[:, 1, 16, 16]
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("content", [b"", b"\0" * 3072, b"\0" * 3074])
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"'{path}' cannot be read .*3073 bytes, but got {len(content)}\): delete it"):
        CIFAR10(tmp_path).setup("fit")


def test_labels_out_of_range_are_refused(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(record(10, 0))
    with pytest.raises(ValueError, match=r"test files in .* expected labels below 10, but got 10"):
        CIFAR10(tmp_path).setup("test")


@pytest.fixture
def served_cifar10(server, tmp_path):
    """CIFAR10 whose checksum is that of the tiny archive on the server."""

    def serve(names):
        write_cifar10(tmp_path / "source" / "cifar-10-batches-bin")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for name in names:
                tar.add(tmp_path / "source" / name, arcname=name)
        (server.folder / "cifar-10-binary.tar.gz").write_bytes(archive.getvalue())
        checksums = {"cifar-10-binary.tar.gz": sha256(archive.getvalue()).hexdigest()}
        return type("ServedCIFAR10", (CIFAR10,), {"checksums": checksums, "base_url": server.url})

    return serve


@pytest.mark.parametrize("data_dir", ["data", "data/cifar-10-batches-bin"])
def test_downloads_unpacks_and_tidies_up(tmp_path, served_cifar10, data_dir):
    data = served_cifar10(["cifar-10-batches-bin"])(tmp_path / data_dir, download=True, val_size=2)
    data.prepare_data()
    data.setup()
    assert (len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)) == (18, 2, 4)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-bin"]
    assert sorted(path.name for path in data.directory.iterdir()) == sorted(CIFAR10.files)


def test_an_archive_without_the_files_is_refused_and_removed(tmp_path, served_cifar10):
    data = served_cifar10(["cifar-10-batches-bin/data_batch_1.bin"])(tmp_path / "data", download=True)
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz' cannot be read \(.*data_batch_2\.bin.* not found"):
        data.prepare_data()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-bin"]


def test_an_archive_with_the_wrong_checksum_is_refused_and_removed(tmp_path, server, served_cifar10):
    data = served_cifar10(["cifar-10-batches-bin"])(tmp_path / "data", download=True)
    (server.folder / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="was refused and removed"):
        data.prepare_data()
    assert list((tmp_path / "data").iterdir()) == []
