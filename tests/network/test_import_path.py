from refusals import refused
from torch import nn

from lit_xai.network.import_path import load_object


def test_load_object():
    assert load_object("torch.nn.Linear", "method") is nn.Linear
    for path in ("Linear", "torch.nn.Liner", "torch.nnn.Linear", "", ".", "..a"):
        with refused("method", repr(path)):
            load_object(path, "method")
