import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from refusals import refused

from lit_xai.render import channels_figure, channels_table, figure_to_rgb, save_png
from lit_xai.render.channels import DENSE, KEPT

RESNET = {f"layer{s}.{b}.conv{c}": 16 * 2**s for s in range(3) for b in range(10) for c in range(2)}
BERT = {f"model.bert.encoder.layer.{i}.attention.self.{part}": 768 for i in range(4) for part in ("query", "value")}
NETWORKS = {
    "one": ({"fc": 10}, {"fc": 10}),
    "sixty": (RESNET, {name: n // 2 for name, n in RESNET.items()}),
    "long names": (BERT | {"model.bert.pooler": 3072}, dict.fromkeys(BERT, 512) | {"model.bert.pooler": 3071}),
    "wide beside narrow": ({"a": 4096, "b": 1}, {"a": 17, "b": 1}),
    "nothing left": ({"a": 8, "b": 0}, {"a": 0, "b": 0}),
}


def bars(figure):
    patches = figure.axes[1].patches
    half = len(patches) // 2
    return [p.get_width() for p in patches[:half]], [p.get_width() for p in patches[half:]]


@pytest.mark.parametrize("title", ["", "StructuredPruning · target_macs 0.5 · epoch 12 " * 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_word_is_legible_and_no_number_is_behind_a_bar(name, title, assert_legible, tmp_path):
    figure = channels_figure(*NETWORKS[name], title)
    assert_legible(figure)
    assert save_png(figure, tmp_path / "channels.png").stat().st_size > 1000
    rgb = figure_to_rgb(figure)
    for text in (t for t in figure.axes[0].texts if re.fullmatch(r"\d+ of \d+", t.get_text())):
        box = text.get_window_extent()
        inside = rgb[len(rgb) - int(box.y1) : len(rgb) - int(box.y0), int(box.x0) : int(box.x1)]
        assert inside.min() < 150, "no ink"
        assert np.median(inside) == 255, "not on white"


def test_bars_and_numbers_say_what_was_given(words_of):
    before, after = {"conv1": 16, "conv2": 32, "fc": 10}, {"conv2": 24, "fc": 10, "conv1": 8}
    figure = channels_figure(before, after)
    assert bars(figure) == ([16, 32, 10], [8, 24, 10])
    words = words_of(figure)
    assert [w for w in words if w in before] == list(before)
    assert [w for w in words if re.fullmatch(r"\d+ of \d+", w)] == ["8 of 16", "24 of 32", "10 of 10"]
    assert {"output channels", "42 of 58 channels left (72%) · 2 of 3 layers pruned"} < set(words)


def test_more_layers_make_a_taller_figure_of_the_same_width():
    figures = [channels_figure(*NETWORKS[name]) for name in ("one", "sixty")]
    widths, heights = zip(*(figure.canvas.get_width_height() for figure in figures), strict=True)
    assert widths == (700, 700)
    assert heights[1] - heights[0] == 59 * 27


def test_kept_and_removed_differ_in_grey():
    grey = [float(np.dot(to_rgb(color), [0.2126, 0.7152, 0.0722])) for color in (KEPT, DENSE, "white")]
    assert grey[0] + 0.3 < grey[1] < grey[2] - 0.1


def test_the_table_is_aligned_as_text_and_a_table_for_tensorboard():
    plugin_util = pytest.importorskip("tensorboard.plugin_util")
    table = channels_table(*NETWORKS["long names"])
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    html = plugin_util.markdown_to_safe_html(table)
    assert html.count("<tr>") == len(BERT) + 3
    assert "<code>model.bert.pooler</code>" in html
    assert ["all layers", str(8 * 512 + 3071), str(8 * 768 + 3072)] == [c.strip() for c in lines[-1].split("|")[1:4]]


def test_layers_that_are_not_the_same_are_named():
    with refused("before and after expected the same layers, but got 'b' in before alone"):
        channels_figure({"a": 1, "b": 2}, {"a": 1})
    with refused("but got 'c' in after alone"):
        channels_table({"a": 1}, {"a": 1, "c": 2})
    with refused("before expected the channels of one or more layers, but got none"):
        channels_figure({}, {})
