import pytest

from lit_xai.render.direction import LEFT, NEITHER, RIGHT, as_drawn, direction_of, in_order

L, R, N = LEFT, RIGHT, NEITHER


@pytest.mark.parametrize(
    ("words", "direction"),
    [("film", L), ("שלום", R), ("مرحبا", R), ("123", N), ("!?", N), ("3 שלום film", R), ("", N), ("电影", L)],
)
def test_the_first_letter_with_a_direction_decides(words, direction):
    assert direction_of([words]) == direction


@pytest.mark.parametrize(
    ("directions", "base", "order"),
    [
        ([L, L, L], L, [0, 1, 2]),
        ([R, R, R], R, [2, 1, 0]),
        ([R, R, R], L, [2, 1, 0]),
        ([L, L], R, [0, 1]),
        ([L, R, R, L], L, [0, 2, 1, 3]),
        ([R, L, L, R], R, [3, 1, 2, 0]),
        ([L, R, N, R, L], L, [0, 3, 2, 1, 4]),  # a mark within a run belongs to it
        ([L, N, R, N], L, [0, 1, 2, 3]),  # one between runs belongs to the line
        ([R, N, L, N], R, [3, 2, 1, 0]),
        ([], L, []),
    ],
)
def test_runs_of_the_other_direction_are_turned_around_as_a_whole(directions, base, order):
    assert in_order(directions, base) == order


def test_marks_over_letters_stay_with_them():
    assert as_drawn("שָׁלוֹם", RIGHT, is_shaped=False).startswith("ם")
    assert as_drawn("אָב", RIGHT, is_shaped=False) == "באָ"


def test_brackets_are_mirrored_where_lines_run_from_the_right():
    assert as_drawn("(«", RIGHT, is_shaped=True) == ")»"
    assert as_drawn("(", LEFT, is_shaped=True) == "("


def test_what_matplotlib_shapes_is_given_to_it_as_it_is_read():
    assert as_drawn("مرحبا", RIGHT, is_shaped=True) == "مرحبا"
    assert as_drawn("film", RIGHT, is_shaped=False) == "film"
