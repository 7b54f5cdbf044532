import pytest

from lit_xai.render.text import shorten, shorten_end, text_width, wrap


@pytest.mark.parametrize("words", ["cat", "worst fractal dimension", "x" * 3000, "Antirrhinum majus (snapdragon)"])
@pytest.mark.parametrize("width", [30, 100, 300])
@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_shortened_words_fit_and_use_the_room(words, width, weight):
    short = shorten(words, width, 15, weight)
    assert text_width(short, 15, weight) <= width
    if short != words:
        head, tail = short.split("…")
        assert words == head + words[len(head) : len(words) - len(tail)] + tail
        assert text_width(short, 15, weight) > width - 30


def test_words_that_fit_are_left_alone():
    assert shorten("cat", text_width("cat", 15), 15) == "cat"
    assert shorten("", 0, 15) == ""


def test_wrapping_loses_no_word_and_keeps_the_breaks_given():
    title = "IntegratedGradients · target label\nbaseline mean of the training samples · epoch 12 · val_acc 0.93"
    lines = wrap(title, 400, 16, "bold", most=9)
    assert " ".join(lines).split() == title.split()
    assert any(line.startswith("baseline") for line in lines)
    assert all(text_width(line, 16, "bold") <= 400 for line in lines)


def test_wrapping_ends_after_the_lines_allowed():
    lines = wrap("word " * 200, 300, 16, "bold", most=3)
    assert len(lines) == 3
    assert "…" in lines[-1]
    assert text_width(lines[-1], 16, "bold") <= 300
    assert wrap("  \n ", 300, 16, "bold") == []


@pytest.mark.parametrize("width", [90, 160, 300])
@pytest.mark.parametrize(
    "words", ["The Shawshank Redemption (1994)", "Girl, Interrupted (1999)", "no year, however long it is"]
)
def test_an_end_that_is_taken_out_leaves_the_start_and_the_brackets(words, width):
    short = shorten_end(words, width, 15)
    assert text_width(short, 15) <= width
    if short != words:
        head, tail = short.split("…")
        assert words.startswith(head)
        assert tail == (words[words.index(" (") :] if "(" in words and width > 150 else "")
