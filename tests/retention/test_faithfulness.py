"""Faithfulness: closed forms of linear networks, plain loops, the null, and every form of inputs."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from retention.test_imputation import dense
from torch import nn

from lit_xai import AttributionMonitor
from lit_xai.data import Digits
from lit_xai.models import MLP, Classifier
from lit_xai.network.arguments import Arguments
from lit_xai.retention.faithfulness import METRICS, faithfulness, gini
from lit_xai.retention.metrics import Faithfulness


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3)
    return nn.Sequential(*layers).eval()


@given(seed=st.integers(0, 999), count=st.integers(2, 12), low=st.booleans())
@settings(max_examples=40, deadline=None)
def test_closed_forms_of_a_linear_network(seed, count, low):
    rng = np.random.default_rng(seed)
    weight, x, base = rng.uniform(0.1, 1, count), rng.uniform(0.5, 2, (3, count)), rng.uniform(-1, 0.2, (1, count))
    weight = -weight if low else weight  # the samples' outputs are then below the baseline's
    network = nn.Linear(count, 1).double()
    network.weight.data[0] = torch.from_numpy(weight)
    shares = weight * (x - base)
    values = rng.standard_normal(shares.shape)  # any order, and not the best one
    found = faithfulness(
        network,
        torch.from_numpy(x),
        torch.from_numpy(values),
        baselines=torch.from_numpy(base),
        metrics=["deletion", "insertion"],
        steps=count,
        orders=0,
    )
    # An element's share counts until it is removed, half a step into its place, and the score is 0 without any.
    places = (-values * (-1 if low else 1)).argsort(1).argsort(1) + 0.5
    share = shares / shares.sum(1, keepdims=True)
    counted = np.abs(shares.sum(1)) > 0.05 * np.maximum(*np.abs(_ends(network, x, base)))
    deletion = np.where(counted, (share * places).sum(1) / count, np.nan)
    np.testing.assert_allclose(found["deletion"], deletion, atol=1e-9)
    np.testing.assert_allclose(found["insertion"], 1 - deletion, atol=1e-9)


def _ends(network, x, base):
    with torch.no_grad():
        ends = [network(torch.from_numpy(part)).numpy()[:, 0] for part in (x, base)]
    return ends[0], ends[1].repeat(len(x))


def test_weight_times_input_is_the_best_order_of_a_linear_network():
    network, x = nn.Linear(10, 1), draw(6, 10).abs() + 0.1
    network.weight.data.abs_()
    best = faithfulness(network, x, network.weight.detach() * x, steps=10, orders=0)
    for seed in range(30):
        other = faithfulness(network, x, draw(6, 10, seed=seed), steps=10, orders=0)
        assert (best["deletion"] <= other["deletion"] + 1e-6).all()
        assert (best["insertion"] >= other["insertion"] - 1e-6).all()


def loops(network, x, values, target, base, steps):
    """Deletion and insertion of one image (C, H, W), as they are told: pixel after pixel, one pass at a time."""

    def p(image):
        with torch.no_grad():
            return network(image[None]).softmax(1)[0, target].item()

    order = values.sum(0).flatten().argsort(descending=True)
    count = len(order)
    at = [0, *(i * count // steps for i in range(1, steps)), count]
    deleted, inserted = [], []
    for k in at:
        without, put_in = x.clone(), base.clone()
        for pixel in order[:k]:
            without[:, pixel // 6, pixel % 6] = base[:, pixel // 6, pixel % 6]
        for pixel in order[: count - k]:
            put_in[:, pixel // 6, pixel % 6] = x[:, pixel // 6, pixel % 6]
        deleted.append((p(without) - p(base)) / (p(x) - p(base)))
        inserted.append((p(put_in) - p(base)) / (p(x) - p(base)))
    shares = np.array(at) / count
    return np.trapezoid(deleted, shares), -np.trapezoid(inserted, 1 - shares), p(x) - p(base)


def test_equals_plain_loops_and_counts_out_what_does_not_change():
    network, x, values = small_network(), 3 * draw(12, 2, 6, 6), draw(12, 2, 6, 6, seed=1)
    base = 0.1 * draw(12, 2, 6, 6, seed=2)
    target = (network(x).argmax(1) + torch.tensor([0] * 8 + [1] * 4)) % 3
    found = faithfulness(network, x, values, target, baselines=base, steps=7, orders=0)
    expected = [loops(network, *row, 7) for row in zip(x, values, target, base, strict=True)]
    counted = 0
    for i, (deletion, insertion, change) in enumerate(expected):
        if change < 0.05:
            assert found["deletion"][i].isnan()
            assert found["insertion"][i].isnan()
            continue
        counted += 1
        assert found["deletion"][i] == pytest.approx(deletion, abs=1e-4)
        assert found["insertion"][i] == pytest.approx(insertion, abs=1e-4)
    assert 3 <= counted < 12
    metric = Faithfulness(baselines=base, steps=7, orders=0)
    metric.update(network, x, values, target)
    numbers = metric.compute()
    assert numbers["left_out"] == 12 - counted
    assert numbers["deletion"] == pytest.approx(np.mean([row[0] for row in expected if row[2] >= 0.05]), abs=1e-4)


def test_road_equals_dense_solves():
    network, x, values = small_network(), 9 * draw(4, 2, 6, 6), draw(4, 1, 6, 6, seed=1)
    with torch.no_grad():
        target, base = network(x).argmax(1), network(torch.zeros(1, 2, 6, 6)).softmax(1)[0]
        found = faithfulness(network, x, values, target, metrics="road", orders=0)["road"]
        order = values.flatten(1).argsort(1, descending=True)
        for i in range(4):
            scores, p_base = [], base[target[i]]
            for tenth in range(1, 10):
                removed = np.zeros(36, dtype=bool)
                removed[order[i, : 36 * tenth // 10]] = True
                image = torch.from_numpy(dense(x[i].numpy(), removed.reshape(6, 6)))
                p = network(torch.stack([image, x[i]])).softmax(1)[:, target[i]]
                scores.append((p[0] - p_base) / (p[1] - p_base))
            assert found[i] == pytest.approx(np.mean(scores), abs=0.02)  # of the noise


@pytest.mark.parametrize("maps", ["random", "constant"])
def test_a_random_explanation_is_within_its_null(maps):
    network, x = small_network(), 2 * draw(100, 2, 6, 6)
    values = draw(100, 2, 6, 6, seed=3) if maps == "random" else torch.zeros_like(x)
    with torch.no_grad():
        target = network(x).argmax(1)
    found = faithfulness(network, x, values, target, metrics=["deletion", "insertion", "road"])
    for name, scores in found.items():
        counted = scores[~scores.isnan()]
        assert len(counted) > 60
        assert abs(counted.mean()) < 3 * counted.std() / len(counted) ** 0.5, name
    attributions = x * torch.autograd.grad(network(x.requires_grad_()).gather(1, target[:, None]).sum(), x)[0]
    informed = faithfulness(network, x, attributions, target, metrics=["deletion", "insertion", "road"])
    for name, sign in (("deletion", -1), ("insertion", 1), ("road", -1)):
        counted = informed[name][~informed[name].isnan()]
        assert sign * counted.mean() > 3 * counted.std() / len(counted) ** 0.5, name


def test_passes_none_runs_twice_and_none_is_larger_than_allowed():
    network, x, values = small_network(), 3 * draw(4, 2, 6, 6), draw(4, 2, 6, 6, seed=1)
    with torch.no_grad():
        target = network(x).argmax(1)
    seen = []
    handle = network.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    results = []
    for size in (2, 64):
        seen.clear()
        results.append(faithfulness(network, x, values, target, metrics=METRICS, internal_batch_size=size))
        assert max(map(len, seen)) <= 4 * size
        rows = torch.cat(seen).flatten(1)
        counted = int((~results[-1]["deletion"].isnan()).sum())
        # Samples, one baseline, and of each sample two orders and ten random ones for the curves, eleven for ROAD.
        assert len(rows) == 4 + 1 + counted * 9 * (12 + 11)
        # Two random orders rarely remove the same 3 of 36 pixels.
        assert len(rows.unique(dim=0)) > 0.99 * len(rows)
    handle.remove()
    for other in results[1:]:
        for name in METRICS:
            torch.testing.assert_close(other[name], results[0][name], atol=2e-3, rtol=1e-3, equal_nan=True)


def test_leaves_the_network_and_the_generators_as_they_were():
    network, x = small_network().train(), draw(4, 2, 6, 6)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    inputs, values = x.clone(), draw(4, 2, 6, 6, seed=1)
    faithfulness(network, inputs, values, 1, metrics=METRICS)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert torch.equal(inputs, x)
    first, second, other = (
        faithfulness(network.eval(), 9 * x, values, network(9 * x).argmax(1), seed=seed) for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, second, equal_nan=True)
    assert not torch.equal(first["deletion"].nan_to_num(), other["deletion"].nan_to_num())


@given(values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_gini_is_half_the_mean_difference_over_the_mean(values):
    sizes = np.abs(np.array(values))
    if not 0 < sizes.sum() < np.inf or sizes.max() < 1e-3:
        return
    expected = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean())
    assert gini(torch.tensor([values], dtype=torch.float64))[0] == pytest.approx(expected, abs=1e-9)


class Towers(nn.Module):
    """Two inputs, one that is a mask, and a choice of outputs."""

    def __init__(self, outputs=1):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(4, outputs), nn.Linear(6, outputs)

    def forward(self, left, right, mask=None):
        right = right if mask is None else right * mask
        return self.left(left) + self.right(right)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(30, 8), nn.Linear(8, 2)

    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))


def test_every_form_of_inputs():
    left, right = draw(5, 4), draw(5, 6, seed=1)
    towers = Towers()
    maps = {"left": towers.left.weight.detach() * left, "right": towers.right.weight.detach() * right}
    given_as = {"left": left, "right": right}
    by_key = faithfulness(towers, given_as, maps)
    in_order = faithfulness(towers, (left, right), tuple(maps.values()))
    named = faithfulness(towers, Arguments((left,), {"right": right}), {"0": maps["left"], "right": maps["right"]})
    both = torch.cat([left, right], 1)  # one network of one input computes the same
    whole = nn.Linear(10, 1)
    whole.weight.data = torch.cat([towers.left.weight, towers.right.weight], 1).detach()
    whole.bias.data = (towers.left.bias + towers.right.bias).detach()
    expected = faithfulness(whole, both, torch.cat(list(maps.values()), 1))
    for found in (by_key, in_order, named):
        torch.testing.assert_close(found, expected, equal_nan=True, atol=1e-4, rtol=1e-4)
    # A mask that differs from sample to sample belongs to it.
    mask = (draw(5, 6, seed=2) > 0).float()
    masked = faithfulness(towers, given_as | {"mask": mask}, maps | {"right": maps["right"] * mask})
    unmasked = faithfulness(towers, {"left": left, "right": right * mask}, maps | {"right": maps["right"] * mask})
    torch.testing.assert_close(masked, unmasked, equal_nan=True, atol=1e-4, rtol=1e-4)


def test_tokens_are_elements_of_ids():
    network, ids = Tokens(), torch.randint(1, 30, (20, 7), generator=torch.Generator().manual_seed(0))
    network.embedding.weight.data.mul_(5)
    with torch.no_grad():
        target = network(ids).argmax(1)
        per_token = network.embedding(ids) * (network.head.weight[target] - network.head.weight[1 - target])[:, None]
    found = faithfulness(network, ids, per_token, target, steps=7)
    torch.testing.assert_close(found, faithfulness(network, ids, per_token.sum(2), target, steps=7), equal_nan=True)
    assert found["deletion"].nanmean() < -0.1
    assert found["insertion"].nanmean() > 0.1


def test_maps_of_a_layer_are_scaled_to_the_image():
    network, x, coarse = small_network(), 3 * draw(4, 2, 6, 6), draw(4, 3, 3, 3, seed=1)
    fine = nn.functional.interpolate(coarse.sum(1, keepdim=True), size=(6, 6), mode="bilinear")
    found, expected = (faithfulness(network, x, maps, 1) for maps in (coarse, fine))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_outputs_with_more_dimensions_count_by_the_explained_number():
    torch.manual_seed(0)
    segments, x = nn.Conv2d(2, 3, 1), 1 + draw(3, 2, 4, 4).abs()
    target = torch.tensor([[0, 1, 1], [2, 3, 0], [1, 0, 2]])
    values = torch.zeros_like(x)
    for i, (_, row, column) in enumerate(target):
        values[i, :, row, column] = 1.0  # nothing else has a say
    found = faithfulness(segments, x, values, target, steps=16, orders=0)
    # The first pixel that goes is the only one: the area is half a step.
    counted = ~found["deletion"].isnan()
    up = segments(x).flatten(1).gather(1, (target * torch.tensor([16, 4, 1])).sum(1)[:, None])[:, 0]
    down = segments(torch.zeros_like(x)).flatten(1).gather(1, (target * torch.tensor([16, 4, 1])).sum(1)[:, None])[:, 0]
    speaks = (up > down) & counted
    assert counted.any()
    torch.testing.assert_close(found["deletion"][speaks], torch.full((int(speaks.sum()),), 0.5 / 16))


class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.bags = nn.EmbeddingBag(9, 2)

    def forward(self, words, offsets):
        return self.bags(words, offsets)


IMAGES, MAPS = torch.zeros(2, 2, 6, 6), torch.zeros(2, 2, 6, 6)


@pytest.mark.parametrize(
    ("network", "inputs", "maps", "options", "message"),
    [
        (small_network(), IMAGES, MAPS, {"metrics": "roar"}, "metrics expected one of deletion.*Did you mean 'road'"),
        (small_network(), IMAGES, MAPS, {"metrics": ()}, "metrics expected one of deletion"),
        (small_network(), IMAGES, MAPS, {"steps": 1}, "steps expected an integer of at least 2, but got 1"),
        (small_network(), IMAGES, MAPS, {"orders": -1}, "orders expected an integer of at least 0, but got -1"),
        (small_network(), IMAGES, MAPS, {"internal_batch_size": 0}, "internal_batch_size expected a positive"),
        (small_network(), IMAGES, MAPS, {"target": None}, "target expected the explained class of each sample"),
        (small_network(), IMAGES, MAPS, {"target": 3}, "target expected classes from 0 to 2"),
        (small_network(), IMAGES, MAPS[:, :, :2, 0], {}, r"attributions expected the shape of the inputs, \(2, 2, 6"),
        (small_network(), IMAGES, MAPS[:1], {}, "attributions expected the shape of the inputs"),
        (small_network(), IMAGES, MAPS, {"baselines": torch.zeros(3, 2, 6, 6)}, "baselines expected a number or a ten"),
        (small_network(), IMAGES, MAPS, {"baselines": "black"}, "baselines expected a number or a tensor"),
        (nn.Linear(4, 1), torch.zeros(2, 4), torch.zeros(2, 4), {"metrics": "road"}, "road fills pixels of images"),
        (Towers(2), (torch.zeros(2, 4), torch.zeros(2, 6)), torch.zeros(2, 4), {}, "attributions expected one part"),
        (Bags(), (torch.arange(4), torch.tensor([0, 3])), torch.zeros(4, 2), {}, "one row per sample"),
    ],
)
def test_refused_in_one_sentence(network, inputs, maps, options, message):
    with pytest.raises(ValueError, match=message):
        faithfulness(network, inputs, maps, **{"target": 0} | options)


def test_updates_add_up_to_the_whole():
    network, x, values = small_network(), 2 * draw(10, 2, 6, 6), draw(10, 2, 6, 6, seed=1)
    target = torch.arange(10) % 3
    whole, parts = Faithfulness(METRICS, orders=0), Faithfulness(METRICS, orders=0)
    whole.update(network, x, values, target)
    for rows in (slice(0, 3), slice(3, 10)):
        parts.update(network, x[rows], values[rows], target[rows])
    torch.testing.assert_close(parts.compute(), whole.compute(), atol=0.02, rtol=0.0)  # of other noise


def test_in_a_run(tmp_path):
    trainer = Trainer(
        max_epochs=4,
        log_every_n_steps=5,
        logger=CSVLogger(tmp_path, "run", ""),
        default_root_dir=tmp_path,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[AttributionMonitor("InputXGradient", metrics=[Faithfulness(METRICS)], probe=32, every_n_epochs=4)],
    )
    trainer.fit(Classifier(MLP(64, [16]), num_classes=10), Digits())
    last = np.load(sorted(tmp_path.rglob("attributions.npz"))[-1])
    numbers = {name: float(last[f"metrics/Faithfulness/{name}"]) for name in (*METRICS, "left_out")}
    assert numbers["deletion"] < 0 < numbers["insertion"]
    assert numbers["road"] < 0
    assert 0 < numbers["sparseness"] < 1
    assert 0 <= numbers["left_out"] < 32
