import numpy as np
import pytest

from lit_xai.render.curves import Curve, curves_figure

LONG = "the mean of the worst concave points of the nucleus"


def line(k, name=""):
    values = np.linspace(1e-9, 15024.0, 20)
    return Curve(
        name or f"feature {k}", values, np.sin(values / 3000) * k, np.abs(np.random.default_rng(k).normal(size=99))
    )


def bars(n, name="native country"):
    names = [f"{LONG} {k}" if k % 2 else f"c{k}" for k in range(n)]
    return Curve(name, np.arange(n), np.linspace(-2, 1, n), None, names)


@pytest.mark.parametrize(
    "curves", [[line(1)], [line(0)], [line(1, LONG), bars(2), bars(6), bars(42)], [line(k) for k in range(20)]]
)
def test_any_curves_are_legible(curves, assert_legible):
    assert_legible(curves_figure(curves, "a title", "a summary of what is drawn", ("lowers", "raises")))


def test_all_panels_have_one_scale_and_the_largest_effects_are_shown(words_of):
    figure = curves_figure([line(k) for k in range(20)])
    scales = {axes.get_ylim() for axes in figure.axes[1:]}
    assert len(scales) == 1
    assert {word for word in words_of(figure) if word.startswith("feature")} == {f"feature {k}" for k in range(8, 20)}
    assert any("12 of 20 features" in words for words in words_of(figure))


def test_values_of_a_curve_are_rounded_to_its_range(words_of):
    words = words_of(curves_figure([line(1)]))
    assert "15,000" in words
    assert "0" in words
    assert not any("e" in word and word[0].isdigit() for word in words)


def test_of_many_categories_those_of_the_largest_effect(words_of):
    words = words_of(curves_figure([bars(10)]))
    assert "c0" in words
    assert "and 4 more" in words


def test_refuses_nothing():
    with pytest.raises(ValueError, match="curves expected one or more"):
        curves_figure([])
