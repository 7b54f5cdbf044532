import pytest

from lit_xai.data.csv_columns import read_csv


def test_quotes_blank_lines_and_a_spreadsheets_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffname; note\n1; "a;b"\n\n2;"two\nlines"\n3;c\n', encoding="utf-8")
    found = read_csv(path, ";")
    assert found.columns == {"name": ["1", "2", "3"], "note": ["a;b", "two\nlines", "c"]}
    assert [line for _, line in found.places] == [2, 5, 6]
    assert found.place(2) == f"line 6 of '{path}'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line of names and lines of values, but has no values"),
        ("a,b\n", "but has no values"),
        ("a,a\n1,2\n", "a different name for each column, but got 'a'"),
        ("a,\n1,2\n", "a different name for each column, but got ''"),
        ("a,b\n1,2\n1,2,3\n", r"Line 3 of '.*' expected 2 values, but got 3"),
        ("a;b\n1;2\n", "values with ',' between them, but its first line holds ';' in its place: set delimiter=';'"),
        ("a\tb\n1\t2\n", r"set delimiter='\\t'"),
    ],
)
def test_refuses_what_is_no_table(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "a.csv")


def test_refuses_other_encodings(tmp_path):
    (tmp_path / "a.csv").write_bytes("a\né\n".encode("latin-1"))
    expected = r"a\.csv' expected a CSV file in UTF-8, but line 2 holds the byte 0xe9: save it as that"
    with pytest.raises(ValueError, match=expected):
        read_csv(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match=r"There is no CSV file '.*b\.csv': set path to one"):
        read_csv(tmp_path / "b.csv")


def test_a_second_file_needs_the_columns_of_the_first(tmp_path):
    for name, text in (("a", "x,y\n1,2\n"), ("b", "y,x,z\n4,3,5\n"), ("c", "x\n1\n")):
        (tmp_path / name).write_text(text)
    first, second, third = (read_csv(tmp_path / name) for name in "abc")
    joined = first.followed_by(second)
    assert (joined.columns, joined.place(1)) == ({"x": ["1", "3"], "y": ["2", "4"]}, f"line 2 of '{tmp_path / 'b'}'")
    with pytest.raises(ValueError, match=r"c' expected the columns of '.*a', but got .no column 'y'"):
        first.followed_by(third)
