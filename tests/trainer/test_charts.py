"""Charts as TensorBoard takes them."""

from lit_xai.trainer.charts import Chart, curve, layout


def test_a_curve_is_found_by_its_whole_name():
    assert curve("val.acc/x") == r"^val\.acc/x$"


def test_intervals_are_margins():
    charts = layout([Chart("one", ("^a$",)), Chart("two", ("a", "low", "high"), is_margin=True)])
    assert list(charts.values()) == [{"one": ["Multiline", ["^a$"]], "two": ["Margin", ["a", "low", "high"]]}]
