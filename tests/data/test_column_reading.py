import pytest

from lit_xai.data.column_reading import ColumnReader, to_number


def place(row):
    return f"row {row}"


def test_numbers_and_categories_are_told_apart():
    reader = ColumnReader()
    assert reader.are_numbers("a", ["1", "?", "-2e3", ""], place)
    assert not reader.are_numbers("a", ["x", "1"], place)
    assert not reader.are_numbers("a", ["?", ""], place)


@pytest.mark.parametrize("text", ["1_000", "inf", "nan", "3,5", "0x1", ""])
def test_what_is_no_number(text):
    assert to_number(text) is None


def test_a_text_among_numbers_is_named():
    with pytest.raises(
        ValueError,
        match=r"Column 'age' expected numbers, as most of it are, but got 'n\.a\.' in row 2: name that in missing",
    ):
        ColumnReader().are_numbers("age", ["1", "2", "n.a."], place)
    assert ColumnReader(missing_values=["n.a."]).are_numbers("age", ["1", "2", "n.a."], place)


def test_names_are_no_categories():
    names = [f"person {i}" for i in range(101)]
    with pytest.raises(
        ValueError, match=r"Column 'name' expected at most 100 categories, but got 101 .*name it in ignore"
    ):
        ColumnReader().are_numbers("name", names, place)


def test_missing_values_are_refused_or_filled_with_what_training_rows_have():
    values = ["1", "3", "?", "100"]
    with pytest.raises(
        ValueError,
        match=r"Column 'a' expected a value in every row, but got '\?' in row 2 \(1 of 4 rows have none\): fill it in,"
        " set missing='fill'",
    ):
        ColumnReader().numbers("a", values, [0, 1], place)
    assert ColumnReader("fill").numbers("a", values, [0, 1], place).tolist() == [1, 3, 2, 100]
    with pytest.raises(ValueError, match="has none in the training rows"):
        ColumnReader("fill").numbers("a", values, [2], place)
    codes, known = ColumnReader("fill").categories("a", ["x", "", "y"], [0, 1, 2], place)
    assert (codes.tolist(), known) == ([1, 0, 2], ["missing", "x", "y"])


def test_an_unknown_category_is_refused_or_has_a_column():
    values = ["x", "y", "z", "x", "x"]
    with pytest.raises(
        ValueError, match="expected one of the 2 categories of the training rows, but got 'z' in row 2: set unknown="
    ):
        ColumnReader().categories("a", values, [0, 1], place)
    codes, known = ColumnReader(unknown="column").categories("a", values, [0, 1], place)
    assert (codes.tolist(), known) == ([0, 1, 2, 0, 0], ["x", "y", "unknown"])
    # A rare category trains the column.
    codes, known = ColumnReader(unknown="column", min_count=2).categories("a", values, [0, 1, 3], place)
    assert (codes.tolist(), known) == ([0, 1, 1, 0, 0], ["x", "unknown"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"missing": "drop"}, "missing expected one of refuse, fill, but got 'drop'"),
        ({"unknown": "ignore"}, "unknown expected one of refuse, column"),
        ({"min_count": 0}, "min_count expected a positive integer"),
        ({"min_count": 2}, "min_count expected 1 with unknown='refuse', but got 2"),
    ],
)
def test_refuses_arguments_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        ColumnReader(**given)
