import pytest

from lit_xai.render import RankedItem, RankedUser, figure_to_rgb, ranking_figure

PARTS = {"user": -0.2, "item": 0.5, "match": 0.1, "history": 0.25, "seen": -0.1, "genres": 0.0}


def users(names=("Alien (1979)",), parts=PARTS, note="history: Aliens (1986) +0.12"):
    return [RankedUser("user 7", [RankedItem(name, "4.61", parts, note) for name in names], "18 ratings in training")]


def bars(figure):
    from matplotlib.patches import Rectangle

    return [one for one in figure.axes[0].patches if isinstance(one, Rectangle) and one.get_height() == 20]


def test_bars_are_as_long_as_their_parts_and_stacked_from_zero_by_sign():
    found = bars(ranking_figure(users()))
    widths = [bar.get_width() for bar in found]
    per_unit = widths[1] / 0.5
    assert widths == pytest.approx([per_unit * part for part in PARTS.values()])
    zero = found[0].get_x()
    assert found[1].get_x() == pytest.approx(zero)
    assert found[2].get_x() == pytest.approx(zero + widths[1])
    assert found[4].get_x() == pytest.approx(zero + widths[0])


def test_each_part_has_one_color_in_all_rows():
    found = bars(ranking_figure(users(["Alien", "Heat"])))
    colors = [bar.get_facecolor() for bar in found]
    assert colors[:6] == colors[6:]
    assert len(set(colors)) == 6


@pytest.mark.parametrize(
    "parts",
    [
        PARTS,
        {"item": 0.5},
        {"item": -0.5, "user": -0.1},
        {"item": 0.0},
        {f"a part with a long name {k}": 0.1 for k in range(7)},
    ],
)
@pytest.mark.parametrize("note", ["", "history: The Englishman Who Went… +0.12, Star Wars (1977) \N{MINUS SIGN}0.05"])
def test_it_is_legible(parts, note, assert_legible):
    title = "Englishman Who Went Up a Hill, But Came Down a Mountain, The (1995)"
    figure = ranking_figure(users([title, "Heat"], parts, note) * 2, "Recommended, and why: epoch 7", "score less 3.37")
    assert_legible(figure)
    assert figure_to_rgb(figure).shape[1] == 700


@pytest.mark.parametrize("title", ["The Usual Suspects (1995)", "It's a Wonderful Life (1946)"])
def test_a_title_of_usual_length_is_whole(title, words_of):
    assert title in words_of(ranking_figure(users([title])))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="users expected one or more with recommended items"):
        ranking_figure([RankedUser("user 7")])
    with pytest.raises(ValueError, match="users expected items of at most 7 kinds of parts"):
        ranking_figure(users(parts=dict.fromkeys("abcdefgh", 0.1)))
