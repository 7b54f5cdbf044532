import pytest

from lit_xai.data.typed_tsv import read_typed_tsv


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "some.inter").write_text(text)
        return read_typed_tsv(tmp_path / "some.inter")

    return read


def test_columns_have_the_types_of_the_header(read):
    found = read("id:token\tprice:float\ttags:token_seq\n007\t1e3\ta b\nx y\t-2\t\n")
    assert found == {"id": ["007", "x y"], "price": [1000.0, -2.0], "tags": [["a", "b"], []]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tprice:float\n", r"expected a header of columns 'name:type' of token, float, token_seq, but got 'id'"),
        ("", "expected a header of columns"),
        ("id:token\tprice:float\n1\t2\n3\n", r"line 3, expected 2 columns, but got 1"),
        ("id:token\tprice:float\n1\tcheap\n", r"line 2, price, expected a number, but got 'cheap'"),
    ],
)
def test_what_is_no_such_file_is_one_sentence(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)
