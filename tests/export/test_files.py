"""What cannot become a file is refused with the line at fault."""

import onnx
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.export.files import take_onnx, write_onnx
from lit_xai.export.parity import OnnxPredictor
from lit_xai.export.wholes import others_of


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


@pytest.mark.parametrize("given", [(4, 9), (1, 3)])
def test_texts_of_any_length_are_taken(given, tmp_path):
    from lit_xai.models import TextTransformer

    torch.manual_seed(0)
    network = TextTransformer(vocab_size=20, max_length=16, dim=8, depth=1, heads=2).eval()

    def batch(n, length):
        ids = torch.randint(1, 20, (n, length))
        return {"input_ids": ids, "attention_mask": (torch.arange(length) <= torch.arange(n)[:, None] + 1).long()}

    sizes = write_onnx(network, batch(*given), tmp_path / "model.onnx", others=[batch(2, 12), batch(4, 1)])
    assert sizes == {"input_ids": [None, None], "attention_mask": [None, None]}
    for n, length in ((1, 1), (2, 2), (3, 16), (7, 5)):
        inputs = batch(n, length)
        expected = network(**inputs).detach()
        torch.testing.assert_close(OnnxPredictor(tmp_path / "model.onnx")(inputs), expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_one_length_is_written_in_it(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    sizes = write_onnx(network, torch.rand(2, 3, 4), tmp_path / "model.onnx", others=[torch.rand(2, 3, 5)])
    assert sizes == {"input": [None, 3, 4]}


@pytest.mark.filterwarnings("ignore:.*treespec")
def test_an_encoder_decoder_takes_source_and_target_of_any_length(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    from lit_xai.data.pairs import PairRows

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    network = T5ForConditionalGeneration(T5Config(vocab_size=20, decoder_start_token_id=0, **sizes)).eval()

    def batch(n, source, target):
        ids = [[torch.randint(4, 20, (length,)).tolist() for _ in range(n)] for length in (source, target)]
        return {name: value for name, value in PairRows(*ids).__getitems__(range(n)).items() if name != "labels"}

    some = [batch(1, source, target) for source, target in ((7, 5), (7, 5), (5, 5), (9, 4))]
    found = write_onnx(network, some[0], tmp_path / "model.onnx", output="logits", others=others_of(some, rows=True))
    assert found == {name: [None, None] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    for shape in ((1, 1, 1), (3, 12, 9), (2, 2, 30)):
        inputs = batch(*shape)
        expected = network(**inputs).logits.detach()
        torch.testing.assert_close(OnnxPredictor(tmp_path / "model.onnx")(inputs), expected, rtol=1e-3, atol=1e-4)
