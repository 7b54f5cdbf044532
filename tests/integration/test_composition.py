"""Every pair of the callbacks, and all of them, in any order of the list, on modules of several makes."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from witness import digest

import lit_xai
from lit_xai import (
    AttributionMonitor,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    StructuredPruning,
)
from lit_xai.quantization.quantization import is_quantized
from lit_xai.structure.recipe import recipe_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*slower than",  # networks this small do not gain
    "ignore:.*ModelExport",
)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.head = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.head(F.max_pool2d(self.relu(self.bn2(self.conv2(x)) + x), 2).mean((2, 3)))


class Wrapped(LightningModule):
    """A network in an attribute, tuples for batches."""

    def __init__(self):
        super().__init__()
        self.network = self.make()

    def make(self):
        return Residual()

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Perceptron(Wrapped):
    def make(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


class Direct(Wrapped):
    """Layers on the module itself, a functional ReLU, dicts for batches."""

    def __init__(self):
        super().__init__()
        del self.network
        self.conv, self.bn, self.fc = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, image):
        return self.fc(F.relu(self.bn(self.conv(image))).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))


class Dicts(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"image": image, "label": label}


MODULES = {"wrapped": Wrapped, "perceptron": Perceptron, "direct": Direct}
MAKE = {
    "prune": lambda folder: StructuredPruning(
        0.5, start_epoch=1, end_epoch=1, every_n_epochs=1, round_to=1, report_latency=False
    ),
    "distil": lambda folder: KnowledgeDistillation("dense"),
    "quantize": lambda folder: QuantizationAwareTraining(2, calibration_batches=1, freeze_epoch=3),
    "explain": lambda folder: AttributionMonitor("InputXGradient", probe=2),
    "export": lambda folder: ModelExport(folder / "export", program=False),
}
PAIRS = [pair for pair in itertools.permutations(MAKE, 2) if "export" not in pair]
CELLS = [
    pytest.param(make, pair, id=f"{make}-{'-'.join(pair)}", marks=[] if make == "wrapped" else [pytest.mark.slow])
    for make in MODULES
    for pair in PAIRS
]
ALL = [random.Random(seed).sample(list(MAKE), len(MAKE)) for seed in range(3)]


def fit(folder, names, module, every_epoch=False, ckpt_path=None):
    seed_everything(0, verbose=False)
    callbacks = [MAKE[name](folder) for name in names]
    if "distil" in names and not {"prune", "quantize"} & set(names):
        callbacks[names.index("distil")] = KnowledgeDistillation("ema")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 1, 8, 8, generator=generator)
    data = (Dicts if isinstance(module, Direct) else TensorDataset)(x, (x.mean((1, 2, 3)) > 0).long())
    kept = {"filename": "{epoch}", "save_top_k": -1} if every_epoch else {"monitor": "val/loss"}
    best = ModelCheckpoint(folder / "checkpoints", **kept)
    trainer = Trainer(
        max_epochs=4,
        callbacks=[*callbacks, best],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=8), DataLoader(data, batch_size=16), ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "end.ckpt")


def check(folder, names, module):
    kinds = [step["kind"] for step in recipe_of(module).steps]
    expected = ["prune"] * ("prune" in names)
    expected += ["quantize"] if "quantize" in names else []
    assert kinds == expected
    assert is_quantized(module) == ("quantize" in names)
    methods = ("training_step", "validation_step", "on_save_checkpoint", "on_load_checkpoint", "__reduce_ex__")
    assert not set(methods) & set(vars(module))
    loaded = lit_xai.load_from_checkpoint(type(module), folder / "end.ckpt")
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    if "explain" in names:
        assert len(list(folder.rglob("attribution/**/*.png"))) >= 4


@pytest.mark.parametrize(("make", "names"), CELLS)
def test_a_pair(make, names, tmp_path):
    module = MODULES[make]()
    fit(tmp_path, list(names), module)
    check(tmp_path, names, module)


@pytest.mark.parametrize("names", [("export", other) for other in MAKE if other != "export"], ids="-".join)
def test_a_pair_with_an_export(names, tmp_path):
    module = Wrapped()
    fit(tmp_path, list(names), module)
    check(tmp_path, names, module)
    assert (tmp_path / "export" / "model.onnx").exists()
    assert (tmp_path / "export" / "model.int8.onnx").exists() == ("quantize" in names)


@pytest.mark.parametrize(
    ("make", "names"), list(zip(MODULES, ALL, strict=True)), ids=["-".join(names) for names in ALL]
)
def test_all_of_them(make, names, tmp_path):
    module = MODULES[make]()
    fit(tmp_path, names, module)
    check(tmp_path, names, module)
    assert (tmp_path / "export" / "model.int8.onnx").exists()


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("names", [("prune", "distil", "quantize"), ("quantize", "prune")], ids="-".join)
def test_resumed_after_any_epoch(names, tmp_path):
    whole = Wrapped()
    fit(tmp_path, names, whole, every_epoch=True)
    for epoch in range(3):
        module = Wrapped()
        fit(tmp_path, names, module, every_epoch=True, ckpt_path=tmp_path / f"checkpoints/epoch={epoch}.ckpt")
        check(tmp_path, names, module)
        assert {name: digest(value) for name, value in module.state_dict().items()} == {
            name: digest(value) for name, value in whole.state_dict().items()
        }, epoch


@pytest.mark.parametrize("turn", [1, -1])
def test_what_cannot_follow_is_refused_by_name(turn, tmp_path):
    callbacks = [QuantizationAwareTraining(1), StructuredPruning(0.5, start_epoch=2)][::turn]
    trainer = Trainer(max_epochs=4, callbacks=callbacks, logger=False, accelerator="cpu", default_root_dir=tmp_path)
    with pytest.raises(Exception, match="after the last step of StructuredPruning"):
        trainer.fit(Perceptron(), *[[(torch.zeros(2, 1, 8, 8), torch.zeros(2).long())]] * 2)


class Keeping(Wrapped):
    """Keeps the tensors of its steps, and has the older ``weight_norm``."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def make(self):
        with pytest.warns(FutureWarning):
            first = nn.utils.weight_norm(nn.Conv2d(1, 8, 3, padding=1))
        second, third = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), *pooled)

    def training_step(self, batch, batch_idx):
        self.logits = self(batch[0])
        self.losses.append({"loss": F.cross_entropy(self.logits, batch[1])})
        return self.losses[-1]["loss"]


@pytest.mark.filterwarnings("ignore:StructuredPruning keeps layers whole", "ignore:.*weight_norm")
@pytest.mark.parametrize(
    ("precision", "compiles", "exports"),
    [
        ("32-true", True, False),  # QuantizationAwareTraining refuses compiled modules
        pytest.param("bf16-mixed", False, False, marks=pytest.mark.slow),
        pytest.param("32-true", False, True, marks=pytest.mark.slow),
    ],
)
def test_a_module_that_keeps_the_tensors_of_its_steps(precision, compiles, exports, tmp_path):
    module = Keeping()
    if compiles:
        module.compile(backend="eager")
    callbacks = [
        StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False),
        KnowledgeDistillation("dense"),
        AttributionMonitor("Saliency", probe=4),
        ModelCheckpoint(tmp_path / "checkpoints"),
        *([] if compiles else [QuantizationAwareTraining(2, freeze_epoch=3, calibration_batches=1)]),
        *([ModelExport(tmp_path / "export", program=False)] if exports else []),
    ]
    options = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=4, callbacks=callbacks, precision=precision, default_root_dir=tmp_path, **options)
    data = DataLoader(TensorDataset(torch.randn(16, 1, 8, 8), torch.arange(16) % 4), batch_size=8)
    trainer.fit(module, data, data)
    assert len(recipe_of(module).steps) == 2 - compiles
    assert module.losses[0]["loss"].grad_fn is not None  # the module's own are as they were
