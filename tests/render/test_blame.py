import math

import pytest

from lit_xai.render import blame_figure, save_png
from lit_xai.render.blame import MOST, NoiseRow

LONG = [
    NoiseRow(f"bert.encoder.layer.{i}.attention.output.dense", 40 - i / 3 + 3 * (i % 4), 30 - i / 5) for i in range(60)
]
CASES = {
    "one": [NoiseRow("fc", 31.0, 30.0)],
    "a planted one": [
        NoiseRow("conv1", 40.0, 41.0, "0.1042"),
        NoiseRow("features.1.depthwise", 0.1, 38.0, "0.9120"),
        NoiseRow("head", 50.0, 0.1, "0.1042"),
    ],
    "many": LONG,
    "no noise": [NoiseRow("a", math.inf, math.inf), NoiseRow("b", 30.0, math.inf)],
    "no signal": [NoiseRow("a", -math.inf, -3.0), NoiseRow("b", 30.0, -12.0)],
    "unknown": [NoiseRow("a"), NoiseRow("b", None, 20.0), NoiseRow("c", 20.0, None)],
    "wide apart": [NoiseRow("a", -140.0, 90.0, "123456.7"), NoiseRow("b", 3.0, 4.0)],
    "none": [],
}


@pytest.mark.parametrize("title", ["", "Noise of each layer in integers\naccuracy 0.8123 in int8, 0.9134 in float"])
@pytest.mark.parametrize("name", CASES)
def test_every_word_is_legible(name, title, assert_legible, tmp_path):
    figure = blame_figure(CASES[name], title, "MulticlassAccuracy, the layer alone in float")
    assert_legible(figure)
    assert save_png(figure, tmp_path / "layers.png").stat().st_size > 1000


def test_the_noisiest_layer_is_bold_and_all_keep_their_order(words_of):
    figure = blame_figure(CASES["a planted one"])
    names = [row.name for row in CASES["a planted one"]]
    assert [word for word in words_of(figure) if word in names] == names
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]
    assert bold[1:] == ["features.1.depthwise", "0.9120"]


def test_marks_stand_where_their_values_are():
    figure = blame_figure([NoiseRow("a", 10.0, 30.0), NoiseRow("b", 20.0, 20.0)])
    centers = [patch.center for patch in figure.axes[0].patches][2:]  # after the legend's
    (output_a, alone_a), (output_b, alone_b) = (centers[:2], centers[2:])
    assert output_a[0] > output_b[0] == alone_b[0] > alone_a[0]
    assert output_a[0] - output_b[0] == pytest.approx(output_b[0] - alone_a[0])
    assert output_a[1] == alone_a[1] < output_b[1]


def test_of_many_layers_the_noisiest_are_drawn(words_of):
    words = words_of(blame_figure(LONG))
    assert f"the {MOST} noisiest of 60 layers" in words
    assert sum("dense" in word for word in words) == MOST
