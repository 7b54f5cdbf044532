import numpy as np
import pytest

from lit_xai.render import attribution_figure, figure_to_rgb


def tiles(figure):
    """The drawn pixels of every tile, input and map in turn, as they are on the page."""
    rgb = figure_to_rgb(figure).astype(int)
    boxes = [[round(edge) for edge in image.get_extent()] for image in figure.axes[0].images]
    return [rgb[top + 2 : bottom - 2, left + 2 : right - 2] for left, right, bottom, top in boxes]


def one_map(value, side=8):
    """A map whose left half is ``value`` and whose right half is nothing."""
    attributions = np.zeros((1, 1, side, side))
    attributions[..., : side // 2] = value
    return attributions


@pytest.mark.parametrize("value", [1e-3, 40.0])
def test_red_speaks_for_the_class_blue_against_and_white_is_nothing(value):
    white = np.ones((1, 1, 8, 8))
    for_it, against = (tiles(attribution_figure(white, one_map(sign * value), limit=0.05))[1] for sign in (1, -1))
    half = for_it.shape[1] // 2 - 4
    assert (for_it[:, :half, 0] > for_it[:, :half, 2] + 60).all()
    assert (against[:, :half, 2] > against[:, :half, 0] + 60).all()
    for tile in (for_it, against):
        assert (tile[:, -half:] > 240).all()


def test_color_grows_with_the_share_up_to_the_limit():
    shares = np.array([0.0, 0.01, 0.02, 0.03, 0.04])
    attributions = np.zeros((1, 1, 8, 8))
    attributions[0, 0, 0, :5] = shares
    attributions[0, 0, 7, 7] = 1 - shares.sum()
    map_tile = tiles(attribution_figure(np.ones((1, 1, 8, 8)), attributions, limit=0.03))[1]
    side = map_tile.shape[1] / 8
    green = [int(map_tile[10, int((k + 0.5) * side), 1]) for k in range(5)]
    assert green[0] > green[1] > green[2] > green[3] == green[4]


def test_one_limit_means_one_color_in_every_figure(rng):
    white = np.ones((1, 1, 8, 8))
    first, second = rng.normal(size=(2, 1, 1, 8, 8))
    for attributions in (first, second):
        attributions[0, 0, 0, 0] = 0
        attributions[0, 0, 0, 0] = 0.1 / 0.9 * np.abs(attributions).sum()  # a tenth of the map's total
    figures = [attribution_figure(white, attributions, limit=0.2) for attributions in (first, second)]
    corners = [tiles(figure)[1][5, 5] for figure in figures]
    assert (corners[0] == corners[1]).all()
    bars = [figure_to_rgb(figure)[-96:] for figure in figures]
    assert (bars[0] == bars[1]).all()


def test_the_input_is_drawn_as_the_camera_saw_it(rng):
    pixels = rng.random((1, 3, 4, 4))
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    normalized = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    tile = tiles(attribution_figure(normalized, pixels, mean=mean, std=std))[0]
    side = tile.shape[0] / 4
    drawn = np.array([[tile[int((i + 0.5) * side), int((j + 0.5) * side)] for j in range(4)] for i in range(4)])
    assert np.abs(drawn - 255 * pixels[0].transpose(1, 2, 0)).max() <= 1


def test_under_an_empty_map_the_input_stays_recognizable_in_light_grey():
    image = np.full((1, 1, 8, 8), 0.9)
    image[..., 4:] = 0.1
    tile = tiles(attribution_figure(image, np.zeros_like(image)))[1]
    bright, dark = tile[5, 5], tile[5, -5]
    assert (bright > dark + 20).all()
    assert (tile.max(axis=-1) - tile.min(axis=-1) <= 1).all()
    # The note in the middle is darker; the corners are picture.
    assert (dark > 170).all()


def test_light_strokes_on_black_become_grey_ink_on_white():
    image = np.zeros((1, 1, 8, 8))
    image[..., :2] = 1
    tile = tiles(attribution_figure(image, np.zeros_like(image)))[1]
    stroke, paper = tile[5, 5], tile[5, -5]
    assert (paper > 240).all()
    assert (stroke < paper - 20).all()


def test_coarse_maps_are_laid_over_the_whole_input():
    cam = np.zeros((1, 1, 2, 2))
    cam[0, 0] = [[1, 0], [0, -1]]
    tile = tiles(attribution_figure(np.ones((1, 3, 32, 32)), cam, limit=0.002))[1]
    assert tile[5, 5, 0] > tile[5, 5, 2] + 60
    assert tile[-5, -5, 2] > tile[-5, -5, 0] + 60
    across = tile[5, :, 1]
    assert (np.diff(across) >= 0).all()  # from red to white without a step back


def test_large_images_keep_the_signs_of_fine_maps():
    # Columns of +2 and -1: averaged with their neighbours' signs, but summed, what is for the class stays in sight.
    fine = np.tile(np.array([2.0, -1.0]), (1, 1, 256, 128))
    figure = attribution_figure(np.ones_like(fine), fine)
    tile = tiles(figure)[1]
    assert (tile[..., 0] > tile[..., 2] + 20).mean() > 0.95


def test_wrong_predictions_are_marked_by_sign_and_weight(words_of):
    figure = attribution_figure(np.ones((2, 1, 8, 8)), np.ones((2, 1, 8, 8)), labels=[3, 3], predictions=[3, 4])
    predicted = [text for text in figure.axes[0].texts if text.get_text().startswith("pred")]
    assert [(text.get_text(), text.get_weight()) for text in predicted] == [
        ("pred 3 ✓", "normal"),
        ("pred 4 ✗", "bold"),
    ]
    assert words_of(figure).count("true 3") == 2


def test_verdicts_outlive_the_names_they_follow(words_of):
    names = ["a name that is much too long for its place on the page"] * 2
    figure = attribution_figure(
        *np.ones((2, 2, 1, 8, 8)), labels=[0, 1], predictions=[0, 0], probabilities=[0.5, 1.0], class_names=names
    )
    right, wrong = (words for words in words_of(figure) if words.startswith("pred"))
    assert right.endswith(" (50%) ✓")
    assert wrong.endswith(" (100%) ✗")


@pytest.mark.parametrize(("samples", "width"), [(1, 700), (2, 700), (16, 700), (17, 1400)])
def test_the_page_grows_downwards_and_beyond_sixteen_samples_sideways(samples, width):
    figure = attribution_figure(*np.ones((2, samples, 1, 8, 8)))
    assert figure.bbox.width == width
    assert len(figure.axes[0].images) == 2 * samples


@pytest.mark.parametrize("size", [(20, 90), (90, 20), (4, 30)])
def test_tiles_keep_the_shape_of_the_image(size):
    left, right, bottom, top = attribution_figure(*np.ones((2, 2, 1, *size))).axes[0].images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0], rel=0.15)
