"""Cuts and quantization in optimizer steps, in runs of every kind; the modules count their own steps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from processes import run_script
from refusals import refused
from step_runs import BATCHES, Alike, Manual, Recorded, Streamed, changes, fit
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader

from lit_xai import AttributionMonitor, KnowledgeDistillation, QuantizationAwareTraining, StructuredPruning
from lit_xai.data import Digits
from lit_xai.models import ResNet
from lit_xai.structure.recipe import recipe_of

RESUMING = pytest.mark.filterwarnings(
    "ignore:You're resuming from a checkpoint that ended", "ignore:Checkpoint directory", "ignore:Be aware that when"
)


def prune(ratio=0.5, **options):
    return StructuredPruning(ratio, **{"round_to": 1, "report_latency": False, **options})


def quantize(**options):
    return QuantizationAwareTraining(**{"calibration_batches": 1, **options})


TWICE = {"start_step": 5, "end_step": 9, "every_n_steps": 4}
RUNS = {
    "one epoch": (Recorded, {"max_epochs": 1}, [(0, 5, 5, 12), (0, 9, 9, 8)]),
    "max_steps alone": (Recorded, {"max_steps": 25}, [(0, 5, 5, 12), (0, 9, 9, 8)]),
    "a stream": (Streamed, {"max_epochs": -1, "max_steps": 12}, [(0, 5, 5, 12), (0, 9, 9, 8)]),
    # 10 batches: steps after batches 3, 7 and 9 of each epoch.
    "accumulated": (Recorded, {"max_epochs": 4, "accumulate_grad_batches": 4}, [(1, 8, 5, 12), (3, 0, 9, 8)]),
    # The first of two optimizers steps after each second batch.
    "two optimizers": (Manual, {"max_epochs": 2}, [(1, 0, 5, 12), (1, 8, 9, 8)]),
}


@pytest.mark.parametrize(("module", "options", "expected"), list(RUNS.values()), ids=list(RUNS))
def test_cuts_are_between_two_steps(module, options, expected, tmp_path):
    module = module()
    fit(module, tmp_path, prune(**TWICE), **options)
    assert [change[:4] for change in changes(module)] == expected
    assert [step["note"] for step in recipe_of(module).steps] == ["step 5", "step 9"]
    assert (tmp_path / "compression" / "channels-step=9.png").exists()


@pytest.mark.parametrize(
    ("module", "options"),
    [
        pytest.param(*run[:2], id=name, marks=[] if name in ("accumulated", "two optimizers") else pytest.mark.slow)
        for name, run in RUNS.items()
    ],
)
def test_quantization_begins_between_two_steps(module, options, tmp_path):
    module, callback = module(), quantize(start_step=4, freeze_step=6)
    fit(module, tmp_path, callback, prune(start_step=3, end_step=3), **options)
    found = changes(module)
    assert [(steps, kinds) for _, _, steps, _, kinds in found] == [(3, ["prune"]), (4, ["prune", "quantize"])]


@pytest.mark.parametrize(
    ("module", "options", "total"),
    [
        (Recorded, {"max_epochs": 1}, 10),
        (Recorded, {"max_steps": 20}, 20),
        pytest.param(Recorded, {"max_epochs": 3, "max_steps": 20}, 20, marks=pytest.mark.slow),
        (Recorded, {"max_epochs": 100, "max_steps": 7}, 7),
        pytest.param(Streamed, {"max_steps": 20}, 20, marks=pytest.mark.slow),
        (Alike, {"max_epochs": -1, "max_steps": 40}, 20),
    ],
)
def test_defaults_are_fractions_of_a_run_that_ends_by_steps(module, options, total, tmp_path):
    module = module()
    fit(module, tmp_path, prune(), quantize(), **options)
    assert module.steps == total
    *cuts, quantized = changes(module)
    assert cuts[0][2] == round(0.1 * total)
    assert cuts[-1][2] == total // 2
    assert quantized[2] == round(0.7 * total)
    assert "quantize" in quantized[-1]


def test_epochs_stay_the_unit_of_a_run_of_epochs(tmp_path):
    module = Recorded()
    fit(module, tmp_path, prune(), quantize(), max_epochs=5)
    assert [(epoch, batch) for epoch, batch, *_ in changes(module)] == [(0, 0), (1, 0), (2, 0), (4, 0)][1:]
    assert [step.get("note") for step in recipe_of(module).steps][:2] == ["epoch 0", "epoch 1"]


@pytest.mark.timeout(60)  # a run that is not refused has no end
@pytest.mark.parametrize("module", [Recorded, Streamed])
def test_fractions_of_a_run_without_end_are_refused(module, tmp_path):
    stopped = {"max_epochs": -1} if module is Recorded else {"max_epochs": 1}
    for callback, parts in [
        (
            prune(),
            ("start_epoch=0.1 is a fraction of the optimizer steps", "set max_steps of the Trainer", "start_step"),
        ),
        (prune(start_step=3, end_step=9), ("every_n_steps=0.1 is a fraction", "every_n_steps to a number of steps")),
        (quantize(start_step=0.5), ("start_step=0.5 is a fraction", "start_step to a number of steps")),
        (AttributionMonitor(every_n_steps=0.5, probe=2), ("every_n_steps=0.5 is a fraction",)),
    ]:
        with refused(*parts):
            fit(module(), tmp_path, callback, **stopped)


@pytest.mark.parametrize(
    ("callbacks", "options", "parts"),
    [
        ([quantize(start_step=30)], {"max_epochs": 3}, ("start_step expected a step of the run", "0 to 29", "30")),
        ([prune(start_step=5, end_step=5), quantize(start_step=5)], {"max_epochs": 1}, ("start_step", "at step 5")),
        ([prune(start_epoch=1, end_epoch=1), quantize(start_step=10)], {"max_epochs": 3}, ("start_step", "at epoch 1")),
        (
            [prune(start_step=20, end_step=20), quantize(start_epoch=2)],
            {"max_epochs": 3},
            ("start_epoch", "at step 20"),
        ),
        (
            [prune(start_epoch=0, end_epoch=0), quantize(start_step=5)],
            {"max_epochs": 2, "module": Manual},
            ("start_step expected an epoch", "not known which step that is", "both in epochs, or in steps"),
        ),
    ],
)
def test_refused_before_the_first_step(callbacks, options, parts, tmp_path):
    module = options.get("module", Recorded)()
    for turn in (1, -1):
        with pytest.raises(MisconfigurationException) as caught:
            fit(module, tmp_path, *callbacks[::turn], **{name: n for name, n in options.items() if name != "module"})
        assert all(part in str(caught.value) for part in parts), caught.value
    assert module.steps == 0
    assert not recipe_of(module).steps


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (prune(start_epoch=1, end_epoch=1), quantize(start_step=11)),
        (prune(start_step=19, end_step=19), quantize(start_epoch=2)),
    ],
)
def test_epochs_and_steps_are_compared(first, second, tmp_path):
    module = Recorded()
    fit(module, tmp_path, second, first, max_epochs=3)
    assert recipe_of(module).label == "quantized"


def test_a_plan_outside_the_run_is_refused(tmp_path):
    with refused("start_step expected a step of the run, which are 0 to 9, but got 10"):
        fit(Recorded(), tmp_path, prune(start_step=10), max_epochs=1)


def test_a_run_that_ends_early_says_so(tmp_path):
    class Ends(Recorded):
        def on_train_batch_end(self, *args):
            self.trainer.should_stop = self.steps == 6

    with pytest.warns(UserWarning, match=r"did not make 1 of its 2 cuts: the run ended before step 9\."):
        fit(Ends(), tmp_path, prune(**TWICE), max_epochs=1)
    with pytest.warns(UserWarning, match=r"never began: the run ended before step 8, .* Lower start_step"):
        fit(Ends(), tmp_path, quantize(start_step=8), max_epochs=1)


def test_sparse_training_ends_with_the_last_cut(tmp_path):
    module, seen = Recorded(), []

    class Look(StructuredPruning):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append(self._regularizer)
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    callback = Look(0.5, regularize="group", round_to=1, report_latency=False, **TWICE)
    fit(module, tmp_path, callback, max_epochs=1)
    assert [one is not None for one in seen] == [True] * 9 + [False]
    assert len({id(one) for one in seen}) == 3  # one before each cut, none after


def test_messages_name_steps(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(Recorded(), tmp_path, prune(**TWICE), quantize(start_step=15, freeze_step=18), max_epochs=2)
    text = caplog.text
    assert "StructuredPruning cuts at step 5: 25% of the channels removed, step 9: 50%" in text
    assert "StructuredPruning, step 9: 50% of the channels removed" in text
    assert "QuantizationAwareTraining begins with step 15" in text
    assert "Ranges of activations stay fixed from step 18 on" in text
    assert "QuantizationAwareTraining, step 15: quantization begins" in text


def test_a_wrecked_training_is_told_the_step(tmp_path):
    class Low(Recorded):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step"}]

    with pytest.warns(UserWarning, match="cuts at step 5 at a learning rate of 0.0001, under 10% of its peak of 0.01"):
        fit(Low(), tmp_path, prune(start_step=5, end_step=5), max_epochs=1)

    class Wrecked(Recorded):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1 if self.steps < 40 else torch.inf)

    with pytest.warns(UserWarning, match=r"StructuredPruning has wrecked this training, by its step at step 40\."):
        fit(Wrecked(), tmp_path, prune(start_step=40, end_step=40), max_steps=60)


@pytest.mark.parametrize(
    "module", [Manual, *(pytest.param(one, marks=pytest.mark.slow) for one in (Recorded, Streamed))]
)
def test_figures_in_steps_leave_the_run_as_it_was(module, tmp_path):
    options = {"max_steps": 80 if module is Manual else 14}
    torch.manual_seed(0)
    plain, watched = module(), module()
    watched.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    fit(plain, tmp_path, **options)
    torch.manual_seed(1)
    monitor = AttributionMonitor("Saliency", probe=2, every_n_steps=4, name="m")
    fit(watched, tmp_path, monitor, **options)
    found = sorted(path.name for path in (tmp_path / "attribution" / "m").glob("step=*"))
    assert found == sorted(f"step={n}" for n in [*range(4, plain.steps + 1, 4), *([14] if plain.steps == 14 else [])])
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in watched.state_dict().items())


def test_a_fraction_of_the_steps_for_figures(tmp_path):
    fit(Recorded(), tmp_path, AttributionMonitor("Saliency", probe=2, every_n_epochs=0.5, name="m"), max_epochs=1)
    assert {path.name for path in (tmp_path / "attribution" / "m").glob("step=*")} == {"step=5", "step=10"}


def test_a_teacher_fades_over_the_steps(tmp_path):
    seen = []

    class Look(KnowledgeDistillation):
        def on_before_backward(self, trainer, pl_module, loss):
            super().on_before_backward(trainer, pl_module, loss)
            seen.append(self._now.alpha)

    fit(Recorded(), tmp_path, Look(Recorded(), alpha=[1.0, 0.0]), max_steps=5)
    assert seen == [1.0, 0.75, 0.5, 0.25, 0.0]


def resumed_from(folder, make, module, at, **options):
    """Train with checkpoints at each step, and continue from one of them; return the whole module and the resumed."""
    whole, resumed = module(), module()
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False)
    fit(whole, folder, *make(), saving, enable_checkpointing=True, **options)
    path = next(path for path in folder.glob("*.ckpt") if re.search(rf"step={at}\b", path.name))
    resumed.steps = torch.load(path)["global_step"]
    fit(resumed, folder, *make(), ckpt_path=path, **options)
    return whole, resumed


@RESUMING
@pytest.mark.parametrize("at", [5, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 6, 9, 15, 19))])
def test_resumed_within_an_epoch_it_finds_structure_and_plan(at, tmp_path):
    def make():
        return [prune(**TWICE), quantize(start_step=15, freeze_step=18)]

    whole, resumed = resumed_from(tmp_path, make, Recorded, at, max_epochs=2)
    expected, found = recipe_of(whole).steps, recipe_of(resumed).steps
    assert [step["kind"] for step in found] == [step["kind"] for step in expected]
    assert [step.get("note") for step in found] == [step.get("note") for step in expected]
    assert {n: v.shape for n, v in resumed.state_dict().items()} == {n: v.shape for n, v in whole.state_dict().items()}
    assert [change[2] for change in changes(resumed)] == [step for step in (5, 9, 15) if step > at]
    assert resumed.steps == 2 * BATCHES


@RESUMING
def test_units_are_not_changed_on_the_way(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=6, save_top_k=-1, save_on_train_epoch_end=False)
    fit(Recorded(), tmp_path, prune(**TWICE), saving, max_epochs=1, enable_checkpointing=True)
    (path,) = tmp_path.glob("*.ckpt")
    with pytest.raises(MisconfigurationException, match=r"made its cuts in steps before .*, and now counts epochs"):
        fit(Recorded(), tmp_path, prune(start_epoch=0, end_epoch=0), ckpt_path=path, max_epochs=1)


SCRIPT = Path(__file__).with_name("step_run.py")
KILLED = ["Recorded", "Streamed", "Manual"]


def run(folder, seed, module):
    command = [sys.executable, str(SCRIPT), str(folder), str(seed), module]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def uninterrupted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, "none", request.param)
    assert done.returncode == 0, done.stderr[-3000:]
    end = torch.load(folder / "end-0.pt")
    assert [kind for kind, _ in end["kinds"]] == ["prune", "prune", "prune", "quantize"]
    return request.param, end


@pytest.mark.slow
@pytest.mark.parametrize("uninterrupted", KILLED, indirect=True)
@pytest.mark.parametrize("seeds", [(2 * i, 2 * i + 1) for i in range(4)])
def test_killed_at_random_steps_it_finds_structure_and_plan(uninterrupted, seeds, tmp_path):
    module, expected = uninterrupted
    for seed in seeds:
        killed = run(tmp_path, seed, module)
        # A resumed run may be over before the second shot.
        assert killed.returncode in (-9, 0), killed.stderr[-3000:]
    resumed = run(tmp_path, "none", module)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    found = torch.load(tmp_path / "end-0.pt")
    for what in ("kinds", "kept", "shapes"):
        assert found[what] == expected[what]


@pytest.mark.slow
def test_two_processes_change_at_the_same_step(tmp_path):
    run_script(SCRIPT, tmp_path, "none", "Recorded", processes=2)
    first, second = (torch.load(tmp_path / f"end-{rank}.pt") for rank in (0, 1))
    assert [kind for kind, _ in first["kinds"]] == ["prune", "prune", "prune", "quantize"]
    assert [change[2] for change in first["met"]] == [6, 9, 12, 20]
    # Of 5 batches a process, steps come after batches 1, 3 and 4 of each epoch: the change is met by the next.
    assert [change[:2] for change in first["met"]] == [(2, 0), (3, 0), (4, 0), (6, 4)]
    for what in ("kinds", "kept", "met"):
        assert first[what] == second[what]
    for name, value in first["weights"].items():
        if name.startswith("network") and "running" not in name and "tracked" not in name:
            assert torch.equal(value, second["weights"][name]), name


RECIPES = {
    "SGD 0.1, one cycle": (
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4),
        lambda optimizer, n: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=n),
    ),
    "SGD 0.1, cosine": (
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4),
        torch.optim.lr_scheduler.CosineAnnealingLR,
    ),
    "AdamW": (
        lambda weights: torch.optim.AdamW(weights, lr=2e-3),
        torch.optim.lr_scheduler.CosineAnnealingLR,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("length", [{"max_steps": 600}, {"max_epochs": 1}], ids=["max_steps", "one epoch"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_usual_recipes_end_healthy(recipe, length, tmp_path):
    optimizer_of, schedule_of = RECIPES[recipe]
    data = Digits(batch_size=32)
    data.prepare_data()
    data.setup("fit")

    class Trained(LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.network = ResNet(8, width=8, in_channels=1, num_classes=10)

        def forward(self, x):
            return self.network(x)

        def training_step(self, batch, batch_idx):
            return cross_entropy(self(batch[0]), batch[1])

        def train_dataloader(self):
            # 14 passes of the data as one epoch.
            loader = data.train_dataloader()
            passes = ConcatDataset([loader.dataset] * (14 if "max_epochs" in length else 1))
            return DataLoader(passes, batch_size=32, shuffle=True)

        def configure_optimizers(self):
            optimizer = optimizer_of(self.parameters())
            schedule = schedule_of(optimizer, self.trainer.estimated_stepping_batches)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    torch.manual_seed(0)
    module = Trained()
    fit(module, tmp_path, StructuredPruning(target_macs=0.4, report_latency=False), quantize(), **length)
    assert recipe_of(module).label == "quantized"
    batches = list(data.val_dataloader())
    module.eval()
    with torch.no_grad():
        right = torch.cat([module(batch[0]).argmax(1) == batch[1] for batch in batches])
    assert right.float().mean() > 0.95
