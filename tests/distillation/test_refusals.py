"""Refusals are one sentence that names the argument, and come before anything is changed."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from refusals import refused
from taught import OURS, Conv, Module, data, fit, loader, mlp
from torch import nn
from torch.utils.data import DataLoader

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning

X, Y = data().tensors
Pruning = partial(StructuredPruning, 0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"teacher": 3}, ("teacher expected 'dense', 'ema', a checkpoint's path or a module", "3")),
        ({"teacher": None}, ("teacher expected",)),
        ({"teacher": Conv}, ("teacher expected", "Give an instance")),
        ({"features": "first"}, ("features expected a list of layers' names", "'first'")),
        ({"features": [1]}, ("features expected", "[1]")),
        ({"features": {"first": 1}}, ("features expected",)),
        ({"cache": True}, ("cache expected 'memory', a file's path or None", "True")),
        ({"alpha": 1.1}, ("alpha expected numbers in [0, 1]", "1.1")),
        ({"alpha": -0.1}, ("alpha expected",)),
        ({"alpha": [0.5, 2]}, ("alpha expected", "[0.5, 2]")),
        ({"alpha": []}, ("alpha expected",)),
        ({"alpha": "much"}, ("alpha expected", "'much'")),
        ({"alpha": True}, ("alpha expected",)),
        ({"alpha": float("nan")}, ("alpha expected",)),
        ({"temperature": 0}, ("temperature expected numbers above 0",)),
        ({"temperature": [4, -1]}, ("temperature expected",)),
        ({"temperature": float("inf")}, ("temperature expected",)),
        ({"feature_weight": -1}, ("feature_weight expected a number of at least 0", "-1")),
        ({"adapter_lr": 0}, ("adapter_lr expected a number above 0",)),
        ({"teacher": "ema", "ema_decay": 1}, ("ema_decay expected a number in [0, 1)",)),
        ({"teacher": "ema", "cache": "memory"}, ("cache expected None for teacher='ema'",)),
        ({"loss": "kl_divergance"}, ("loss expected", "Did you mean 'kl_divergence'")),
        ({"loss_args": {"factor": 2}}, ("loss_args: kl_divergence takes no 'factor'",)),
        ({"loss": "hint"}, ("loss expected",)),
        ({"loss": 3}, ("loss expected",)),
        ({"loss": "torch.nn.KLDivLoss"}, ("loss expected a function", "the class KLDivLoss")),
        ({"loss": "no.such.loss"}, ("loss expected an import path",)),
        ({"feature_loss": "attention_transfer"}, ("features expected the layers that feature_loss is about", "None")),
        ({"features": [], "feature_weight": 2.0}, ("layers that feature_weight is about, but got []. Name them",)),
        # By its path: the function's own repr has an address in it, and the test another name in each process.
        (
            {"feature_loss": "torch.nn.functional.huber_loss", "feature_loss_args": {"delta": 2.0}},
            ("features expected the layers",),
        ),
        ({"feature_loss": "attention"}, ("feature_loss expected", "'attention_transfer'")),
        ({"explanation": "input_x_gradient"}, ("explanation expected an ExplanationMatching",)),
        (
            {"features": ["first"], "compile_teacher": True},
            ("compile_teacher expected False with features",),
        ),
        (
            {"explanation": ExplanationMatching("grad_cam", layers=["first"]), "compile_teacher": True},
            ("compile_teacher expected False",),
        ),
        ({"features": ["first"], "cache": "memory"}, ("cache expected None", "features")),
        ({"explanation": ExplanationMatching(), "cache": "memory"}, ("cache expected None", "explanation")),
    ],
    ids=str,
)
def test_refused_when_made(options, parts):
    with refused(*parts):
        KnowledgeDistillation(**{"teacher": mlp(), **options})


def test_terms_of_weight_0_need_nothing():
    KnowledgeDistillation(mlp(), features=["first"], feature_weight=0, compile_teacher=True, cache="memory")
    KnowledgeDistillation(mlp(), explanation=ExplanationMatching(every_n_steps=2), cache="memory")


def test_defaults_that_a_config_spells_out_need_no_layer():
    KnowledgeDistillation("ema", features=None, feature_loss="hint", feature_loss_args=None, feature_weight=1)
    KnowledgeDistillation("ema", features=None, feature_loss_args={}, feature_weight=0)


class Steps(Module):
    """Counts the optimizer's steps."""

    def __init__(self, network=None):
        super().__init__(network)
        self.steps = 0

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.steps += 1


class Dicts(Steps):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["x"]), batch["class"])


class Boxed(Steps):
    """Its network's output is nothing that logits are found in."""

    def __init__(self):
        class Box(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = mlp()

            def forward(self, x):
                return {"scores": self.inner(x)}

        super().__init__(Box())

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0])["scores"], batch[1])


class Apart(Steps):
    def __init__(self):
        super().__init__(mlp(classes=4))
        self.head = nn.Linear(4, 10)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.network(batch[0])), batch[1])


def dicts():
    return DataLoader([{"x": x, "class": y} for x, y in data()], batch_size=16)


DKD = "decoupled_kl_divergence"


@pytest.mark.parametrize(
    ("make", "options", "parts"),
    [
        (Steps, {"teacher": mlp(classes=7)}, ("teacher gives 7 outputs per sample, but the student 10",)),
        (
            Steps,
            {"teacher": "no.ckpt"},
            ("teacher expected 'dense', 'ema', a module or a checkpoint, but there is no file 'no.ckpt'",),
        ),
        (Steps, {"teacher": "dence"}, ("there is no file 'dence'", "Did you mean 'dense'")),
        (Steps, {"teacher": "."}, ("'.' is a folder",)),
        (
            Steps,
            {"teacher": nn.Linear(9, 10)},
            ("The teacher Linear failed on the inputs of the student", "Tensor[16, 1, 8, 8]", "same inputs"),
        ),
        (Steps, {"loss": lambda s, t: (s - t) ** 2}, ("loss expected a function that returns one number", "[16, 10]")),
        (
            lambda: Steps(Conv()),
            {"features": ["frist"]},
            ("features: 'frist' names no layer of the student", "'first'"),
        ),
        (
            lambda: Steps(Conv()),
            {"teacher": Conv(), "features": {"first": "secnd"}},
            ("features: 'secnd' names no layer of the teacher", "'second'"),
        ),
        (lambda: Steps(Conv()), {"teacher": mlp(), "features": ["first"]}, ("'first' names no layer of the teacher",)),
        (
            lambda: Steps(Conv()),
            {"teacher": Conv(), "explanation": ExplanationMatching("grad_cam", layers=["thrid"])},
            ("explanation: 'thrid' names no layer of the",),
        ),
        (
            lambda: Steps(Conv()),
            {"teacher": Conv(), "features": {"first": "head"}},
            ("features: 'first' expected outputs with the same number of dimensions",),
        ),
        (
            lambda: Steps(Conv()),
            {"teacher": Conv(), "features": {"head": "head"}, "feature_loss": "attention_transfer"},
            ("attention_transfer expected features with positions",),
        ),
        (Steps, {"module": "netwrk"}, ("module='netwrk'", "'network'")),
        (Steps, {"output": 3}, ("No logits were found at output=3",)),
        (
            Steps,
            {"teacher": Boxed(), "teacher_output": "score"},
            ("No logits were found at teacher_output='score'", "teacher_output="),
        ),
        (Dicts, {"loss": DKD, "batch_to_target": "label"}, ("batch_to_target='label' is not in a batch of dict(x: ",)),
        (Steps, {"loss": DKD, "batch_to_target": 5}, ("batch_to_target=5 is not in a batch",)),
        (Steps, {"teacher": "dense"}, ("teacher='dense' expected a callback that changes the structure",)),
        (
            lambda: Steps(torch.compile(Conv(), backend="aot_eager")),
            {"teacher": Conv(), "features": ["first"]},
            ("cannot see the layer 'first' inside the compiled 'network'",),
        ),
        (
            lambda: Steps(torch.compile(Conv(), backend="aot_eager")),
            {"teacher": Conv(), "explanation": ExplanationMatching()},
            ("cannot differentiate the compiled 'network' twice",),
        ),
    ],
)
def test_refused_before_the_first_step(make, options, parts, tmp_path):
    module = make()
    train = dicts() if isinstance(module, Dicts) else loader()
    with pytest.raises(Exception) as caught:  # noqa: PT011  # of Lightning or ours; the parts say which
        fit(module, tmp_path, KnowledgeDistillation(**{"teacher": mlp(), **options}), train=train)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert module.steps == 0
    assert not set(vars(module)) & OURS


def test_outputs_and_labels_can_be_located(tmp_path):
    fit(Boxed(), tmp_path, KnowledgeDistillation(Boxed(), output="scores"))
    fit(Boxed(), tmp_path, KnowledgeDistillation(mlp(24), output="scores", teacher_output=lambda found: found))
    fit(Apart(), tmp_path, KnowledgeDistillation(Apart(), module="head"))
    fit(Apart(), tmp_path, KnowledgeDistillation(Apart()))
    fit(Apart(), tmp_path, KnowledgeDistillation(mlp(24)))
    fit(Boxed(), tmp_path, KnowledgeDistillation(Boxed()))
    fit(Dicts(), tmp_path, KnowledgeDistillation(mlp(24), loss=DKD), train=dicts())
    options = {"loss": DKD, "batch_to_target": "class"}
    fit(Dicts(), tmp_path, KnowledgeDistillation(mlp(24), **options), train=dicts())


def test_a_schedule_needs_an_end(tmp_path):
    for argument in ("alpha", "temperature"):
        with refused(f"{argument}=[0.5, 0.1] is spread over the run, which has no known end: set max_epochs or"):
            fit(Module(), tmp_path, KnowledgeDistillation(mlp(), **{argument: [0.5, 0.1]}), max_epochs=-1)
        fit(Module(), tmp_path, KnowledgeDistillation(mlp(), **{argument: [0.5, 0.1]}), max_epochs=-1, max_steps=2)
    fit(Module(), tmp_path, KnowledgeDistillation(mlp(24)), max_epochs=-1, max_steps=2)


def test_two_with_one_teacher_are_refused(tmp_path):
    with pytest.raises(
        Exception, match=r"^Two KnowledgeDistillations have one teacher, ema: keep one, or give each a name="
    ):
        fit(Module(), tmp_path, KnowledgeDistillation("ema"), KnowledgeDistillation("ema", alpha=0.1))


def test_a_manual_step_without_manual_backward_is_refused(tmp_path):
    class Manual(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            super().training_step(batch, batch_idx).backward()
            self.optimizers().step()

    with pytest.raises(Exception, match=r"^KnowledgeDistillation takes part in self.manual_backward\(loss\)"):
        fit(Manual(), tmp_path, KnowledgeDistillation(mlp()))


def test_early_stopping_can_watch_the_parts_of_each(tmp_path):
    trainer = fit(Module(), tmp_path, KnowledgeDistillation("ema"), KnowledgeDistillation(mlp(), name="large"))
    found = trainer.callback_metrics
    assert {"distillation/ema/total", "distillation/ema/logits", "distillation/large/task"} <= set(found)
    # The first in the list is the inner one: what it gives is the step's loss to the next.
    assert found["distillation/large/task"].item() == pytest.approx(found["distillation/ema/total"].item(), rel=1e-5)


def test_dense_on_a_model_that_was_pruned_before_is_refused(tmp_path):
    module = Module()
    fit(module, tmp_path, Pruning())
    assert module.network[1].out_features == 8
    with pytest.raises(Exception, match="expected a model that is still dense, but this one was pruned before"):
        fit(module, tmp_path, Pruning(), KnowledgeDistillation("dense"))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize("strategy", ["FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"])
def test_strategies_that_spread_weights_are_refused(strategy, tmp_path):
    module = Module()
    trainer = Trainer(logger=False, accelerator="cpu", callbacks=[KnowledgeDistillation(mlp())], max_epochs=1)
    trainer.strategy.__class__ = type(strategy, (type(trainer.strategy),), {"__module__": "lightning.pytorch"})
    with pytest.raises(Exception, match=f"^KnowledgeDistillation cannot work with {strategy}"):
        trainer.fit(module, loader())
    assert not set(vars(module)) & OURS


def test_compiled_modules_are_refused(tmp_path):
    torch._dynamo.reset()
    module = Module()
    with pytest.raises(Exception, match=r"compiled training_step: compile the network inside"):
        fit(torch.compile(module, backend="aot_eager"), tmp_path, KnowledgeDistillation(mlp()))
    assert not set(vars(module)) & {"__reduce_ex__", "manual_backward", "on_save_checkpoint"}


def test_checkpoints_that_are_refused(tmp_path):
    (tmp_path / "damaged.ckpt").write_bytes(b"PK\x03\x04half")
    torch.save(mlp().state_dict(), tmp_path / "foreign.ckpt")
    for name, words in (("damaged", "is damaged"), ("foreign", "is no checkpoint of a Lightning Trainer")):
        with refused(f"teacher='{tmp_path / name}.ckpt' {words}"):
            fit(Module(), tmp_path, KnowledgeDistillation(str(tmp_path / f"{name}.ckpt")))
