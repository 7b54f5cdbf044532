"""Words of several tokens are hidden whole: found where they were planted, and with the values of Captum."""

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer

from lit_xai import AttributionMonitor
from lit_xai.attribution.words import begins_word, by_words, words_of
from lit_xai.data import TextDataModule, Texts
from lit_xai.functional import attribute
from lit_xai.models import Classifier, TextTransformer
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.reference import ReferenceExplanations

LENGTH, FIRST = 16, 6
NAMES = ["[PAD]", "mar", "dre", "##vel", "##ous", "##ad", *(f"word{i}" for i in range(40))]
"""The classes are marvelous, mar##vel##ad and neither."""
PLANTED = torch.tensor([[1, 3, 4], [1, 3, 5]])


def planted(n, seed, classes=2):
    """Return texts with one word of three pieces, or none, their classes, and the place of its first piece."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST, len(NAMES), (n, LENGTH), generator=draw)
    lengths = torch.randint(8, LENGTH + 1, (n,), generator=draw)
    classes = torch.randint(classes, (n,), generator=draw)
    places = (torch.rand(n, generator=draw) * (lengths - 3)).long()
    for i, place in enumerate(places.tolist()):
        if classes[i] < 2:
            ids[i, place : place + 3] = PLANTED[classes[i]]
    mask = torch.arange(LENGTH) < lengths[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}, classes, places


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = TextTransformer(
        vocab_size=len(NAMES), num_classes=3, max_length=LENGTH, dim=16, depth=1, heads=2, dropout=0.1
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for step in range(150):
        inputs, classes, _ = planted(64, step, classes=3)
        optimizer.zero_grad()
        F.cross_entropy(network(**inputs), classes).backward()
        optimizer.step()
    return network.eval()


METHODS = {
    "Occlusion": {"sliding_window_shapes": [1]},
    "FeatureAblation": {},
    "ShapleyValueSampling": {"n_samples": 5},
    "KernelShap": {"n_samples": 60},
    "Lime": {"n_samples": 60},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_word_is_found_and_its_pieces_have_one_value(network, method):
    inputs, classes, places = planted(100, seed=10_000)
    by = by_words(method, METHODS[method], inputs, NAMES)
    found = attribute(network, inputs, method=by.method, attribute_args=by.attribute_args, target=classes, baselines=0)[
        "input_ids"
    ]
    rows = torch.arange(100)
    pieces = torch.stack([found[rows, places + k] for k in range(3)])
    assert (pieces == pieces[0]).all()
    assert (by.words[rows, found.float().argmax(1)] == by.words[rows, places]).sum() >= 95


@pytest.mark.parametrize("method", ["Occlusion", "FeatureAblation"])
def test_captum_says_the_same_of_each_text_alone(network, method):
    inputs, classes, _ = planted(6, seed=3)
    by = by_words(method, METHODS[method], inputs, NAMES)
    options = {"method": by.method, "attribute_args": by.attribute_args, "target": classes, "baselines": 0}
    found = attribute(network, inputs, **options)["input_ids"]
    oracle = captum.attr.FeatureAblation(network)
    for i in range(6):
        ids, mask = (inputs[name][i : i + 1] for name in ("input_ids", "attention_mask"))
        numbers = [[0]]
        for token in ids[0, 1:].tolist():  # the words, counted by hand
            last = ids[0, len(numbers[0]) - 1].item()
            same = NAMES[token].startswith("##") or (token == 0 and last == 0)
            numbers[0].append(numbers[0][-1] + (not same))
        words = torch.tensor(numbers)
        if (ids[0, -3:] == 0).all() or (ids != 0).all():  # one or two of padding are drawn as they are
            assert torch.equal(by.words[i : i + 1], words)
        expected = oracle.attribute(ids, 0, int(classes[i]), (mask,), feature_mask=words)
        torch.testing.assert_close(found[i : i + 1].float() * mask, expected.float() * mask, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["[PAD]", "un", "##happy", "film"], [0, 0, 1]),
        (["<pad>", "Ġun", "happy", "Ġfilm"], [0, 0, 1]),
        (["<pad>", "▁un", "happy", "▁film"], [0, 0, 1]),
        (["[PAD]", "un", "happy", "film"], [0, 1, 2]),
    ],
)
def test_words_are_joined_as_figures_join_them(names, words):
    found = words_of(torch.tensor([[1, 2, 3]]), names)
    assert found.tolist() == [words]
    assert begins_word(found)[0].tolist() == [i == 0 or words[i] != words[i - 1] for i in range(3)]


@pytest.mark.parametrize(
    ("method", "args", "inputs"),
    [
        ("Occlusion", {"sliding_window_shapes": (2,)}, torch.ones(2, 4, dtype=torch.int64)),
        ("Occlusion", {"sliding_window_shapes": (1,), "strides": (2,)}, torch.ones(2, 4, dtype=torch.int64)),
        ("Lime", {"feature_mask": torch.zeros(1, 4)}, torch.ones(2, 4, dtype=torch.int64)),
        ("FeaturePermutation", None, torch.ones(2, 4, dtype=torch.int64)),
        ("LayerIntegratedGradients", None, torch.ones(2, 4, dtype=torch.int64)),
        ("FeatureAblation", None, torch.ones(2, 4)),
        ("FeatureAblation", None, torch.ones(2, 3, 4, dtype=torch.int64)),
    ],
)
def test_other_groups_and_other_inputs_stay_as_they_are(method, args, inputs):
    assert by_words(method, args, inputs, ["[PAD]", "a"]) is None
    assert by_words("FeatureAblation", None, torch.ones(2, 4, dtype=torch.int64), None) is None


def test_of_long_texts_neighbors_are_hidden_together():
    ids = torch.arange(1, 11)[None]
    by = by_words("FeatureAblation", None, ids, [f"w{i}" for i in range(11)], most=4)
    assert by.attribute_args["feature_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3]]
    assert by.words.tolist() == [list(range(10))]


def test_similarity_counts_a_word_once(network):
    inputs, _, _ = planted(8, seed=5)
    own = ReferenceExplanations(network, inputs, Explainer("Occlusion", baselines=0, token_names=NAMES))
    torch.manual_seed(1)
    other = TextTransformer(vocab_size=len(NAMES), num_classes=3, max_length=LENGTH, dim=16, depth=1, heads=2).eval()
    compared = own.compare(other)
    once = begins_word(words_of(inputs["input_ids"], NAMES)) & (inputs["attention_mask"] > 0)
    expected = F.cosine_similarity(own.maps * once, compared.maps * once, dim=1)
    torch.testing.assert_close(compared.similarity, expected)


def test_the_monitor_hides_words_where_it_knows_them(tmp_path):
    words = ["unhappily", "unkindly", "happily", "kindly", "sadly", "madly", "badly", "gladly"]
    texts = Texts(
        [f"{a} {b} {c}" for a in words for b in words for c in words], [i % 2 for i in range(512)], ["a", "b"]
    )
    data = TextDataModule.from_texts(texts, vocab_size=30, batch_size=64)
    monitor = AttributionMonitor(
        "Occlusion", attribute_args={"sliding_window_shapes": [1]}, baselines=0, probe=4, on_error="raise"
    )
    model = Classifier(TextTransformer(vocab_size=30, dim=16, depth=1, heads=2), num_classes=2)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks = [monitor]
    Trainer(max_epochs=1, limit_train_batches=1, callbacks=callbacks, default_root_dir=tmp_path, **options).fit(
        model, data
    )
    (file,) = tmp_path.rglob("attributions.npz")
    found = np.load(file)
    maps, places = (torch.from_numpy(found[name]) for name in ("attributions", "sample_ids"))
    words = words_of(data.val_dataset.inputs[places, : maps.shape[1]], data.token_names)
    assert (words.amax(1) < maps.shape[1] - 3).all()  # of several pieces
    for row, numbers in zip(maps, words, strict=True):
        for number in numbers.unique():
            assert len(row[numbers == number].unique()) == 1
    page = next(tmp_path.rglob("figure.html")).read_text()
    assert "per word" in page
    assert ">unhappily<" in page or ">unkindly<" in page or ">gladly<" in page
