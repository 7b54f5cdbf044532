import copy
import warnings
from collections import deque

import lightning.pytorch
import numpy as np
import pytest
import step_modules
import torch
from step_modules import STEP, STEP_MODULES
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lit_xai
from lit_xai.network.calling import call_network
from lit_xai.network.rows import columns
from lit_xai.network.trees import leaves
from lit_xai.trainer.batches import read_batch
from lit_xai.trainer.watching import Watched, watch


class OneBatch:
    """A loader of one batch, which is handed on as it is."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        return iter([self.batch])

    def __len__(self):
        return 1


class Watch(lightning.pytorch.Callback):
    """Watches the step before the first one, and keeps the answer and the batch it is compared on."""

    answer: Watched
    batch: object

    def on_train_start(self, trainer, pl_module):
        from lit_xai.network.probing import Probe

        self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.random = torch.get_rng_state()
        try:
            self.answer = watch(trainer, pl_module, "train")
        finally:
            self.after = {name: value.clone() for name, value in pl_module.state_dict().items()}
            self.random_after = torch.get_rng_state()
        self.batch, _ = read_batch(trainer, "train", Probe(n=2**20), seed=0)
        pl_module.eval()
        network = self.answer.network.of(pl_module)
        self.inputs = self.answer.network.batch_to_inputs(self.batch)
        with torch.no_grad():
            self.logits = call_network(network, self.inputs, output=self.answer.network.output)
        pl_module.train()


def watched(module, batch, tmp_path):
    watching = Watch()
    trainer = lightning.pytorch.Trainer(
        max_steps=1,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[watching],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of loaders that are lists, and sizes of batches
        trainer.fit(module, OneBatch(batch))
    return watching


def same_tensors(found, wanted):
    found, wanted = list(found), list(wanted)
    return len(found) == len(wanted) and all(any(one is other for other in wanted) for one in found)


def of_columns(own, paths):
    return [tensor for path in paths for tensor in (own[path] if isinstance(own[path], list) else [own[path]])]


# What a reader sees and this does not: actions that index an output, which look like classes that do, and which of two
# labels that meet inside a network is that of its logits.
OTHER_LABELS = {"value_learning": ["1"], "query_detector": ["labels.*.labels", "labels.*.boxes"]}
# Inputs that are drawn anew in each step.
DRAWN = ("mixup", "masked_modelling")
REFUSED = {"ensemble": "'members.0' and 'members.1' and 'members.2', which do not continue from each other"}


@pytest.mark.parametrize("name", sorted(STEP_MODULES.keys() - REFUSED.keys()))
def test_the_answer_is_a_readers(name, tmp_path):
    case = STEP_MODULES[name]
    torch.manual_seed(0)
    module, batch = case.make(), case.batch()
    found = watched(module, batch, tmp_path)
    answer, reading = found.answer, found.answer.reading
    network = STEP if reading.is_step else (answer.network.module or "")
    assert network in case.networks
    own = columns(found.batch)
    assert same_tensors(of_columns(own, reading.data), case.inputs(found.batch))
    labels = [reading.label] if reading.label is not None else list(reading.candidates)
    wanted = of_columns(own, OTHER_LABELS[name]) if name in OTHER_LABELS else case.labels(found.batch)
    # Of several heads, the label of the one that the logits are taken from.
    assert same_tensors(of_columns(own, labels), wanted[:1] if case.candidates else wanted)
    if case.logits is not None and name not in DRAWN:
        module.load_state_dict(found.before)
        module.eval()
        with torch.no_grad():
            torch.testing.assert_close(found.logits, case.logits(module, found.batch))


@pytest.mark.parametrize("name", REFUSED)
def test_several_networks_are_named(name, tmp_path):
    case = STEP_MODULES[name]
    with pytest.raises(ValueError, match=REFUSED[name]):
        watched(case.make(), case.batch(), tmp_path)


@pytest.mark.parametrize("name", sorted(STEP_MODULES.keys() - REFUSED.keys()))
def test_watching_leaves_no_trace(name, tmp_path):
    case = STEP_MODULES[name]
    torch.manual_seed(0)
    found = watched(case.make(), case.batch(), tmp_path)
    assert torch.equal(found.random, found.random_after)
    assert found.before.keys() == found.after.keys()
    assert all(torch.equal(value, found.after[name]) for name, value in found.before.items())


class AddsToItsInput(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(5, 3)

    def forward(self, batch):
        batch["scores"] = self.lin(batch["x"])
        return batch


class WritesIntoTheBatch(lightning.pytorch.LightningModule):
    """As graph libraries do: what the network computes is put into what it is given."""

    def __init__(self):
        super().__init__()
        self.net = AddsToItsInput()

    def training_step(self, batch, batch_idx):
        middle = batch["before"].mean(1)  # a unit that is computed from other data
        aim = torch.nn.functional.one_hot(batch["kind"], 3) - middle.unsqueeze(1).nan_to_num()
        return (self.net(batch)["scores"] - aim).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_network_may_write_into_what_it_is_given(tmp_path):
    batch = {"x": torch.randn(6, 5), "before": torch.rand(6, 4), "kind": torch.randint(3, (6,))}
    found = watched(WritesIntoTheBatch(), batch, tmp_path)
    assert found.answer.network.module == "net"
    assert "scores" not in found.inputs[0]
    assert found.answer.reading.label == "kind"


class MaskedUnlessWhole(torch.nn.Module):
    """Looks at a mask only where something is masked."""

    def __init__(self):
        super().__init__()
        self.embeddings, self.head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 3)

    def forward(self, ids, mask=None, labels=None):
        hidden = self.embeddings(ids)
        if mask is not None and not mask.bool().all():
            hidden = hidden * mask.unsqueeze(-1)
        logits = self.head(hidden.mean(1))
        return {"logits": logits, "loss": None if labels is None else torch.nn.functional.cross_entropy(logits, labels)}


class Masked(WritesIntoTheBatch):
    def __init__(self):
        super().__init__()
        self.net = MaskedUnlessWhole()

    def training_step(self, batch, batch_idx):
        return self.net(**batch)["loss"]


def test_a_mask_without_influence_on_one_batch_stays_in_the_call(tmp_path):
    batch = {"ids": torch.randint(20, (6, 4)), "mask": torch.ones(6, 4), "labels": torch.randint(3, (6,))}
    found = watched(Masked(), batch, tmp_path)
    assert sorted(path for path, _ in leaves(found.inputs)) == ["ids", "mask"]


class OtherInEvaluation(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(5, 3)

    def forward(self, x):
        scores = self.lin(x)
        return {"features": x, "aux": {"scores": scores}} if self.training else (scores, None)


class Modes(WritesIntoTheBatch):
    def __init__(self):
        super().__init__()
        self.net = OtherInEvaluation()

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch["x"])["aux"]["scores"], batch["kind"])


def test_a_network_may_return_something_else_in_evaluation_mode(tmp_path):
    found = watched(Modes(), {"x": torch.randn(6, 5), "kind": torch.randint(3, (6,))}, tmp_path)
    assert found.logits.shape == (6, 3)


class Momentum(step_modules.Base):
    """Its step moves a running average, writing to its values or putting others in their place."""

    def __init__(self, update):
        super().__init__()
        self.body, self.head, self.update = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3), update
        self.average = copy.deepcopy(self.body).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            self.update(list(self.average.parameters()), list(self.body.parameters()))
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.body(x)) + self.head(self.average(x)), y)


def in_place(means, values):
    for mean, value in zip(means, values, strict=True):
        mean.data.lerp_(value.data, 0.1)


def anew(means, values):
    for mean, value in zip(means, values, strict=True):
        mean.data = 0.9 * mean.data + 0.1 * value.data


def copied(means, values):
    for mean, value in zip(means, values, strict=True):
        mean.copy_(0.9 * mean + 0.1 * value)


def into(means, values):
    for mean, value in zip(means, values, strict=True):
        torch.add(0.9 * mean, value, alpha=0.1, out=mean)


def all_at_once(means, values):
    torch._foreach_mul_(means, 0.9)
    torch._foreach_add_(means, values, alpha=0.1)


@pytest.mark.parametrize("update", [in_place, anew, copied, into, all_at_once])
def test_an_observer_leaves_what_a_step_writes_to(update, tmp_path):
    states = []
    for callbacks in ([], [lit_xai.AttributionMonitor(on_error="raise")]):
        torch.manual_seed(0)
        module = Momentum(update)
        batch = torch.randn(6, 5), torch.arange(6) % 3
        options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.pytorch.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=callbacks, **options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, OneBatch(batch))
        states.append(module.state_dict())
    assert list((tmp_path / "attribution").rglob("*.npz"))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class World:
    """An environment: a state, and a generator that moves it."""

    def __init__(self):
        self.generator = np.random.default_rng(0)
        self.state = self.generator.standard_normal(5)

    def step(self):
        self.state = 0.5 * self.state + self.generator.standard_normal(5)
        return torch.tensor(self.state, dtype=torch.float32)


class Experience(IterableDataset):
    def __init__(self, play):
        self.play = play

    def __iter__(self):
        return iter([self.play() for _ in range(12)])


class Player(step_modules.Base):
    """Trains on what it meets in an environment: the step and the data move it."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)
        self.world, self.memory, self.steps = World(), deque(maxlen=4), 0

    def play(self):
        self.steps += 1
        return self.world.step(), self.steps % 3

    def train_dataloader(self):
        return DataLoader(Experience(self.play), batch_size=4)

    def training_step(self, batch, batch_idx):
        self.memory.append(self.world.step())
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.body(x + sum(self.memory) / self.steps)), y)


class PlayerOfOneNetwork(Player):
    """The step computes what its network is called with."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Sequential(self.body, torch.nn.ReLU(), self.head), torch.nn.Identity()


@pytest.mark.parametrize("player", [Player, PlayerOfOneNetwork])
def test_an_observer_leaves_the_environment_of_an_agent(player, tmp_path):
    ends = []
    for callbacks in ([], [lit_xai.AttributionMonitor(on_error="raise")]):
        torch.manual_seed(0)
        module = player()
        options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.pytorch.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=callbacks, **options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module)
        ends.append(
            (module.steps, *module.world.state, *torch.cat([p.flatten() for p in module.parameters()]).tolist())
        )
    assert list((tmp_path / "attribution").rglob("*.npz"))
    assert ends[0] == ends[1]


class Joined(DataLoader):
    """Yields batches of two loaders at once, which its own batch size does not tell."""

    def __init__(self, *loaders):
        super().__init__(loaders[0])
        self.loaders = loaders

    def __iter__(self):
        return zip(*self.loaders, strict=True)


class OfTwo(step_modules.Base):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        (x, y), (more,) = batch
        return torch.nn.functional.cross_entropy(self.body(torch.cat([x, more]))[: len(x)], y)


def test_batches_of_a_loader_of_its_own_kind_are_taken_whole(tmp_path):
    labelled = DataLoader(TensorDataset(torch.randn(8, 5), torch.arange(8) % 3), batch_size=4)
    others = DataLoader(TensorDataset(torch.randn(16, 5)), batch_size=8)
    watching = Watch()
    options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.pytorch.Trainer(
        max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=[watching], **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(OfTwo(), Joined(labelled, others))
    assert (watching.answer.network.module, watching.answer.reading.label) == ("body", "0.1")
    assert watching.inputs.shape == (12, 5)
