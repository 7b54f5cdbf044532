"""Matrices of translations: what is drawn where, and that it fits."""

import numpy as np
import pytest

from lit_xai.render.matrix import GUIDE, MOST, MOST_TOKENS, matrix_figure

NAMES = ["[PAD]", "[SEP]", "Old", "Welsh", "Alt", "##walisisch", "eine-sehr-lange-Silbe-ohne-Ende"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (30, 40), (0, 3), (12, 2)])
def test_matrices_of_any_size_are_legible(rows, columns, assert_legible, rng):
    read, written = rng.integers(0, 7, columns), rng.integers(0, 7, rows)
    figure = matrix_figure([rng.normal(size=(rows, columns))], [read], [written], token_names=NAMES, title="IG")
    assert_legible(figure)
    (picture,) = figure.axes[0].images or [None]
    if rows:
        assert picture.get_array().shape[:2] == (min(rows, MOST_TOKENS), min(columns, MOST_TOKENS))


def test_words_stand_at_their_rows_and_a_wrong_guess_is_bold(words_of):
    figure = matrix_figure([np.eye(2)], [[2, 3]], [[4, 5]], predicted=[[4, 1]], token_names=NAMES)
    assert {"Old Welsh", "\N{RIGHTWARDS ARROW} Altwalisisch", "##walisisch"} <= set(words_of(figure))
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]
    assert "[SEP]" in bold
    assert bold.count("Alt") == 0


def test_the_figure_says_what_stands_where(words_of):
    matrix = [np.eye(2)], [[2, 3]], [[4, 5]]
    assert GUIDE[0] in words_of(matrix_figure(*matrix))
    assert GUIDE[1] not in words_of(matrix_figure(*matrix))
    assert set(GUIDE) <= set(words_of(matrix_figure(*matrix, predicted=[[4, 1]])))


def test_every_row_has_its_own_scale(rng):
    matrix = rng.normal(size=(3, 4))
    first, second = (
        matrix_figure([one], [[2, 3, 4, 5]], [[2, 3, 4]]).axes[0].images[0].get_array()
        for one in (matrix, matrix * np.array([[1.0], [8.0], [0.25]]))
    )
    np.testing.assert_array_equal(first, second)


def test_no_word_is_drawn_where_samples_are_not_shown(words_of):
    figure = matrix_figure([np.eye(2)], [[2, 3]], [[4, 5]], token_names=NAMES, shows_inputs=False)
    assert not any(name in words for name in NAMES for words in words_of(figure))


def test_what_is_left_out_is_said_and_wrong_shapes_are_refused(words_of):
    several = [np.eye(2)] * (MOST + 2), [[2, 3]] * (MOST + 2), [[4, 5]] * (MOST + 2)
    assert "2 more not shown" in words_of(matrix_figure(*several))
    with pytest.raises(ValueError, match=r"matrices expected shape \(2, 3\), tokens by tokens, but got \(3, 2\)"):
        matrix_figure([np.zeros((3, 2))], [[1, 2, 3]], [[4, 5]])
