import pytest
import torch

from lit_xai.render import attribution_figure, figure_to_rgb
from lit_xai.render.registry import choose_renderer

IDS = torch.tensor([[1, 2, 0], [2, 2, 1]])


@pytest.mark.parametrize(
    ("inputs", "attributions", "kind"),
    [
        (IDS, torch.ones(2, 3), "text"),
        (IDS.numpy(), torch.ones(2, 3, 8), "text"),
        (IDS.int(), torch.ones(2, 3, 8), "text"),
        (IDS, torch.ones(2, 4), "heatmap"),  # of a layer that shortens what it reads
        (IDS, torch.ones(2, 8, 4, 4), "heatmap"),
        (IDS.float(), torch.ones(2, 3), "tabular"),
    ],
)
def test_whole_numbers_are_texts_where_each_has_a_number(inputs, attributions, kind):
    assert choose_renderer(inputs, attributions).name == kind


def test_what_it_needs_is_told():
    with pytest.raises(ValueError, match=r"kind='text' expected integer tokens \(N, T\) and attributions"):
        choose_renderer(torch.rand(2, 3), torch.rand(2, 3), "text")


def test_texts_that_must_not_be_shown_are_strips_of_the_maps_alone(words_of):
    options = {"shows_inputs": False, "token_names": ["[PAD]", "secret", "word"]}
    figure = attribution_figure(IDS, torch.ones(2, 3), **options)
    assert len(figure.axes[0].images) == 2
    assert not {"secret", "word"} & set(words_of(figure))
    other = attribution_figure(IDS.flip(1), torch.ones(2, 3), **options)
    assert (figure_to_rgb(figure) == figure_to_rgb(other)).all()
