import pytest

from lit_xai.render.canvas import Canvas
from lit_xai.render.time_axis import TimeAxis, time_ticks


@pytest.mark.parametrize("positions", [2, 3, 7, 29, 100, 999, 16_000])
def test_frames_are_whole_numbers_in_the_middles_of_their_cells(positions):
    ticks = time_ticks(positions)
    assert 1 <= len(ticks) <= 7
    assert ticks[0].words == "0"
    for tick in ticks:
        assert tick.place * positions - 0.5 == pytest.approx(int(tick.words))
        assert int(tick.words) < positions


@pytest.mark.parametrize(
    ("positions", "rate"), [(16_000, 16_000), (100, 7.5), (29, 1e-3), (44_100, 44_100.0), (3, 1e4)]
)
def test_seconds_are_where_they_pass(positions, rate):
    ticks = time_ticks(positions, rate)
    assert 3 <= len(ticks) <= 7
    for tick in ticks:
        assert float(tick.words) == pytest.approx(tick.place * positions / rate, rel=1e-9)
        assert 0 <= tick.place <= 1 + 1e-9
    assert len({tick.words for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("rate", [None, 16_000, 0.25])
def test_an_axis_is_legible_to_its_ends(rate, assert_legible, words_of):
    canvas = Canvas("a series", 120)
    axis = TimeAxis(16_000, rate)
    axis.mark(canvas, 100, canvas.top, 588)
    axis.write(canvas, 100, canvas.top, 588, "2 more samples not shown")
    figure = canvas.finish()
    assert_legible(figure)
    assert f"{axis.unit} · 2 more samples not shown" in words_of(figure)
