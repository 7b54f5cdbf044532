"""One pixel, token, cell or query of each sample: chosen as said, and explained as a network that returns it alone."""

import captum.attr
import lightning.pytorch as L
import numpy as np
import pytest
import torch
from captum_methods import METHODS, options
from dense_networks import DENSE, DETR, DeepLab, Detector, UNet, images
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import AttributionMonitor
from lit_xai.attribution.attribution import attribute
from lit_xai.attribution.elements import choose_elements, flat_index, read_form
from lit_xai.attribution.explanation import explain
from lit_xai.attribution.methods import attribute_parameters
from lit_xai.network.outputs import Found

X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def segmenter():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()


class OnlyThis(nn.Module):
    """The independent witness: a network that returns the chosen element of one sample and nothing else."""

    def __init__(self, network, index):
        super().__init__()
        self.network, self.index = network, index

    def forward(self, x):
        return self.network(x)[(slice(None), *self.index)]


# LRP knows no wrapper's forward that indexes, FeaturePermutation swaps values between samples.
ALONE = [name for name in METHODS if name not in ("LRP", "LayerLRP", "FeaturePermutation")]


@pytest.mark.parametrize("name", ALONE)
def test_every_method_explains_the_element_as_if_there_were_no_others(name):
    network, given_options = segmenter(), options(name)
    labels = torch.randint(3, (3, 6, 6), generator=torch.Generator().manual_seed(1))
    found = explain(network, X, labels, **given_options)
    assert found.targets.shape == (3, 3)
    if "target" not in attribute_parameters(getattr(captum.attr, name)):
        return
    drawn = name in ("Lime", "KernelShap") or "Shap" in name  # by samples: others are drawn for one than for three
    for i, index in enumerate(found.targets.tolist()):
        alone = dict(given_options)
        alone["layer"] = f"network.{alone['layer']}" if "layer" in alone else None
        expected = attribute(OnlyThis(network, index), X[i : i + 1], **alone)
        value = found.attributions[""][i : i + 1]
        assert value.shape == expected.shape
        if not drawn:
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_indices_are_those_of_captum():
    network, targets = segmenter(), [(0, 1, 2), (2, 5, 5), (1, 0, 3)]
    expected = captum.attr.IntegratedGradients(network).attribute(X, target=targets, n_steps=8)
    found = attribute(network, X, target=torch.tensor(targets), attribute_args={"n_steps": 8})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("index", "words"),
    [([[3, 0, 0]], "indices of an output of shape (3, 6, 6), but got (3, 0, 0)"), ([[0, 0]], "an index of 3 numbers")],
)
def test_indices_that_there_are_not(index, words):
    with refused(words):
        attribute(segmenter(), X[:1], target=torch.tensor(index))
    with refused(words):
        explain(segmenter(), X[:1], elements=torch.tensor(index))


def test_a_class_alone_does_not_choose_a_pixel():
    with refused("one row of logits per sample", "target=, indices (N, k)"):
        attribute(segmenter(), X, target=1)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_choice_is_the_best_of_those_that_may_be_chosen(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=3))
    classes = data.draw(st.integers(2, 4))
    logits = torch.randn(2, classes, *sizes, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    inputs = torch.zeros(2, 1, *sizes)
    labels = torch.tensor(data.draw(st.lists(st.integers(-1, classes), min_size=2 * 5**3, max_size=2 * 5**3)))
    labels = labels[: 2 * int(np.prod(sizes))].reshape(2, *sizes)
    chosen = choose_elements(Found(logits), logits, nn.Identity(), inputs, labels)
    chances = logits.log_softmax(1)
    for i, index in enumerate(chosen.index.tolist()):
        own = [
            float(chances[(i, int(labels[(i, *place)]), *place)])
            for place in np.ndindex(*sizes)
            if 0 <= labels[(i, *place)] < classes
        ]
        assert float(chances[(i, *index)]) == pytest.approx(max(own) if own else float(chances[i].max()))
        assert torch.equal(chosen.logits[i], logits[(i, slice(None), *index[1:])])
        assert int(chosen.labels[i]) == int(labels[(i, *index[1:])])
    assert flat_index(chosen.index, tuple(logits.shape[1:])).tolist() == [
        int(np.ravel_multi_index(index, logits.shape[1:])) for index in chosen.index.tolist()
    ]


@pytest.mark.parametrize(
    ("shape", "inputs", "labels", "place", "class_dim"),
    [
        ((2, 5, 7), torch.zeros(2, 3, 7), None, "position", 1),  # a series
        ((2, 5, 7), torch.zeros(2, 5, 3), None, "token", -1),  # features last
        ((2, 5, 7), torch.zeros(2, 5, dtype=torch.int64), None, "token", -1),
        ((2, 5, 7), torch.zeros(2, 9), torch.zeros(2, 7, dtype=torch.int64), "position", 1),  # as the labels say
        ((2, 5, 7), torch.zeros(2, 9), torch.zeros(2, 5, dtype=torch.int64), "token", -1),
        ((2, 5, 7), torch.zeros(2, 9), None, "token", -1),
        ((2, 5, 8, 6), torch.zeros(2, 3, 8, 6), None, "pixel", 1),
        ((2, 5, 8, 6, 4), torch.zeros(2, 1, 8, 6, 4), None, "pixel", 1),
        ((2, 8, 6, 5), torch.zeros(2, 3, 8, 6), torch.zeros(2, 8, 6, dtype=torch.int64), "pixel", -1),
    ],
)
def test_forms(shape, inputs, labels, place, class_dim):
    logits = torch.zeros(shape)
    form = read_form(Found(logits), logits, nn.Identity(), inputs, labels)
    assert (form.place, form.class_dim) == (place, class_dim)


def test_padding_is_not_chosen_and_neither_are_tokens_without_a_label():
    logits = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 4:] += torch.tensor([50.0, 0, 0, 0])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2)
    inputs = {"input_ids": torch.ones(2, 6, dtype=torch.int64), "attention_mask": mask}
    assert choose_elements(Found(logits), logits, nn.Identity(), inputs).index[:, 0].max() < 4
    labels = torch.full((2, 6), -100)
    labels[:, 2] = 3
    chosen = choose_elements(Found(logits), logits, nn.Identity(), inputs, labels)
    assert chosen.index.tolist() == [[2, 3], [2, 3]]


def test_a_class_of_the_whole_sample_is_explained_where_it_scores_best():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    chosen = choose_elements(Found(logits), logits, nn.Identity(), torch.zeros(2, 3, 4, 4), torch.tensor([2, 0]))
    best = logits.log_softmax(1)[[0, 1], [2, 0]].flatten(1).argmax(1)
    assert chosen.index.tolist() == [[2, int(best[0]) // 4, int(best[0]) % 4], [0, int(best[1]) // 4, int(best[1]) % 4]]
    assert chosen.labels.tolist() == [2, 0]


def test_labels_finer_than_the_output_are_read_at_the_middle_of_each_cell():
    logits, labels = torch.randn(1, 3, 2, 2), torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 6, 2] = 2
    logits[0, :, 1, 0] = torch.tensor([0.0, 0.0, 9.0])
    chosen = choose_elements(Found(logits), logits, nn.Identity(), torch.zeros(1, 3, 8, 8), labels)
    assert (chosen.index.tolist(), chosen.labels.tolist()) == ([[2, 1, 0]], [2])


@pytest.mark.parametrize("positive", [True, False])
def test_one_output_for_each_pixel(positive):
    logits, labels = torch.randn(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 1, 2] = int(positive)
    chosen = choose_elements(Found(logits), logits, nn.Identity(), torch.zeros(1, 3, 4, 4), labels)
    best = int(logits.argmax())
    assert chosen.index.tolist() == [[0, 1, 2] if positive else [0, best // 4, best % 4]]
    assert torch.equal(chosen.labels, torch.tensor([int(positive)]))
    same = choose_elements(Found(logits), logits, nn.Identity(), torch.zeros(1, 3, 4, 4), labels[:, None].float())
    assert torch.equal(same.index, chosen.index)


@pytest.mark.parametrize(
    ("name", "place"), [("yolo", "cell"), ("u-net", "pixel"), ("deeplab", "pixel"), ("detr", "query")]
)
@pytest.mark.parametrize("target", ["prediction", 1])
def test_usual_networks(name, place, target):
    torch.manual_seed(0)
    network = DENSE[name]().eval()
    found = explain(network, images(), target=target, method="Saliency")
    assert found.form.place == place
    assert found.logits.shape == (2, 5)
    assert [words.split()[0] for words in found.places()] == [place] * 2
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    chosen = found.logits.argmax(1) if target == "prediction" else torch.ones(2, dtype=torch.int64)
    channel = found.targets[:, -1] if place == "query" else found.targets[:, 0] - (4 if place == "cell" else 0)
    assert torch.equal(channel, chosen)


def test_the_box_of_a_query_is_the_one_that_it_predicts():
    torch.manual_seed(0)
    network, x = DETR().eval(), images(1)
    found = explain(network, x, target="prediction", method="Saliency")
    cx, cy, width, height = network(x)["pred_boxes"][0, found.targets[0, 0]].detach().tolist()
    edges = (cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2)
    assert found.boxes[0].tolist() == pytest.approx([min(max(edge, 0), 1) for edge in edges])


def test_the_box_of_a_cell_is_on_its_scale():
    torch.manual_seed(0)
    network, x = Detector().eval(), images(1)
    found = explain(network, x, target="prediction", method="Saliency")
    maps = [level[:, 4:].detach() for level in network(x)]
    scale = max(range(3), key=lambda i: float(maps[i].max()))
    y, column = np.unravel_index(int(maps[scale].amax(1).argmax()), maps[scale].shape[2:])
    assert found.places() == [f"cell ({y}, {column}) of scale {scale}"]
    side = maps[scale].shape[-1]
    assert found.boxes[0].tolist() == pytest.approx([y / side, column / side, (y + 1) / side, (column + 1) / side])


class Segmentation(L.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, _):
        result = self(batch[0])
        return F.cross_entropy(result["out"] if isinstance(result, dict) else result, batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def fit(folder, monitor, network, epochs=2, ckpt_path=None):
    x = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    trainer = L.Trainer(
        max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[monitor],
    )  # fmt: skip
    trainer.fit(Segmentation(network), DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 4), ckpt_path=ckpt_path)
    return trainer


def read(folder, monitor, epoch):
    return np.load(folder / "attribution" / monitor.name / f"epoch={epoch}" / "attributions.npz")


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("build", [UNet, DeepLab])
def test_a_segmenter_is_explained_at_the_same_pixels_in_every_epoch_of_a_resumed_run(build, tmp_path):
    L.seed_everything(0)
    network = build(2)
    monitor = AttributionMonitor("InputXGradient", probe=3)
    trainer = fit(tmp_path, monitor, network)
    first, second = read(tmp_path, monitor, 0), read(tmp_path, monitor, 1)
    assert first["targets"].shape == (3, 3)
    assert first["logits"].shape == (3, 2)
    assert np.array_equal(first["targets"], second["targets"])
    for i, (label, *place) in enumerate(first["targets"]):
        assert first["labels"][(i, *place)] == label
    path = trainer.checkpoint_callback.best_model_path
    again = AttributionMonitor("InputXGradient", probe=3)
    fit(tmp_path / "again", again, build(2), epochs=3, ckpt_path=path)
    assert np.array_equal(read(tmp_path / "again", again, 2)["targets"], first["targets"])


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_title_says_what_is_explained(tmp_path, monkeypatch):
    titles = []
    L.seed_everything(0)
    from lit_xai.attribution import evaluation

    monkeypatch.setattr(
        evaluation, "report", lambda trainer, found, *_: titles.append((found.title, found.explanation.places()))
    )
    monkeypatch.setattr("lit_xai.attribution.callback.report", evaluation.report)
    fit(tmp_path, AttributionMonitor("Saliency", probe=2), UNet(2), epochs=1)
    fit(tmp_path, AttributionMonitor("Saliency", probe=1, class_names=["sky", "road"], target=1), UNet(2), epochs=1)
    assert titles[0][0] == "Saliency, target: label at each sample's top pixel"
    assert titles[1][0] == f"Saliency, target: 1, top {titles[1][1][0]} of class road"
