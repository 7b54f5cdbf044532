"""The attributes that a cut sets: sizes that follow from what it keeps, and nothing else."""

import copy

import pytest
import torch
from torch import nn

from lit_xai.models import VisionTransformer
from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.kinds import apply_step_, undo_step_
from lit_xai.structure.recipe import Recipe


class Split(nn.Module):
    """A user's module with sizes of its own, a method and a flag."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.width, self.shape, self.depth, self.is_on, self.stride = 8, (8, 1), 3, True, (1, 1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu().mean((2, 3)))


def step_of(module):
    return prune_step(module, torch.zeros(2, 1, 8, 8), pruning_ratio=0.5, round_to=1)


def everything(module):
    tensors = [(name, id(value), value.shape) for name, value in module.state_dict(keep_vars=True).items()]
    return tensors, {name: repr(sorted(vars(one).items(), key=str)) for name, one in module.named_modules()}


@pytest.mark.parametrize(
    ("attribute", "word"),
    [
        (["first", "stride", [1, 1], [2, 2]], "'stride' of 'first'"),
        (["first", "padding_mode", "zeros", "circular"], "'padding_mode' of 'first'"),
        (["first", "forward", 1, 2], "'forward' of 'first'"),
        (["norm", "eps", 1e-5, 5.0], "'eps' of 'norm'"),
        (["norm", "training", 1, 2], "'training' of 'norm'"),
        (["", "forward", 1, 2], "'forward' of ''"),
        (["", "is_on", 1, 4], "'is_on' of ''"),
        (["", "__class__", 1, 2], "'__class__' of ''"),
        (["", "_modules", 1, 2], "'_modules' of ''"),
        (["", "load_state_dict", None, None], "'load_state_dict' of ''"),
        (["", "first", 8, 4], "'first' of ''"),
        (["", "new", 8, 4], "'new' of ''"),
        (["", "width", 7, 4], "'width' of ''"),
        (["", "width", 8, 5], "does not follow"),
        (["", "depth", 3, 2], "does not follow"),
        (["", "stride", [1, 1], [2, 2]], "does not follow"),
        (["", "shape", [8, 1], [4]], "expected sizes before and after"),
        (["", "shape", [8, 1], 4], "expected sizes before and after"),
        (["first", "out_channels", True, 4], "expected sizes before and after"),
        (["first", "out_channels", 8, 0], "expected sizes before and after"),
        (["first", "out_channels", 8, 4, 4], "at most 4 values"),
        (["nowhere", "out_channels", 8, 4], "has no 'nowhere'"),
    ],
)
def test_anything_else_is_refused_by_name(attribute, word):
    module = Split()
    step = step_of(module)
    step["attributes"].append(attribute)
    before = everything(module)
    with pytest.raises(ValueError, match=word):
        Recipe.from_dict(Recipe([step]).to_dict()).replay_(module)
    assert everything(module) == before


@pytest.mark.parametrize(
    "attribute", [["", "width", 8, 4], ["", "shape", [8, 1], [4, 1]], ["", "shape", (8, 1), (4, 1)]], ids=str
)
def test_sizes_of_one_s_own_follow(attribute):
    module = Split()
    step = step_of(module)
    step["attributes"].append(attribute)
    apply_step_(module, step)
    assert vars(module)[attribute[1]] in (4, (4, 1))
    undo_step_(module, step)
    assert vars(module)[attribute[1]] in (8, (8, 1))


def test_every_attribute_that_a_cut_of_an_attention_records_is_one():
    torch.manual_seed(0)
    for heads in (2, 4):
        network = VisionTransformer(8, 4, 1, 10, dim=16, depth=1, heads=heads)
        step = prune_step(network, torch.zeros(2, 1, 8, 8), pruning_ratio=0.5)
        names = {attribute for _, attribute, *_ in step["attributes"]}
        assert {"out_channels", "in_features", "normalized_shape"} <= names
        fresh = copy.deepcopy(network)
        apply_step_(fresh, step)
        assert fresh(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("place", "index", "word"),
    [(0, 10**4, "below 8"), (0, -1, "equal to 0"), (-1, 10**4, "below"), (0, 0.5, "type int")],
)
def test_an_index_beyond_the_layer_leaves_the_module_whole(place, index, word):
    module = Split()
    step = step_of(module)
    step["kept"][place][3][-1] = index
    before = everything(module)
    with pytest.raises(ValueError, match=word):
        Recipe.from_dict(Recipe([step]).to_dict()).replay_(module)
    assert everything(module) == before
