import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from lit_xai.render import Renderer, attribution_figure, color_limit, figure_to_rgb

NAMES = ["T-shirt/top", "Ankle boot", "a class whose name goes on and on (and on), variety yellow", "$x_1$ & <b>"]
TITLE = "IntegratedGradients · target label · baseline mean of the training samples · epoch 12 · step 4567"
SHAPES = [(28, 28), (3, 32, 32), (3, 224, 224), (30,), (3,), (1, 99), (12, 200)]


def about(samples, rng):
    """What a monitor knows of its samples: some are wrong, some names are long."""
    chances = rng.dirichlet(np.ones(4), size=samples)
    return {"title": TITLE, "labels": np.arange(samples) % 4, "probabilities": chances, "class_names": NAMES}


@pytest.mark.parametrize(
    ("samples", "shape"), [*((8, shape) for shape in SHAPES), (1, (28, 28)), (3, (28, 28)), (1, (1, 99))]
)
def test_every_word_can_be_read(samples, shape, rng, assert_legible):
    inputs, maps = rng.normal(size=(2, samples, *shape))
    assert_legible(attribution_figure(inputs, maps, **about(samples, rng)))


@pytest.mark.parametrize("shape", [(28, 28), (1, 99), (300,)], ids=str)
def test_many_samples_are_bounded_and_those_left_out_counted(shape, rng, assert_legible, words_of):
    inputs, maps = rng.normal(size=(2, 40, *shape))
    figure = attribution_figure(inputs, maps, **about(40, rng))
    width, height = figure.bbox.size
    assert width <= 1400
    assert height <= 2200
    assert_legible(figure)
    said = " ".join(words_of(figure))
    assert {28: "8 more samples not shown", 1: "24 more samples not shown", 300: "16 of 300 features"}[shape[0]] in said


@pytest.mark.parametrize("shape", [(28, 28), (6,), (1, 99)], ids=str)
@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_maps_with_nothing_to_show_are_drawn_empty_and_say_so(shape, bad, rng, assert_legible, words_of):
    inputs, maps = rng.normal(size=(2, 4, *shape))
    maps[1] = bad
    maps[2].flat[0] = bad
    figure = attribution_figure(inputs, maps, **about(4, rng))
    assert_legible(figure)
    assert ("all zero" if bad == 0 else "no finite") in " ".join(words_of(figure))
    maps[:] = bad
    assert_legible(attribution_figure(inputs, maps, **about(4, rng)))


@pytest.mark.parametrize("shape", [(3, 32, 32), (30,), (3, 99)], ids=str)
def test_the_same_input_gives_the_same_pixels_from_tensors_and_arrays(shape, rng):
    inputs, maps = rng.normal(size=(2, 2, *shape)).astype(np.float32)
    known = about(2, rng)
    first = figure_to_rgb(attribution_figure(inputs, maps, **known))
    tensors = torch.tensor(inputs, requires_grad=True), torch.tensor(maps)
    assert (figure_to_rgb(attribution_figure(*tensors, **known)) == first).all()
    known["labels"] = torch.tensor(known["labels"])
    known["probabilities"] = torch.tensor(known["probabilities"])
    assert (figure_to_rgb(attribution_figure(inputs, maps, **known)) == first).all()


@pytest.mark.parametrize("shape", [(28, 28), (6,), (1, 99)], ids=str)
def test_logits_of_another_size_draw_the_same_picture_but_for_the_total(shape, rng, words_of):
    inputs, maps = rng.normal(size=(2, 2, *shape))
    small, large = (attribution_figure(inputs, maps * factor) for factor in (1, 1024))
    changed = set(words_of(small)) ^ set(words_of(large))
    assert changed
    assert all("Σ|a| = " in words for words in changed)


@pytest.mark.parametrize("shape", [(28, 28), (3,), (1, 99)], ids=str)
def test_a_users_own_style_changes_nothing(shape, rng):
    from matplotlib import rc_context

    inputs, maps = rng.normal(size=(2, 2, *shape))
    plain = figure_to_rgb(attribution_figure(inputs, maps, **about(2, np.random.default_rng(1))))
    with rc_context({"font.size": 30, "axes.facecolor": "black", "text.color": "red", "image.cmap": "jet"}):
        styled = figure_to_rgb(attribution_figure(inputs, maps, **about(2, np.random.default_rng(1))))
    assert (plain == styled).all()


def test_inputs_and_attributions_are_left_alone(rng):
    inputs, maps = rng.normal(size=(2, 3, 1, 28, 28))
    kept = inputs.copy(), maps.copy()
    attribution_figure(inputs, maps, mean=0.5, std=2.0)
    assert (inputs == kept[0]).all()
    assert (maps == kept[1]).all()


@pytest.mark.parametrize("limit", [0, -0.1, float("nan"), float("inf")])
def test_limits_that_are_no_share_are_refused(limit):
    with pytest.raises(ValueError, match=r"limit expected a positive share, such as 0.02 for 2%, but got"):
        attribution_figure(torch.zeros(2, 5), torch.ones(2, 5), limit=limit)


def test_the_limit_is_the_percentile_rounded_up(rng):
    maps = rng.normal(size=(8, 1, 28, 28))
    shares = np.abs(maps) / np.abs(maps).sum(axis=(1, 2, 3), keepdims=True)
    limit = color_limit(maps)
    assert np.quantile(shares, 0.99) <= limit <= 2 * np.quantile(shares, 0.99)
    assert color_limit(maps * 1e6) == limit
    assert color_limit(torch.tensor(maps)) == limit


def test_the_limit_of_coarse_maps_is_taken_at_the_inputs_size(rng):
    coarse, images = rng.random((4, 1, 7, 7)), np.zeros((4, 3, 28, 28))
    assert color_limit(coarse, images) < color_limit(coarse) / 4


def test_the_limit_of_a_table_is_its_largest_bar():
    maps = np.array([[1.0, -3.0], [1.0, 3.0]])
    assert color_limit(maps) == 1.0  # 0.75, rounded up
    assert color_limit(np.array([[3.0, -4.0, 3.0]])) == 0.5


@pytest.mark.parametrize("maps", [np.zeros((2, 1, 9, 9)), np.full((2, 1, 9, 9), np.nan), np.zeros((2, 3))])
def test_without_anything_to_measure_there_is_still_a_limit(maps):
    assert color_limit(maps) > 0


def test_single_pixels_that_count_alone_still_set_a_limit():
    maps = np.zeros((2, 1, 28, 28))
    maps[:, 0, 3, 3] = 5
    assert color_limit(maps) == 1.0


def test_eight_samples_take_well_under_half_a_second(rng):
    inputs, maps = rng.normal(size=(2, 8, 3, 32, 32))
    attribution_figure(inputs, maps)
    times = []
    for _ in range(3):
        start = time.process_time()
        figure_to_rgb(attribution_figure(inputs, maps, **about(8, rng)))
        times.append(time.process_time() - start)
    assert min(times) < 0.5


def test_matplotlib_waits_for_the_first_picture_and_pyplot_is_never_imported():
    code = """
import sys, lit_xai.render as render
assert not {"matplotlib", "PIL", "lightning", "captum"} & set(sys.modules), "imported too early"
import torch, tempfile
for shape in ((1, 8, 8), (5,), (1, 30)):
    figure = render.attribution_figure(torch.rand(2, *shape), torch.rand(2, *shape))
    render.save_png(figure, tempfile.mkdtemp() + "/figure.png")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules, "pyplot"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_renderer_that_returns_no_figure_is_named():
    class Forgetful(Renderer):
        name = "forgetful"

        def draw(self, drawing):
            pass

    with pytest.raises(TypeError, match=r"Forgetful\.draw expected to return a matplotlib Figure, but got None\."):
        attribution_figure(torch.zeros(2, 5), torch.ones(2, 5), kind=Forgetful())


@pytest.mark.parametrize("ends", [("lowers", "raises value"), ("", "how much it counts")])
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 1, 300, 300), (4, 6), (3, 5, 40)])
def test_what_signs_mean_is_written_beside_the_unit(ends, shape, rng, assert_legible, words_of):
    inputs = rng.random(shape)
    figure = attribution_figure(inputs, inputs, ends=ends)
    assert_legible(figure)
    assert f"{ends[1]} ▸" in words_of(figure)
    assert any(word.startswith("◂") for word in words_of(figure)) == bool(ends[0])
