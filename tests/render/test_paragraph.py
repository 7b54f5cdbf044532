from itertools import pairwise

import pytest

from lit_xai.render.paragraph import PAD, SPACE, lay_out
from lit_xai.render.pieces import Piece


def text(*words):
    """Return pieces; those that begin with ## go on with a word."""
    return [
        Piece(w.removeprefix("##"), 0.0, i, begins_word=not w.startswith("##"), is_special="[" in w)
        for i, w in enumerate(words)
    ]


def lines_of(*words, width=100):
    lines = lay_out(text(*words), width, lambda piece: 10.0 * len(piece.words))
    return [[placed.words for placed in line] for line in lines]


def test_lines_are_as_full_as_they_can_be():
    assert lines_of("aa", "bb", "cc", "dd") == [["aa", "bb", "cc"], ["dd"]]


def test_pieces_of_a_word_stay_together():
    assert lines_of("aaaa", "bbb", "##cc") == [["aaaa"], ["bbb", "cc"]]


def test_a_word_wider_than_a_line_is_broken_between_its_pieces():
    assert lines_of("a", "bbbbbb", "##cccc", "##dd") == [["a", "bbbbbb"], ["cccc", "dd"]]


def test_no_piece_overlaps_another_or_leaves_the_line():
    words = ["[CLS]", "שלום", "##ות", "film", "noir", "(", "2024", ")", "עולם", "3 x [PAD]"] * 3
    pieces = text(*words)
    lines = lay_out(pieces, 300, lambda piece: 10.0 * len(piece.words))
    assert sorted(placed.piece.first for line in lines for placed in line) == list(range(len(pieces)))
    for line in lines:
        for one, other in pairwise(line):
            assert one.x + one.width <= other.x + 1e-9
        assert line[0].x >= 0
        assert line[-1].x + line[-1].width == pytest.approx(300)  # flush right
        assert all(placed.x <= placed.text_x <= placed.x + PAD for placed in line)


def test_a_text_from_the_right_begins_there_and_reads_to_the_left():
    assert lines_of("[CLS]", "שלום", "film", "noir", "!", width=400) == [["!", "film", "noir", "שלום", "[CLS]"]]
    assert lines_of("[CLS]", "film", "שלום", "עולם", width=400) == [["[CLS]", "film", "עולם", "שלום"]]


def test_pieces_of_a_word_from_the_right_go_to_the_left():
    assert lines_of("היה", "##ות", width=400) == [["ות", "היה"]]


def test_words_are_a_space_apart_and_pieces_are_not():
    (line,) = lay_out(text("a", "##b", "c"), 100, lambda piece: 10.0)
    assert [placed.x for placed in line] == [0, PAD + 10, PAD + 10 + 10 + PAD + SPACE]


def test_an_empty_text_has_no_lines():
    assert lines_of() == []
