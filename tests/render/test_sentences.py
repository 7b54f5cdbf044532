import warnings

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from lit_xai.render import attribution_figure, glyphs
from lit_xai.render import sentences as module

NAMES = ["[PAD]", "[CLS]", "good", "un", "##believ", "##able", "plot", "שלום", "עולם", "film"]


def draw(ids, maps, **options):
    return attribution_figure(torch.tensor(ids), torch.tensor(maps), **{"token_names": NAMES, **options})


def backgrounds(figure):
    """Return the backgrounds from left to right and top to bottom: their boxes and colors."""
    figure.canvas.draw()
    (collection,) = figure.axes[0].collections
    boxes = [path.get_extents() for path in collection.get_paths()]
    return boxes, collection.get_facecolors()[:, :3]


def test_each_token_stands_on_the_color_of_its_share(words_of):
    figure = draw([[2, 6, 9]], [[3.0, -1.0, 0.0]], limit=0.75)
    assert [word for word in words_of(figure) if word in NAMES] == ["good", "plot", "film"]
    _, colors = backgrounds(figure)
    assert colors[0] == pytest.approx(to_rgb("#67001f"), abs=0.01)  # the red end of the scale, three quarters
    assert colors[1][2] > colors[1][0] + 0.1  # blue
    assert colors[2] == pytest.approx([0.97, 0.97, 0.97], abs=0.01)


def test_words_on_dark_colors_are_light():
    figure = draw([[2, 6]], [[1.0, 0.01]])
    colors = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert (colors["good"], colors["plot"]) == ("white", "#111111")


def test_special_tokens_are_gray():
    figure = draw([[1, 2, 0, 0, 0]], [[0.1, 0.1, 0.1, 0, 0]], limit=1.0)
    colors = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colors["[CLS]"] == colors["3 x [PAD]"] == "#666666"
    assert colors["good"] == "#111111"


def test_pieces_of_a_word_touch_and_words_do_not():
    boxes, _ = backgrounds(draw([[3, 4, 5, 6]], [[1.0, 2.0, 3.0, 4.0]]))
    assert boxes[0].x1 == pytest.approx(boxes[1].x0)
    assert boxes[1].x1 == pytest.approx(boxes[2].x0)
    assert boxes[2].x1 + 3 < boxes[3].x0


def test_vectors_of_an_embedding_are_summed(words_of):
    maps = np.random.default_rng(0).normal(size=(1, 3, 8))
    _, colors = backgrounds(draw([[2, 6, 9]], maps))
    _, summed = backgrounds(draw([[2, 6, 9]], maps.sum(-1)))
    assert colors == pytest.approx(summed)


def test_long_texts_are_wrapped_and_what_is_left_out_is_told(words_of, assert_legible):
    ids = [[2, 6, 9] * 100]
    figure = draw(ids, np.ones((1, 300)))
    assert_legible(figure)
    (told,) = [word for word in words_of(figure) if word.startswith("… and")]
    shown = sum(word in NAMES for word in words_of(figure))
    assert told == f"… and {300 - shown} more tokens, {(300 - shown) / 3:.1f}% of Σ|a|".replace(".0%", "%")


def test_many_samples_are_told(words_of):
    figure = draw([[2]] * 18, [[1.0]] * 18)
    assert "2 more samples not shown" in words_of(figure)


def test_ids_are_numbers_and_why_is_told(words_of, assert_legible):
    figure = draw([[2, 6]], [[1.0, 2.0]], token_names=None)
    assert {"2", "6", "numbers are token ids: token_names gives them names"} <= set(words_of(figure))
    assert_legible(figure)


@pytest.mark.parametrize("is_shaped", [True, False])
def test_a_text_from_the_right_ends_at_the_left(is_shaped, monkeypatch, assert_legible):
    monkeypatch.setattr(module, "_is_shaped", lambda: is_shaped)
    figure = draw([[1, 7, 8, 9]], [[1.0, 2.0, 3.0, 4.0]])
    figure.canvas.draw()
    at = {text.get_text(): text.get_window_extent().x0 for text in figure.axes[0].texts}
    words = ("שלום", "עולם") if is_shaped else ("םולש", "םלוע")
    assert at["[CLS]"] > at[words[0]] > at[words[1]] > at["film"]
    assert_legible(figure)


def test_letters_without_a_glyph_do_not_warn_and_are_told(words_of, monkeypatch):
    monkeypatch.setattr(glyphs, "_font_of", lambda letter: None if letter == "好" else glyphs.OWN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw([[0, 1]], [[1.0, 2.0]], token_names=["a好", "b"])
        words = words_of(figure)
    assert {"a□", "□: a letter that no installed font has"} <= set(words)


def test_a_token_wider_than_a_line_loses_its_middle(assert_legible):
    assert_legible(draw([[0, 1]], [[1.0, 2.0]], token_names=["x" * 300, "b"]))


def test_the_token_that_was_explained_is_framed():
    boxes = torch.tensor([[0.0, 1 / 4, 1.0, 2 / 4]])
    figure = draw([[2, 6, 9, 2]], [[1.0, 2.0, 3.0, 4.0]], boxes=boxes, places=["token 1"])
    (frame,) = [patch for patch in figure.axes[0].patches if patch.get_edgecolor()[:3] == to_rgb("#111111")]
    spots, _ = backgrounds(figure)
    assert frame.get_x() == pytest.approx(spots[1].x0)


def test_a_page_of_everything_is_legible(assert_legible):
    ids = [[1, 3, 4, 5, 2, 6] * 6 + [0] * 9, [1, 7, 8, 9, 7] * 9]
    maps = np.random.default_rng(0).normal(size=(2, 45))
    maps[1] = np.nan
    figure = draw(
        ids,
        maps,
        title="LayerIntegratedGradients\nepoch 3",
        labels=[0, 1],
        probabilities=np.array([[0.9, 0.1], [0.8, 0.2]]),
        class_names=["rotten", "fresh"],
    )
    assert_legible(figure)
