"""Arrays are written completely or not at all, and NumPy reads them without torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from refusals import refused

from lit_xai.network.saving import load_arrays, save_arrays

TENSORS = {
    "float": torch.randn(3, 2),
    "half": torch.randn(3).half(),
    "bfloat": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "integer": torch.arange(3),
    "flag": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "number": torch.tensor(3.0),
    "graph": torch.ones(2, requires_grad=True) * 2,
    "inputs.a/b": torch.ones(1),
}


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "er" / "maps.npz"
    save_arrays(path, TENSORS)
    with np.load(path, allow_pickle=False) as found:
        assert set(found.files) == set(TENSORS)
        for name, tensor in TENSORS.items():
            assert np.array_equal(found[name], tensor.detach().float().numpy())
    assert [p.name for p in path.parent.iterdir()] == ["maps.npz"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_overwrites(tmp_path):
    path = tmp_path / "maps.npz"
    save_arrays(path, {"a": torch.zeros(2)})
    save_arrays(path, {"a": torch.ones(2)})
    assert np.load(path)["a"].tolist() == [1, 1]


def test_reads_without_torch(tmp_path):
    save_arrays(tmp_path / "maps.npz", TENSORS)
    code = f"import numpy, sys; numpy.load({str(tmp_path / 'maps.npz')!r})['bfloat']; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "maps.npz"
    save_arrays(path, {"a": torch.zeros(2)})

    def disk_full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_arrays(path, {"a": torch.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["maps.npz"]
    assert np.load(path)["a"].tolist() == [0, 0]


def test_what_is_loaded_is_what_was_saved(tmp_path):
    plain = {name: tensor.detach() for name, tensor in TENSORS.items() if name != "inputs.a/b"}
    save_arrays(tmp_path / "maps.npz", plain, compress=False)
    found = load_arrays(tmp_path / "maps.npz", plain)
    for name, tensor in plain.items():
        expected = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
        assert torch.equal(torch.from_numpy(found[name]), expected)


def test_what_cannot_be_loaded_is_one_error(tmp_path):
    path = tmp_path / "maps.npz"
    for names in ({"a": torch.ones(2)}, {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(1)}):
        save_arrays(path, names, compress=False)
        with refused("expected arrays ['a', 'b']", "cannot be read"):
            load_arrays(path, ["a", "b"])
    save_arrays(path, {"a": torch.ones(2), "b": torch.ones(2)})
    with refused("compressed"):
        load_arrays(path, ["a", "b"])
    with refused("cannot be read"):
        load_arrays(tmp_path / "nothing.npz", ["a", "b"])
