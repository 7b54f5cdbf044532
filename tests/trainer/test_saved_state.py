"""Damaged states of callbacks in a checkpoint: one sentence before anything is used, or the same run."""

import copy
import itertools
import random

import pytest
import torch
from damage import damaged_values
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import (
    AttributionMonitor,
    FollowRecipe,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    StructuredPruning,
)
from lit_xai.trainer.structural_callback import StructuralCallback
from lit_xai.trainer.watched_callback import KEY

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*expected.*only observes"),
    pytest.mark.filterwarnings("ignore:.*the probe's samples differ"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used"),
    pytest.mark.filterwarnings("ignore:.*the student is ahead", "ignore:QuantizationAwareTraining continues with"),
]


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Halves(StructuralCallback):
    """A callback of somebody else's that believes its state."""

    def state(self, trainer, pl_module):
        return {"epochs": [1]}

    def load_state(self, state):
        self.epochs = [epoch + 1 for epoch in state["epochs"]]


def fit(folder, max_epochs, path=None):
    torch.manual_seed(0)
    teacher = Module()
    teacher.network = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    callbacks = [
        StructuredPruning(0.25, start_epoch=1, end_epoch=1, round_to=1, report_latency=False),
        KnowledgeDistillation("dense", alpha=0.1),
        KnowledgeDistillation("ema", alpha=0.1),
        KnowledgeDistillation(teacher, alpha=0.1, features=["network.1"], name="wide"),
        QuantizationAwareTraining(start_epoch=2),
        AttributionMonitor("Saliency", probe=2),
        Halves(),
        FollowRecipe(),
    ]
    trainer = Trainer(
        max_epochs=max_epochs,
        callbacks=callbacks,
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    module = Module()
    trainer.fit(module, DataLoader(TensorDataset(x, torch.arange(16) % 3), batch_size=8), ckpt_path=path)
    return trainer, module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer, _ = fit(folder, 3)
    trainer.save_checkpoint(folder / "whole.ckpt")
    found = torch.load(folder / "whole.ckpt", weights_only=True)
    states = {"StructuredPruning", "QuantizationAwareTraining", "AttributionMonitor[Saliency]", "Halves"}
    distillations = {f"KnowledgeDistillation[{name}]" for name in ("dense", "ema", "wide")}
    assert found["callbacks"].keys() == states | distillations
    assert found[KEY]["changes"]
    assert found["callbacks"]["KnowledgeDistillation[wide]"]["adapters"]
    return found


def parts(checkpoint):
    return [*(("callbacks", key) for key in checkpoint["callbacks"]), (KEY,)]


def damaged(checkpoint, seed):
    """Yield damages of one state after the other: of any depth with the same odds, however many values are there."""
    rng = random.Random(seed)
    for part in itertools.cycle(parts(checkpoint)):
        at, value = part, checkpoint
        for key in part:
            value = value[key]
        while rng.random() < 0.6:
            inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            inside = [(key, child) for key, child in inside if isinstance(child, (dict, list)) and child]
            if not inside:
                break
            key, value = rng.choice(inside)
            at = (*at, key)
        yield next(damaged_values(checkpoint, rng.randrange(2**32), under=at))


def resume(folder, state):
    """Resume from a damaged state: it goes on, or is refused in one sentence of this library."""
    torch.save(state, folder / "damaged.ckpt")
    refused = ""
    try:
        fit(folder, 4, folder / "damaged.ckpt")
    except (ValueError, MisconfigurationException) as error:  # the latter is what callbacks refuse arguments with
        refused = str(error)
    assert "\n" not in refused
    assert not refused or "checkpoint" in refused or "run that is resumed" in refused, refused
    return refused


def test_one_that_is_whole_is_taken(checkpoint, tmp_path):
    assert resume(tmp_path, checkpoint) == ""


# A teacher's weight that was made huge is a weight: what becomes of the run is said loudly, and is no foreign error.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("n", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_no_damage_ends_in_a_foreign_error(checkpoint, tmp_path, n):
    for label, state in itertools.islice(damaged(checkpoint, seed=n), n):
        print(label, end=" -> ")  # noqa: T201 - pytest shows it where one fails
        print(resume(tmp_path, state))  # noqa: T201


DEEP: list = []
for _ in range(300):  # deeper than copy.deepcopy bears, and not too deep for pickle
    DEEP = [DEEP]


@pytest.mark.parametrize("value", [{}, None, DEEP], ids=lambda value: str(value)[:10])
def test_each_is_refused_or_warned_of_by_name(checkpoint, value, recwarn, tmp_path):
    for key in checkpoint["callbacks"]:
        state = {**checkpoint, "callbacks": {**checkpoint["callbacks"], key: value}}
        refused, name = resume(tmp_path, state), key.partition("[")[0]
        if name != "AttributionMonitor":
            assert f"{name}'s state in the checkpoint expected" in refused, (key, refused)
            assert "Start afresh from its weights" in refused
        else:
            assert refused == ""
            said = [str(one.message) for one in recwarn if "AttributionMonitor" in str(one.message)]
            assert bool(said) == (value != {}), said  # one without a state yet is empty
    recwarn.clear()
    assert resume(tmp_path, {**checkpoint, KEY: value}) == ""
    assert any("watch of losses in the checkpoint expected" in str(one.message) for one in recwarn)


def test_callbacks_that_are_no_dict(checkpoint, tmp_path):
    assert "Trainer: 'callbacks'" in resume(tmp_path, {**checkpoint, "callbacks": [1]})


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda: StructuredPruning(0.5), {"done": [True], "round_to": 8}),
        (lambda: StructuredPruning(0.5), {"done": [1], "round_to": 0}),
        (lambda: QuantizationAwareTraining(), {"seen": -1, "scales": {}}),
        (lambda: QuantizationAwareTraining(), {"seen": 1, "scales": {"a": torch.tensor(torch.nan)}}),
        (lambda: AttributionMonitor(), {"indices": [-1], "loader": "val"}),
        (lambda: AttributionMonitor(), {"indices": [1], "loader": "elsewhere"}),
        (lambda: ModelExport(), {"folders": "x"}),
        (lambda: ModelExport(), {"folders": [], "before": {"state_dict": {}, "lit_xai_recipe": 3}, "source": "x"}),
        (lambda: ModelExport(), {"folders": [], "before": {"state_dict": {}, "lit_xai_recipe": None}}),
    ],
)
def test_a_state_given_by_hand_is_checked_before_anything_is_changed(checkpoint, make, state):
    callback = make()
    if isinstance(callback, StructuralCallback):
        state = {**state, "random": checkpoint["callbacks"]["StructuredPruning"]["random"]}
    before = {key: copy.copy(value) for key, value in vars(callback).items() if isinstance(value, (dict, list, int))}
    with pytest.raises(ValueError, match="checkpoint"):
        callback.load_state_dict(state)
    assert {key: value for key, value in vars(callback).items() if isinstance(value, (dict, list, int))} == before


def test_a_callback_of_somebody_else_that_fails_is_named(checkpoint):
    state = {"random": checkpoint["callbacks"]["Halves"]["random"], "epochs": ["one"]}
    with pytest.raises(ValueError, match=r"Halves cannot load its state in the checkpoint \(TypeError: .*Start afresh"):
        Halves().load_state_dict(state)
