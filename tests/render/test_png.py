import os
import stat

import numpy as np
import pytest

from lit_xai.render import attribution_figure, figure_to_rgb, save_png


@pytest.fixture
def figure(rng):
    return attribution_figure(*rng.normal(size=(2, 2, 1, 28, 28)), title="Saliency · epoch 3", labels=[0, 1])


def test_the_array_is_the_page_in_three_bytes_per_pixel(figure):
    rgb = figure_to_rgb(figure)
    width, height = figure.canvas.get_width_height()
    assert rgb.dtype == np.uint8
    assert rgb.shape == (height, width, 3)
    assert rgb.flags["C_CONTIGUOUS"]
    assert (rgb[:5] == 255).all()
    assert (rgb < 100).any()


def test_the_file_holds_the_arrays_pixels_and_neither_date_nor_version(figure, tmp_path):
    from PIL import Image

    path = save_png(figure, str(tmp_path / "attribution" / "saliency" / "epoch-0003.png"))
    with Image.open(path) as image:
        assert (np.asarray(image)[..., :3] == figure_to_rgb(figure)).all()
        assert set(image.info) <= {"Software", "dpi"}
        assert image.info["Software"] == "lit_xai"


def test_the_same_input_gives_the_same_bytes(tmp_path):
    images = np.random.default_rng(3).normal(size=(3, 3, 32, 32))
    files = [save_png(attribution_figure(images, images, title="t"), tmp_path / f"{i}.png") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert save_png(attribution_figure(images, -images, title="t"), tmp_path / "2.png").read_bytes() != (
        files[0].read_bytes()
    )


def test_figures_drawn_at_twice_the_resolution_are_the_same_page(figure):
    once = figure_to_rgb(figure).astype(int)
    figure.set_dpi(200)
    twice = figure_to_rgb(figure).astype(int)
    assert twice.shape == (2 * once.shape[0], 2 * once.shape[1], 3)
    halved = (twice[::2, ::2] + twice[1::2, ::2] + twice[::2, 1::2] + twice[1::2, 1::2]) / 4
    assert np.corrcoef(halved.ravel(), once.ravel())[0, 1] > 0.9


def test_an_interrupted_write_leaves_the_old_file_and_no_rest(figure, tmp_path, monkeypatch):
    path = save_png(figure, tmp_path / "a.png")
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        (tmp_path / f".a.png.{os.getpid()}").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.image.imsave", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_png(figure, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_the_file_is_as_readable_as_any_other_of_the_user(figure, tmp_path):
    (tmp_path / "other").touch()
    path = save_png(figure, tmp_path / "a.png")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_reader_of_the_old_file_never_sees_a_half_written_one(figure, tmp_path, rng):
    path = save_png(figure, tmp_path / "a.png")
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_png(attribution_figure(*rng.normal(size=(2, 2, 5))), path)
        assert reader.read() == before
    assert path.read_bytes() != before
