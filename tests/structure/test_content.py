"""What no Trainer writes is refused by its first mistake; weights that are not finite are named."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_xai.structure.checkpoints import read_checkpoint
from lit_xai.structure.content import first_mistake, first_not_finite, tensors_in


def test_what_a_trainer_writes_has_no_mistake(tmp_path):
    trainer = Trainer(logger=False, accelerator="cpu")
    trainer.strategy.connect(BoringModel())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert not first_mistake(torch.load(tmp_path / "x.ckpt"), 10**6)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"state_dict": []}, "'state_dict' expected a dictionary, but got a value of type list"),
        ({"state_dict": {0: torch.zeros(1)}}, "'state_dict' expected strings as keys, but got 0"),
        ({"hyper_parameters": "width=8"}, "'hyper_parameters' expected a dictionary, but got 'width=8'"),
        ({"pytorch-lightning_version": "latest"}, "expected a version, but got 'latest'"),
        ({"pytorch-lightning_version": 2}, "expected a version, but got 2"),
        ({"epoch": True}, "'epoch' expected an integer, but got True"),
        ({"global_step": -1}, "expected no negative number"),
        ({"callbacks": [1]}, "'callbacks' expected a dictionary"),
        ({"optimizer_states": {}}, "'optimizer_states' expected a list"),
        ({"extra": torch.zeros(1).expand(10**9)}, r"a tensor of shape \(1000000000,\), out of proportion"),
    ],
)
def test_the_first_mistake_is_one_sentence(damage, words, tmp_path):
    torch.save({"state_dict": {}, **damage}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=f"^'.*x.ckpt' is damaged, or no checkpoint of a Lightning Trainer: .*{words}"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_containers_in_many_places_are_entered_once():
    inside = [torch.zeros(1)]
    for _ in range(60):
        inside = [inside, inside]
    inside.append(inside)
    assert len(list(tensors_in(inside))) == 1


def test_a_diverged_model_is_read_with_a_warning(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(3), "b.weight": torch.tensor([1, torch.nan])}}, tmp_path / "x.ckpt")
    with pytest.warns(UserWarning, match=r"x.ckpt' holds weights that are not finite, first in 'b.weight'"):
        assert read_checkpoint(tmp_path / "x.ckpt")


def test_masks_and_ranges_may_be_infinite():
    infinite = torch.full((2,), -torch.inf)
    assert first_not_finite({"mask": infinite, "empty": torch.zeros(0), "steps": torch.tensor(3)}) is None
    assert first_not_finite({"mask": infinite, "head.bias": infinite}) == "head.bias"
    assert first_not_finite({"mask": infinite * 0}) == "mask"
