"""Tests of figures of several networks."""

import numpy as np
import pytest
import torch

from lit_xai.render.networks import networks_figure
from lit_xai.render.png import figure_to_rgb, png_bytes

KINDS = {
    "images": torch.rand(3, 1, 8, 8),
    "series": torch.randn(3, 2, 30),
    "tokens": torch.randint(99, (3, 12)),
    "table": torch.randn(3, 4),
}


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_and_its_numbers_are_named(kind):
    inputs = KINDS[kind]
    maps = {name: torch.randn(inputs.shape) for name in ("A: dense", "B: int8")}
    numbers = {"size (kB)": ["345", "88"]}
    figure = networks_figure(inputs, maps, labels=[0, 1, 2], numbers=numbers)
    found = words(figure)
    assert {"A: dense", "B: int8", "size (kB)", "345", "88"} <= set(found)
    assert png_bytes(figure) == png_bytes(networks_figure(inputs, maps, labels=[0, 1, 2], numbers=numbers))


@pytest.mark.parametrize("kind", ["images", "series", "tokens", "table"])
def test_without_inputs_no_pixel_depends_on_them(kind):
    inputs = KINDS[kind]
    maps = {"dense": torch.randn(inputs.shape), "int8": torch.randn(inputs.shape)}
    others = inputs.flip(0) + 1
    first, second = (figure_to_rgb(networks_figure(one, maps, shows_inputs=False)) for one in (inputs, others))
    np.testing.assert_array_equal(first, second)
    if kind != "table":  # whose rows are never drawn
        assert figure_to_rgb(networks_figure(inputs, maps)).tobytes() != first.tobytes()


def test_a_prediction_unlike_the_first_networks_is_bold():
    images = KINDS["images"]
    maps = {"dense": images, "int8": images}
    predictions = {"dense": [0, 1, 2], "int8": [0, 1, 1]}
    figure = networks_figure(images, maps, labels=[0, 1, 2], predictions=predictions, class_names=["a", "b", "c"])
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]
    assert "b ✗" in bold
    assert "a ✓" not in bold


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("others", [1, 2, 3])
def test_names_of_networks_and_classes_are_whole_and_legible(kind, others, assert_legible):
    inputs = KINDS[kind]
    names = ["A: dense", *(f"{letter}: pruned + quantized" for letter in "BCD"[:others])]
    chosen = {name: np.full(3, k % 2) for k, name in enumerate(names)}
    figure = networks_figure(
        inputs,
        {name: torch.randn(inputs.shape) for name in names},
        labels=[0, 1, 0],
        predictions=chosen,
        probabilities=dict.fromkeys(names, np.full(3, 0.87)),
        class_names=["speaker 1", "speaker 2"],
        numbers={"size (kB)": ["345"] * len(names)},
    )
    assert_legible(figure)
    assert not [text for text in words(figure) if "…" in text and "(87%)" not in text]
    if kind in ("series", "tokens"):
        assert {"speaker 1 (87%) ✓", "speaker 2 (87%) ✓"} <= set(words(figure))


@pytest.mark.parametrize("n", [0, 5])
def test_more_networks_than_can_be_read_are_refused(n):
    with pytest.raises(ValueError, match="maps expected those of one to 4 networks"):
        networks_figure(KINDS["table"], {str(i): KINDS["table"] for i in range(n)})
