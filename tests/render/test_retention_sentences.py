"""Texts before and after: each sentence three times, and the words that changed are those in black."""

import numpy as np

from lit_xai.render import figure_to_rgb, retention_figure
from lit_xai.render.sentences import FAINT

NAMES = ["[PAD]", "a", "won", "##der", "##ful", "film", "indeed"]
IDS = np.array([[1, 2, 3, 4, 5, 0, 0, 0], [1, 5, 6, 0, 0, 0, 0, 0]])


def drawn(**options):
    before, now = np.zeros((2, 2, 8))
    before[:, 0], before[0, 2], before[1, 1] = 1.0, 1.0, 1.0
    now[:, 0], now[0, 4], now[1, 1] = 1.0, -1.0, 1.0
    known = {"reference_predictions": [1, 1], "predictions": [0, 1], "class_names": ["bad", "good"], "limit": 0.5}
    return retention_figure(IDS, before, now, token_names=NAMES, **known, **options)


def words_of(figure):
    return [(one.get_text(), one.get_color()) for one in figure.axes[0].texts]


def test_each_sentence_stands_three_times_and_what_changed_is_not_gray():
    words = words_of(drawn())
    for name in ("reference", "now", "change"):
        assert sum(word == name for word, _ in words) == 2
    assert sum(word == "film" for word, _ in words) == 6
    third = [[color for word, color in words if word == name] for name in ("a", "der", "film")]
    assert [color == FAINT for color in third[0]] == [False, False, True] * 2
    assert [color == FAINT for color in third[1]] == [False, False, False]  # lost its share
    assert [color == FAINT for color in third[2]] == [False, False, False, False, False, True]


def test_words_that_were_explained_whole_are_one():
    words = [word for word, _ in words_of(drawn(by_word=True))]
    assert words.count("wonderful") == 3
    assert "won" not in words
    assert any("per word" in word for word in words)


def test_a_prediction_that_flipped_is_bold_and_no_text_is_drawn_where_none_may_be():
    bold = [one.get_text() for one in drawn().axes[0].texts if one.get_weight() == "bold"]
    assert any("bad" in words for words in bold)
    assert not any("good" in words for words in bold)
    hidden = drawn(shows_inputs=False)
    assert not {word for word, _ in words_of(hidden)} & set(NAMES)
    assert not np.array_equal(figure_to_rgb(hidden).shape, figure_to_rgb(drawn()).shape)
