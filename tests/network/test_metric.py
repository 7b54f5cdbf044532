import pytest
import torch
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from lit_xai.network.metric import (
    LoaderMetric,
    check_rereadable,
    first_batch,
    metric_name,
    metric_value,
    resolve_direction,
    same_order,
)


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 4, generator=generator), torch.randint(3, (16,), generator=generator)) for _ in range(3)]


def test_a_metric_over_a_loader_is_that_of_all_its_batches_in_eval_mode():
    network = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    (inputs, labels) = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    expected = (network[0](inputs).argmax(1) == labels).float().mean().item()
    metric = MulticlassAccuracy(3, average="micro")
    metric.update(torch.eye(3), torch.arange(3))
    assert LoaderMetric(batches(), metric)(network, "it") == pytest.approx(expected)
    assert network.training
    assert metric.compute() == 1  # what the user's own has counted so far stays


def test_a_function_gets_a_copy_that_it_may_change():
    network = nn.Linear(4, 3)
    before = network.weight.clone()
    assert LoaderMetric(batches(), lambda copied: copied.weight.data.zero_().sum())(network, "it") == 0
    assert torch.equal(network.weight, before)


def test_reading_a_batch_draws_no_random_number_and_moves_no_generator():
    loader = DataLoader(torch.arange(8.0), 4, shuffle=True, generator=torch.Generator().manual_seed(0))
    states = torch.get_rng_state(), loader.generator.get_state()
    first = first_batch(loader, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), states[0])
    with same_order(loader):
        again = next(iter(loader))
    assert torch.equal(first, again)
    assert torch.equal(loader.generator.get_state(), states[1])


def test_names_of_metrics():
    assert metric_name(MulticlassAccuracy(3)) == "MulticlassAccuracy"
    assert metric_name(sum) == "sum"
    assert metric_name(lambda network: 0.0) == "metric"


def test_a_given_direction_comes_before_the_metrics_own():
    assert resolve_direction(MulticlassAccuracy(3))
    assert not resolve_direction(MulticlassAccuracy(3), given=False)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: check_rereadable(iter([])), ["loader expected batches that can be read again", "a DataLoader"]),
        (lambda: first_batch([], torch.device("cpu")), ["loader expected one or more batches, but got none"]),
        (lambda: resolve_direction(sum), ["higher_is_better expected True or False, as sum does not define it"]),
        (lambda: resolve_direction(MulticlassAccuracy), ["MulticlassAccuracy(...)"]),
        (lambda: metric_value(torch.zeros(2), " for x"), ["metric expected one number for x, but got Tensor[2]"]),
        (lambda: metric_value("much"), ["metric expected one number, but got str"]),
        (lambda: metric_value(float("inf")), ["metric expected a finite number, but got inf"]),
        (lambda: LoaderMetric([torch.zeros(1, 4)], MulticlassAccuracy(3))(nn.Linear(4, 3), "it"), ["expected labels"]),
    ],
)
def test_refusals(call, parts):
    with refused(*parts):
        call()
