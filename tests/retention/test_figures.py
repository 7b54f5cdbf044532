"""Figures of a run: which samples, on which scale, and that they end nothing."""

import pytest
import torch
from matplotlib.figure import Figure

import lit_xai.render
from lit_xai.attribution.evaluation import DataInfo
from lit_xai.render import retention_figure
from lit_xai.retention.figures import MOST, BothMaps, Figures


class NoLoggers:
    loggers = ()


def maps(n=40, shape=(1, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    before, now, inputs = torch.randn(3, n, *shape, generator=generator)
    logits = torch.zeros(2, n, 3)
    logits[0, :, 0] = 1
    logits[1, range(n), [int(i % 4 == 0) for i in range(n)]] = 1
    similarity = torch.rand(n, generator=generator)
    return BothMaps(inputs, {"": before}, {"": now}, similarity, *logits, torch.zeros(n).long())


def test_the_gallery_has_flips_and_apart_from_them_what_changed_most():
    both = maps()
    flipped, changed = both.groups().values()
    assert len(flipped) == len(changed) == MOST
    assert all(i % 4 == 0 for i in flipped)
    assert all(i % 4 for i in changed)
    rest = [i for i in range(40) if i % 4 and i not in changed]
    assert both.similarity[changed].max() <= both.similarity[rest].min()
    assert "8 of 10 flipped" in next(iter(both.groups()))


def test_one_flip_is_a_prediction():
    assert list(maps(n=3).groups()) == ["flipped: 1 flipped prediction", "changed: 2 equal predictions, most changed"]


def test_a_regression_has_no_flips():
    both = maps()
    one = BothMaps(
        both.inputs, both.reference, both.present, both.similarity, both.logits[:, 0], both.logits[:, 1], None
    )
    assert not one.flipped.any()
    assert [len(places) for places in one.groups().values()] == [0, MOST]
    assert list(one.groups())[1] == "changed: 8 of 40 samples, most changed"


@pytest.mark.parametrize(("shape", "rows"), [((1, 8, 8), MOST), ((3, 40), MOST), ((12,), 40)])
def test_figures_share_samples_and_scale(shape, rows, tmp_path, monkeypatch):
    drawn = []

    def spy(inputs, reference, present, **options) -> Figure:
        drawn.append((inputs, options))
        return retention_figure(inputs, reference, present, **options)

    monkeypatch.setattr(lit_xai.render, "retention_figure", spy)
    figures = Figures("IG · reference: dense", tmp_path, DataInfo())
    both = maps(shape=shape)
    figures.evaluation(NoLoggers(), both, "epoch 3", 10)
    later = BothMaps(both.inputs, both.reference, {"": 9 * both.present[""] ** 3}, *list(vars(both).values())[3:])
    figures.evaluation(NoLoggers(), later, "epoch 4", 20)
    figures.gallery(NoLoggers(), later, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "changed.png",
        "epoch=3.png",
        "epoch=4.png",
        "flipped.png",
    ]
    assert len({options["limit"] for _, options in drawn}) == 1
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][0], both.inputs[:rows])


def test_the_figure_of_each_input_names_it(tmp_path, monkeypatch):
    titles = []

    def spy(*args, title, **options) -> Figure:
        titles.append(title)
        return retention_figure(*args, title=title, **options)

    monkeypatch.setattr(lit_xai.render, "retention_figure", spy)
    both = maps(shape=(5,))
    parts = [{"history": one, "genres": one} for one in (both.inputs, both.reference[""], both.present[""])]
    several = BothMaps(*parts, *list(vars(both).values())[3:])
    Figures("IG · reference: dense", tmp_path, DataInfo()).evaluation(NoLoggers(), several, "epoch 3", 10)
    assert titles == [f"IG · reference: dense, input: {name}\nepoch 3" for name in ("history", "genres")]
