"""Lines are those of the user, however deep the exporter was in its own."""

import linecache

import torch
from networks import mlp
from torch import nn

from lit_xai.export.lines import user_line
from lit_xai.network.calling import call_network


class Broken(nn.Module):
    def forward(self, x):
        return x.view(3)


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError


def test_the_innermost_line_of_the_cause():
    def inner():
        return torch.ones(2).view(3)

    def outer():
        try:
            inner()
        except RuntimeError as error:
            raise ValueError("wrapped") from error

    line = user_line(caught(outer))
    path, number, code = line.split(":", 2)
    assert path == __file__
    assert code.strip() == "return torch.ones(2).view(3)" == linecache.getline(path, int(number)).strip()


def test_libraries_are_passed_over():
    line = user_line(caught(lambda: mlp()(torch.zeros(2, 7))))
    assert line.split(":")[0] == __file__
    assert user_line(caught(lambda: call_network(Broken(), torch.zeros(2)))).endswith("return x.view(3)")
    assert user_line(ValueError("never raised")) == ""
