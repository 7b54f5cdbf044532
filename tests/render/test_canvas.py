import numpy as np
import pytest
from blindness import BLINDNESS

from lit_xai.render.canvas import Canvas, color_scale, to_colors
from lit_xai.render.captions import Caption


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_for_and_against_differ_to_every_eye(blindness):
    strengths = np.linspace(0.25, 1, 7)
    scale = color_scale(1.0)
    linear = [to_colors(scale, sign * strengths) ** 2.2 for sign in (1, -1)]
    seen = [np.clip(colors @ np.transpose(BLINDNESS[blindness]), 0, 1) ** (1 / 2.2) for colors in linear]
    assert np.abs(seen[0] - seen[1]).max(axis=1).min() > 0.15


def test_the_scale_is_symmetric_about_a_colorless_zero():
    middle = to_colors(color_scale(0.02), np.array([0.0]))[0]
    assert middle.min() > 0.95
    assert np.ptp(middle) < 0.01
    greys = to_colors(color_scale(0.02), np.linspace(-0.02, 0.02, 21)) @ np.array([0.2126, 0.7152, 0.0722])
    assert np.abs(greys - greys[::-1]).max() < 0.15
    assert (np.diff(greys[:11]) > 0).all()


def test_the_title_makes_room_for_itself():
    heights = [Canvas("word " * words, 100).height for words in (0, 1, 30, 300)]
    assert heights == sorted(heights)
    assert heights[-1] < 250


def test_names_are_not_read_as_formulas():
    canvas = Canvas("", 100)
    canvas.text(5, 5, r"$\frac{")
    canvas.finish().canvas.draw()


def test_half_the_width_is_what_tensorboard_shows():
    figure = Canvas("", 100).finish()
    assert figure.canvas.get_width_height() == (700, 112)
    assert figure.dpi == 100


def test_a_class_that_runs_from_the_right_leaves_the_number_behind_it_alone(words_of):
    canvas = Canvas("", 100)
    canvas.caption(Caption("\u05e8\u05e2", "film", 0.7), "", 0, 0, 400)
    canvas.caption(Caption("film", "\u05e8\u05e2", 0.7), "", 0, 50, 400)
    words = words_of(canvas.finish())
    assert "pred film (70%)" in words
    assert [word for word in words if "70%" in word] == ["pred film (70%)", " (70%)"]
