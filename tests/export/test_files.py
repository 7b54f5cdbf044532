"""What cannot become a file is refused with the line at fault."""

import onnx
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.export.files import take_onnx, write_onnx


class Undecided(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Fixed(nn.Module):
    def forward(self, x):
        return x + torch.ones(2, 2)


class Broken(nn.Module):
    def forward(self, x):
        raise KeyError("weights")


class OneByOne(nn.Module):
    def forward(self, x):
        batch = torch.zeros(len(x), 2)
        for i, row in enumerate(list(x)):
            batch[i, :2].copy_(row)
        return batch


def test_control_flow_by_its_line(tmp_path, capfd):
    line = Undecided.forward.__code__.co_firstlineno + 1
    with refused("Undecided cannot be exported to ONNX", f"{__file__}:{line}: if x.sum() > 0:"):
        write_onnx(Undecided(), torch.zeros(2, 2), tmp_path / "model.onnx")
    with refused("KeyError: 'weights'", 'raise KeyError("weights")'):
        write_onnx(Broken(), torch.zeros(2, 2), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_one_number_of_samples(tmp_path):
    with refused("Fixed expected to take any number of samples", "its file runs with 2 alone"):
        write_onnx(Fixed(), torch.zeros(2, 2), tmp_path / "model.onnx")


class InNumPy(nn.Module):
    def forward(self, x):
        return x + torch.from_numpy(x.detach().mean(0).numpy())


def test_what_is_computed_with_numpy_is_refused(tmp_path):
    with refused("InNumPy cannot be exported to ONNX", "its file computes NaN or infinity"):
        write_onnx(InNumPy(), torch.zeros(2, 2), tmp_path / "model.onnx")


def test_rows_that_are_left_out(tmp_path):
    with refused("OneByOne expected to take any number of samples", "its file runs with 2 alone"):
        write_onnx(OneByOne(), torch.zeros(2, 2), tmp_path / "model.onnx")


def test_versions_of_operators(tmp_path):
    write_onnx(nn.Linear(2, 2), torch.zeros(2, 2), tmp_path / "model.onnx", opset=18)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == 18
    with refused("opset expected a version that torch can write, but got 99"):
        write_onnx(nn.Linear(2, 2), torch.zeros(2, 2), tmp_path / "model.onnx", opset=99)


@pytest.mark.parametrize("content", [b"", b"no network"])
def test_a_given_file_is_checked(content, tmp_path):
    (tmp_path / "given.onnx").write_bytes(content)
    with refused("path expected an ONNX file", "given.onnx"):
        take_onnx(tmp_path / "given.onnx", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
