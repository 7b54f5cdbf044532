"""The script reads a picture as training data are read, or refuses it in one sentence."""

import io
import itertools
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from damage import damaged_bytes
from PIL import Image

from lit_xai.data.tensor_images import TensorImages
from lit_xai.export import infer_template

MEAN, STD = (0.5, 0.4, 0.3, 0.2), (0.2, 0.25, 0.3, 0.35)


@pytest.fixture
def reading(monkeypatch, tmp_path):
    """A function from a picture to the script's input for a network of so many channels."""

    def read(image, channels, suffix="png", **options):
        settings = {
            "inputs": {"input": {"shape": [channels, 8, 8], "dtype": "float32"}},
            "whole": [],
            "normalized": "input",
            "mean": MEAN[:channels],
            "std": STD[:channels],
            "not_of_bytes": {},
        }
        monkeypatch.setattr(infer_template, "SETTINGS", settings)
        path = tmp_path / f"picture.{suffix}"
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
        return infer_template.preprocess(infer_template.read(str(path))["input"], "input")

    return read


def drawn(*shape):
    return np.random.default_rng(0).integers(0, 256, (8, 8, *shape), dtype=np.uint8)


def trained_on(image, channels):
    """What a data module makes of the same picture, opened as torchvision's folders open theirs."""
    pixels = np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])).reshape(8, 8, channels)
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    dataset = TensorImages(images, torch.zeros(1, dtype=torch.long), MEAN[:channels], STD[:channels])
    return dataset[0][0][None].numpy()


PICTURES = {
    "grey": Image.fromarray(drawn()),
    "black and white": Image.fromarray(drawn()).convert("1"),
    "color": Image.fromarray(drawn(3)),
    "palette": Image.fromarray(drawn(3)).quantize(16),
    "opaque": Image.merge("RGBA", (*Image.fromarray(drawn(3)).split(), Image.new("L", (8, 8), 255))),
    "opaque grey": Image.merge("LA", (Image.fromarray(drawn()), Image.new("L", (8, 8), 255))),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_8_bits_are_read_as_in_training(name, channels, reading):
    image = PICTURES[name]
    np.testing.assert_allclose(reading(image, channels), trained_on(image, channels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "tiff"), ("CMYK", "jpg"), ("YCbCr", "tiff"), ("RGB", "webp")])
def test_other_colors(mode, suffix, reading, tmp_path):
    Image.fromarray(drawn(3)).convert(mode).save(tmp_path / f"other.{suffix}")
    with Image.open(tmp_path / f"other.{suffix}") as image:
        expected = trained_on(image, 3)
    np.testing.assert_allclose(reading((tmp_path / f"other.{suffix}").read_bytes(), 3), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "pgm"])
def test_16_bits_are_a_finer_8_bits(channels, suffix, reading):
    """The same scene in 16 bits, whose white is 65535: each byte of 8 bits becomes two equal ones."""
    grey = drawn()
    found = reading(Image.fromarray(grey.astype(np.uint16) * 257), channels, suffix)
    np.testing.assert_allclose(found, trained_on(Image.fromarray(grey), channels), rtol=1e-5, atol=1e-5)
    finer = reading(Image.fromarray(np.maximum(grey, 1).astype(np.uint16) * 257 - 100), channels, suffix)
    assert not np.array_equal(found, finer)


def test_a_turned_picture_is_turned_upright_and_told(reading, capsys):
    upright, exif = Image.fromarray(drawn()), Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_allclose(reading(turned, 1, exif=exif), trained_on(upright, 1), rtol=1e-5, atol=1e-6)
    assert capsys.readouterr().err.endswith("turned upright, as its EXIF data say\n")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def saved(image, suffix, **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


FRAMES = [Image.fromarray(drawn()), Image.fromarray(drawn()[::-1].copy())]
REFUSED = {
    "transparent": (saved(Image.fromarray(drawn(4)), "png"), "without transparent pixels"),
    "transparent in a palette": (saved(PICTURES["palette"], "png", transparency=3), "without transparent pixels"),
    "float": (saved(Image.fromarray(drawn().astype(np.float32) / 255), "tiff"), "whose white is known"),
    "32 bits": (saved(Image.fromarray(drawn().astype(np.int32)), "tiff"), "whose white is known"),
    "16 bits in TIFF": (saved(Image.fromarray(drawn().astype(np.uint16)), "tiff"), "whose white is known"),
    "animated": (saved(FRAMES[0], "gif", save_all=True, append_images=FRAMES[1:]), "it holds 2: save the one"),
    "animated PNG": (saved(FRAMES[0], "png", save_all=True, append_images=FRAMES[1:]), "it holds 2: save the one"),
    "pages": (saved(FRAMES[0], "tiff", save_all=True, append_images=FRAMES[1:]), "it holds 2: save the one"),
    "a bomb": (png(2**31 - 1, 2**31 - 1), "at most 100,000,000 pixels"),
    "a smaller bomb": (png(12_000, 12_000), "at most 100,000,000 pixels"),
    "no pixels": (png(0, 8), "cannot be read"),
    "no data": (png(8, 8), "cannot be read"),
    "cut": (saved(Image.fromarray(drawn()), "png")[:90], "cannot be read"),
    "text": (b"no picture", "cannot be read as one"),
    "nothing": (b"", "cannot be read as one"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as one"),
    # Pillow would start Ghostscript.
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n", "cannot be read as one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_right_is_refused(name, reading, capsys):
    content, expected = REFUSED[name]
    start = time.perf_counter()
    with pytest.raises(SystemExit) as end:
        reading(content, 3)
    said = str(end.value)
    assert expected in said
    assert said.endswith(".")
    assert "\n" not in said
    assert time.perf_counter() - start < 10
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp", "pgm", "jp2"])
def test_damaged_pictures(suffix, reading, tmp_path, capfd):
    """A damaged picture may still be one, of the right size and in range: nothing else, and no other exception."""
    Image.fromarray(drawn()).save(tmp_path / f"whole.{suffix}")
    said: list[str] = []
    for label, content in itertools.islice(damaged_bytes((tmp_path / f"whole.{suffix}").read_bytes(), 14), 40):
        start = time.perf_counter()
        try:
            found = reading(content, 1)
        except SystemExit as end:
            said.append(str(end))
        else:
            assert found.shape == (1, 1, 8, 8), label
            assert np.isfinite(found).all(), label
        assert time.perf_counter() - start < 10, label
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in said)
    assert len(said) > 3
    assert capfd.readouterr().out == ""


def test_numbers_far_from_training(monkeypatch, capsys):
    settings = {
        "inputs": {"image": {"shape": [1, 2, 2], "dtype": "float32"}, "row": {"shape": [3], "dtype": "float32"}},
        "whole": [],
        "normalized": None,
        "ranges": {"image": [0.0, 1.0], "row": [-2.0, 2.0]},
        "not_of_bytes": {},
    }
    image, row = np.ones((1, 1, 2, 2)), np.ones((1, 3))
    for factor in (1, 1.9, -0.9):
        infer_template.preprocess(image * factor, "image", settings)
    for factor in (255, 65535, -3):
        with pytest.raises(SystemExit, match=r"^image expected numbers as in training, 0 to 1 .* but got"):
            infer_template.preprocess(image * factor, "image", settings)
    assert capsys.readouterr().err == ""
    infer_template.preprocess(row * 100, "row", settings)  # a table may have such a row
    assert capsys.readouterr().err.startswith("row expected numbers as in training, -2 to 2")
    infer_template.preprocess(image * 100, "image", settings | {"ranges": {"image": [0.0, 0.0]}})  # an example of zeros
