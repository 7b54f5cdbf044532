"""The dense model of a run: callbacks that want it share one set of weights, and get modules of their own."""

import torch
from retention_runs import Module

from lit_xai.trainer.dense_model import DenseModel


def dense(module, **options):
    one = DenseModel("Callback", "reference", **options)
    one.take(module)
    return one


def test_callbacks_share_the_weights_of_the_dense_model():
    module = Module()
    first, second = dense(module), dense(module, weights_alone=True)
    name = "network.0.weight"
    assert first.state()["dense"][name] is second.state()["dense"][name]
    with torch.no_grad():
        module.network[0].weight += 1
    third = dense(module, weights_alone=True)
    assert third.state()["dense"][name] is not first.state()["dense"][name]
    assert third.state()["dense"]["network.2.weight"] is first.state()["dense"]["network.2.weight"]
    assert second.module is None
    assert first.module is not module


def test_it_is_rebuilt_from_its_weights():
    module = Module()
    first, second = dense(module), dense(module, weights_alone=True)
    before = module.network[0].weight.clone()
    with torch.no_grad():
        module.network[0].weight.zero_()
    for one in (first, second):
        assert torch.equal(one.rebuilt(module).network[0].weight, before)
    assert not module.network[0].weight.any()
