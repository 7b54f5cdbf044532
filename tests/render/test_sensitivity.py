import numpy as np
import pytest
import torch
from blindness import BLINDNESS

from lit_xai.pruning.sensitivity import Sensitivity
from lit_xai.quantization.sensitivity import QuantizationSensitivity
from lit_xai.render import save_png, sensitivity_figure
from lit_xai.render.sensitivity import _ink_on, _scale, luminance


def made(values, layers=None, ratios=None, dense=0.9, **options):
    values = torch.as_tensor(values, dtype=torch.float64)
    layers = layers or tuple((f"layer{i}.conv",) for i in range(len(values)))
    ratios = ratios or tuple((j + 1) / 10 for j in range(values.shape[1]))
    return Sensitivity(layers, ratios, values, dense, **options)


def cells(figure):
    return [p for p in figure.axes[0].patches if p.get_height() > 20]


BERT = tuple((f"model.bert.encoder.layer.{i}.attention.self.query", "other") for i in range(12))
CASES = {
    "one": made([[0.5]]),
    "sixty": made(np.linspace(0.1, 0.9, 240).reshape(60, 4)),
    "many ratios": made(np.linspace(0.1, 0.9, 36).reshape(3, 12)),
    "long names": made(np.linspace(0.1, 0.9, 48).reshape(12, 4), BERT),
    "large": made([[1234.5, 98765.4], [3.0, 1e7]], dense=2.5, higher_is_better=False, metric="MeanSquaredError"),
    "tiny": made([[1e-7, 3e-9]], dense=2e-7),
    "no loss at all": made([[0.9, 0.9]]),
    "better": made([[0.95, 0.91]]),
    "bits": QuantizationSensitivity((("conv1",), ("fc",)), (8, 4, 2), torch.rand(2, 3), 0.9),
    "many bits": QuantizationSensitivity(
        tuple(names[:1] for names in BERT), (8, 7, 6, 5, 4, 3, 2), torch.linspace(0.1, 0.9, 84).reshape(12, 7), 0.9
    ),
    "a long metric": made([[0.5]], metric="MulticlassAveragePrecisionOfAllClasses"),
}


@pytest.mark.parametrize("title", ["", "ResNet-20 on CIFAR-10 · GroupMagnitudeImportance · 512 samples"])
@pytest.mark.parametrize("name", CASES)
def test_every_word_is_legible(name, title, assert_legible, tmp_path):
    figure = sensitivity_figure(CASES[name], title)
    assert_legible(figure)
    assert save_png(figure, tmp_path / "sensitivity.png").stat().st_size > 1000
    assert len(cells(figure)) == CASES[name].values.numel()


def test_cells_hold_the_drop_and_the_words_what_it_is(words_of):
    figure = sensitivity_figure(made([[0.90, 0.88], [0.93, 0.40]], (("a",), ("b", "c")), (0.1, 0.125), metric="acc"))
    words = words_of(figure)
    assert {"0.000", "0.020", "\N{MINUS SIGN}0.030", "0.500", "10%", "12.5%", "a", "b +1"} <= set(words)
    assert {"dense acc 0.9", "drop of acc from dense", "channels removed from the layer"} <= set(words)


def test_of_quantisation_columns_are_bits(words_of):
    values = torch.tensor([[0.90, 0.40]], dtype=torch.float64)
    words = words_of(sensitivity_figure(QuantizationSensitivity((("a",),), (8, 4), values, 0.9, metric="acc")))
    assert {"8", "4", "a", "0.000", "0.500", "bits of the layer's weights"} <= set(words)
    assert {"float acc 0.9", "drop of acc from float"} <= set(words)
    assert not any("%" in word or "dense" in word for word in words)


def test_where_lower_is_better_a_rise_is_what_is_drawn(words_of):
    figure = sensitivity_figure(made([[0.5, 1.9]], dense=0.4, higher_is_better=False, metric="loss"))
    assert {"0.10", "1.50", "rise of loss from dense"} <= set(words_of(figure))
    shades = [luminance(cell.get_facecolor()) for cell in cells(figure)]
    assert shades[0] > 0.5 > shades[1]


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_more_loss_is_darker_to_every_eye(blindness):
    scale = _scale(np.array([0.0, 1.0]))
    linear = np.asarray(scale.to_rgba(np.linspace(0, 1, 20)))[:, :3] ** 2.2
    seen = np.clip(linear @ np.transpose(BLINDNESS[blindness]), 0, 1)
    assert (np.diff(seen @ [0.2126, 0.7152, 0.0722]) < 0).all()


def test_numbers_stand_out_from_their_cells():
    scale = _scale(np.array([0.0, 1.0]))
    for color in scale.to_rgba(np.linspace(-0.5, 1, 200)):
        ink = 1.0 if _ink_on(color) == "white" else 0.0
        light, dark = max(ink, luminance(color)), min(ink, luminance(color))
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA
