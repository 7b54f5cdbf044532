import pytest

from lit_xai.render import before_after_table
from lit_xai.render.summary import markdown_table

MINUS = "\N{MINUS SIGN}"


def row(name, before, after):
    lines = before_after_table({name: (before, after)}).splitlines()
    return tuple(cell.strip() for cell in lines[2].strip("|").split("|"))[1:]


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("params", 272474, 130000, ("0.27 M", "0.13 M", "2.1x fewer")),
        ("parameters", 25_557_032, 12_000_000, ("26 M", "12 M", "2.1x fewer")),
        ("params", 85_000, 8_500, ("85 k", "8.5 k", "10x fewer")),
        ("params", 120, 60, ("120", "60", "2.0x fewer")),
        ("params", 7e9, 13, ("7.0 G", "13", "538461538x fewer")),
        ("MACs", 41_000_000, 19_500_000, ("41 M MACs", "20 M MACs", "2.1x fewer")),
        ("MACs (1 sample)", 4.1e9, 8.2e9, ("4.1 G MACs", "8.2 G MACs", "2.0x more")),
        ("size on disk", 1_100_000, 280_000, ("1.1 MB", "0.28 MB", "3.9x smaller")),
        ("size", 99_999, 85_000, ("100 kB", "85 kB", "1.2x smaller")),
        ("latency (1 thread)", 3.2, 2.0, ("3.2 ms", "2.0 ms", "1.6x faster")),
        ("latency", 3.2, 3.3, ("3.2 ms", "3.3 ms", "1.03x slower")),
        ("latency", 1500, 0.05, ("1.5 s", "50 µs", "30000x faster")),
        ("latency", 0.2, 0.2, ("0.20 ms", "0.20 ms", "same")),
        ("val_acc", 0.9234, 0.9012, ("0.9234", "0.9012", f"{MINUS}0.0222")),
        ("val_loss", -1, 0.5, (f"{MINUS}1", "0.5", "+1.5")),
        ("params", None, 130000, ("-", "0.13 M", "-")),
        ("latency", 3.2, float("nan"), ("3.2 ms", "-", "-")),
        ("val_acc", None, None, ("-", "-", "-")),
        ("params", 0, 5, ("0", "5", "-")),
        ("val_loss", float("inf"), 1.0, ("inf", "1", f"{MINUS}inf")),
        ("val_loss", float("inf"), float("inf"), ("inf", "inf", "-")),
        ("latency", float("inf"), 1.0, ("inf", "1.0 ms", "-")),
    ],
)
def test_values_in_the_units_of_the_field(name, before, after, expected):
    assert row(name, before, after) == expected


ROWS = {
    "params": (272474, 130000),
    "MACs": (41e6, 19e6),
    "size on disk": (1.1e6, None),
    "latency": (3.2, 1.5),
    "acc": (0.92, 0.91),
}


def test_columns_are_aligned_on_a_console():
    lines = before_after_table(ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert {tuple(i for i, c in enumerate(line) if c == "|") for line in lines} == {
        tuple(i for i, c in enumerate(lines[0]) if c == "|")
    }


def test_tensorboard_shows_it_as_a_table():
    plugin_util = pytest.importorskip("tensorboard.plugin_util")
    html = plugin_util.markdown_to_safe_html(before_after_table(ROWS))
    assert html.count("<tr>") == 6
    assert html.count("<td>") == 4 * 5
    assert "2.1x fewer" in html


def test_a_table_without_rows_is_its_header():
    assert markdown_table(["a", "bc"], []) == "| a | bc |\n|:--|---:|"
