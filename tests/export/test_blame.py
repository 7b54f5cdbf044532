"""Which layer costs the accuracy: named first on networks with a planted one, with the line that helps."""

import json
import math

import pytest
import torch
import yaml
from planted_layers import Normalized, Plain, accuracy, digits, plant_, trained
from witness import digest, module_state, rng_state

from lit_xai.export import blame as export_module
from lit_xai.export import export_model
from lit_xai.export.blame import chance_of
from lit_xai.export.layer_blame import BlamedLayer, LayerBlame
from lit_xai.export.parity import Parity
from lit_xai.quantization.float_layers import FloatLayers
from lit_xai.quantization.quantization import quantize

OPTIONS = {"program": False, "progress": False, "batch_sizes": (1,), "overwrite": True}


def export(network, folder, loader=None, **options):
    ptq = quantize(network, digits()[0], progress=False, **options.pop("scheme", {}))
    return export_model(network, loader or digits()[1], folder, ptq=ptq, **{**OPTIONS, **options})


def line(text):
    """Return the line to paste in a text."""
    return text[text.index("ignored_layers=") :].split("]")[0] + "]"


@pytest.mark.parametrize(
    ("make", "layer", "following", "helps"),
    [(Normalized, "deep", "norm", ["deep"]), (Plain, "stem", "deep", ["stem", "deep"]), (Plain, "wide", "last", None)],
)
def test_the_planted_layer_is_named_first_with_what_helps(make, layer, following, helps, tmp_path):
    network, helps = plant_(trained(make), layer, following), helps or [layer, following]
    blame = export(network, tmp_path).blame
    assert blame.ranked[0].name == layer
    assert str(blame).startswith(f"Integers cost accuracy (accuracy {blame.quantized:.4g} in int8")
    assert f"The worst layer is {layer!r}: with it alone in integers" in str(blame)
    # Pasted as Python and as YAML, it gives back what was lost.
    ignored = eval(f"dict({line(str(blame))})")["ignored_layers"]
    assert yaml.safe_load(line(str(blame)).replace("=", ": ", 1)) == {"ignored_layers": ignored}
    assert set(ignored) == set(helps)
    better = quantize(network, digits()[0], ignored_layers=ignored, progress=False)
    assert accuracy(better) >= accuracy(network) - blame.chance
    assert blame.reference == pytest.approx(accuracy(network))
    report = (tmp_path / "report.md").read_text()
    assert str(blame) in report
    assert blame.table().splitlines()[2].split("|")[1].strip() == layer
    assert blame.table() in (tmp_path / "layers.md").read_text()
    layers = json.loads((tmp_path / "report.json").read_text())["layers"]
    assert set(layers["ignored_layers"]) == set(helps)
    assert (tmp_path / "layers.png").stat().st_size > 1000


def test_each_alone_in_float_has_the_metric_of_the_network_quantized_so(tmp_path):
    network = plant_(trained(Normalized), "deep", "norm")
    layers = {one.name: one for one in export(network, tmp_path).blame.layers}
    assert [*layers] == ["stem", "deep", "wide", "head"]
    for name, one in layers.items():
        expected = quantize(network, digits()[0], ignored_layers=[name], progress=False)
        # Ranges that a layer in float leaves to its neighbours are of other data than those of calibration.
        assert one.value == pytest.approx(accuracy(expected), abs=0.02)
    assert layers["deep"].value > layers["stem"].value + 0.3


def test_where_nothing_is_lost_there_is_nothing_to_paste(tmp_path):
    report = export(trained(Plain), tmp_path)
    assert report.blame.is_lossless
    assert "No layer costs accuracy" in str(report)
    assert "ignored_layers" not in str(report.blame)
    assert all(one.value is None and one.alone > 20 and one.snr > 20 for one in report.blame.layers)


def test_without_labels_the_noisiest_is_named_and_nothing_promised(tmp_path):
    blame = export(trained(Plain), tmp_path, [x for x, _ in digits()[1]], scheme={"bits": {"wide": 2}}).blame
    assert str(blame).startswith("The noisiest layer in integers is 'wide'")
    assert "nobody knows whether that matters" in str(blame)


def test_a_metric_of_unknown_direction_is_not_searched_for(tmp_path):
    network = plant_(trained(Normalized), "deep", "norm")
    blame = export(network, tmp_path, metric=lambda logits, labels: float((logits.argmax(1) == labels).sum())).blame
    assert not blame.is_lossless
    assert 'ignored_layers=["deep"]' in str(blame)
    assert blame.fewest is None


def test_networks_and_generators_are_left_alone(tmp_path):
    network = plant_(trained(Normalized), "deep", "norm")
    ptq = quantize(network, digits()[0], progress=False)
    before = [digest(module_state(one)) for one in (network, ptq)], digest(rng_state())
    export_model(network, digits()[1], tmp_path, ptq=ptq, **OPTIONS)
    assert ([digest(module_state(one)) for one in (network, ptq)], digest(rng_state())) == before


def test_it_says_the_same_twice(tmp_path):
    network = plant_(trained(Plain), "deep", "wide")
    assert export(network, tmp_path / "a").blame.to_dict() == export(network, tmp_path / "b").blame.to_dict()


def test_a_failure_is_a_warning_of_one_line_and_the_export_is_whole(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(export_module, "blame_layers", fail)
    report = export(trained(Plain), tmp_path)
    assert report.blame is None
    assert "Which layer costs most is unknown (RuntimeError: no)." in report.warnings
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith(".")) == sorted(
        ["infer.py", "model.int8.onnx", "model.onnx", "report.json", "report.md"]
    )


def test_it_is_left_out_where_it_is_not_wanted(tmp_path):
    report = export(trained(Plain), tmp_path, blame=False)
    assert report.blame is None
    assert not (tmp_path / "layers.md").exists()


def test_in_words():
    blame = LayerBlame(
        (BlamedLayer("a", 30.0, 1.0), BlamedLayer("b", 20.0, 2.0)),
        reference=0.9,
        quantized=0.5,
        fewest=FloatLayers(("a",), 0.7, 0.9, 0.5, 0.01, "accuracy", is_complete=False),
        seconds=30,
    )
    assert str(blame).endswith(
        'To leave it in float, which reaches accuracy 0.7, the best that was found within 30 s: ignored_layers=["a"].'
    )
    assert "With no layer in float" in str(
        LayerBlame(blame.layers, reference=0.9, quantized=0.5, fewest=FloatLayers((), 0.5, 0.9, 0.5, 0.01))
    )
    assert str(LayerBlame(())) == "No layer of the int8 file computes in integers."


def test_chance_against_a_simulation():
    """Of two equally good networks, the accuracies differ by no more in 95% of the cases."""
    torch.manual_seed(0)
    changed, n = 30, 1000
    differences = (torch.randint(0, 2, (4000, changed)) * 2 - 1).sum(1).abs() / n
    share = (differences <= chance_of(Parity(n, n, n - changed, 0.0, 0.0))).float().mean()
    assert 0.93 <= float(share) <= 0.98
    assert chance_of(Parity(5, 0, 0, 0.0, 0.0)) == 0.0


def test_json_has_no_infinity():
    blame = LayerBlame((BlamedLayer("a", math.inf, -math.inf),), reference=0.5, quantized=0.5)
    assert json.loads(json.dumps(blame.to_dict(), allow_nan=False))["layers"][0]["snr"] is None
    assert "no noise" in blame.table()
    assert "no signal" in blame.table()
