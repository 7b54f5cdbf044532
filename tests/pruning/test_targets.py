"""Targets as they are written, and as they are refused."""

import pytest
from refusals import refused

from lit_xai.pruning.targets import choose_target

NAMES = ("pruning_ratio", "target_macs", "target_params", "target_latency")


def chosen(**given):
    return choose_target(dict.fromkeys(NAMES) | given)


@pytest.mark.parametrize(
    ("given", "dense", "left"),
    [
        ({"target_macs": 0.25}, 400, 100),
        ({"target_macs": 1.0}, 400, 400),
        ({"target_macs": 100}, 400, 100),
        ({"target_macs": "5M"}, 2e7, 5e6),
        ({"target_params": "1.5 k"}, 6000, 1500),
        ({"target_params": "2G"}, 4e9, 2e9),
        ({"target_latency": "3 ms"}, 12.0, 3.0),
        ({"target_latency": "0.5ms"}, 2.0, 0.5),
        ({"target_latency": 0.5}, 2.0, 1.0),
    ],
)
def test_shares_and_amounts(given, dense, left):
    target = chosen(**given)
    assert target.at(dense, 1.0) == pytest.approx(left)
    assert target.at(dense, 0.0) == dense
    assert target.at(dense, 0.5) == pytest.approx((dense + left) / 2)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, ("exactly one of", "none of them")),
        ({"pruning_ratio": 0.5, "target_macs": 0.5}, ("exactly one of", "pruning_ratio=0.5 and target_macs=0.5")),
        ({"pruning_ratio": 1.0}, ("pruning_ratio expected", "1.0")),
        ({"pruning_ratio": -0.1}, ("pruning_ratio expected", "-0.1")),
        ({"pruning_ratio": "half"}, ("pruning_ratio expected", "'half'")),
        ({"target_macs": 0}, ("target_macs expected more than 0", "0")),
        ({"target_macs": -3}, ("target_macs expected more than 0", "-3")),
        ({"target_macs": "5 ms"}, ("target_macs expected", "'5M'", "'5 ms'")),
        ({"target_macs": True}, ("target_macs expected", "True")),
        ({"target_latency": "5M"}, ("target_latency expected", "'3 ms'", "'5M'")),
        ({"target_latency": "fast"}, ("target_latency expected", "'fast'")),
        ({"target_latency": "1.2.3 ms"}, ("target_latency expected",)),
        ({"target_macs": float("nan")}, ("target_macs expected",)),
    ],
)
def test_refused(given, parts):
    with refused(*parts):
        chosen(**given)


def test_more_than_there_is():
    with refused("target_macs expected at most the dense network's 100", "200"):
        chosen(target_macs=200).at(100, 1.0)
