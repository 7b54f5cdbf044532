"""The monitor's files, figures and schedule, and the errors it raises before the first step."""

import json
import re
import warnings
from pathlib import Path

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from renderers import Words
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lit_xai.callbacks import AttributionMonitor
from lit_xai.data import Digits
from lit_xai.functional import attribute
from lit_xai.network.probing import Probe
from lit_xai.render import register_renderer, unregister_renderer

PACKAGES = pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])


def module_of(package, network, loss=F.cross_entropy):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network

        def forward(self, x):
            return self.net(x)

        def step(self, batch, batch_idx):
            return loss(self(batch[0]), batch[1])

        training_step = validation_step = test_step = step

        def predict_step(self, batch, batch_idx):
            return self(batch[0])

        def on_validation_epoch_end(self):
            self.log("val/marker", 1.0)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module()


def digits_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def loader(n=24, batch_size=8):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 10
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def trainer_of(package, folder, *callbacks, **options):
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | options
    return package.Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def run(
    folder, *callbacks, network=None, package=lightning.pytorch, train=None, val=None, loss=F.cross_entropy, **options
):
    trainer = trainer_of(package, folder, *callbacks, **options)
    module = module_of(package, network or digits_net(), loss)
    trainer.fit(module, loader() if train is None else train, loader() if val is None else val)
    return trainer, module


def arrays(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    found = sorted(folder.rglob("attributions.npz"))
    return {path.parent.name: dict(np.load(path)) for path in found}


@PACKAGES
def test_nothing_but_the_callback(package, tmp_path):
    run(tmp_path, AttributionMonitor(), package=package)
    found = arrays(tmp_path / "attribution" / "IntegratedGradients")
    assert list(found) == ["epoch=0", "epoch=1"]
    assert all((path.parent / "figure.png").stat().st_size > 5000 for path in tmp_path.rglob("attributions.npz"))


@PACKAGES
def test_files_hold_the_attributions_of_the_final_network(package, tmp_path):
    _, module = run(tmp_path, AttributionMonitor(probe=[3, 1, 12]), package=package)
    found = arrays(tmp_path)["epoch=1"]
    x, y = (tensor[[3, 1, 12]] for tensor in loader().dataset.tensors)
    expected = attribute(module, x, target=y)
    assert torch.equal(torch.from_numpy(found["attributions"]), expected)
    assert found["sample_ids"].tolist() == [3, 1, 12]
    assert found["targets"].tolist() == found["labels"].tolist() == y.tolist()
    np.testing.assert_allclose(found["logits"], module(x).detach().numpy(), atol=1e-6)
    probe = np.load(next(tmp_path.rglob("probe-val-*.npz")))
    assert torch.equal(torch.from_numpy(probe["inputs"]), x)


OUTSIDE_FIT = {
    "IntegratedGradients": {},
    "Saliency": {},
    "LRP": {},
    "KernelShap": {"attribute_args": {"feature_mask": 4, "n_samples": 10}},
    "LayerGradientXActivation": {"layer": "net.1"},
    "GradientShap": {"baselines": "mean", "target": "prediction"},
}


@PACKAGES
@pytest.mark.parametrize("method", OUTSIDE_FIT)
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_gradients_outside_fit(package, stage, method, tmp_path):
    trainer = trainer_of(package, tmp_path, AttributionMonitor(method, on_error="raise", **OUTSIDE_FIT[method]))
    module = module_of(package, digits_net())
    getattr(trainer, stage)(module, loader(), verbose=False)
    found = arrays(tmp_path)[f"{stage}-step=0"]
    assert np.abs(found["attributions"]).sum() > 0
    assert not torch.is_inference_mode_enabled()


def test_sanity_check_and_predict_show_nothing(tmp_path):
    trainer, module = run(tmp_path, AttributionMonitor(), num_sanity_val_steps=2, max_epochs=0)
    trainer.predict(module, loader())
    assert arrays(tmp_path) == {}


def test_schedule_and_last_epoch(tmp_path):
    run(tmp_path / "integer", AttributionMonitor(every_n_epochs=2, at_start=True), max_epochs=5)
    names = list(arrays(tmp_path / "integer"))
    assert names == ["before-training", "epoch=1", "epoch=3", "epoch=4"]
    run(tmp_path / "fraction", AttributionMonitor(every_n_epochs=0.5), max_epochs=4)
    assert list(arrays(tmp_path / "fraction")) == ["epoch=1", "epoch=3"]


def test_several_monitors_side_by_side(tmp_path):
    monitors = [
        AttributionMonitor(),
        AttributionMonitor(target="prediction"),
        AttributionMonitor("LayerGradientXActivation", layer="net.1"),
        AttributionMonitor("Saliency", noise_tunnel={"nt_samples": 3}),
        AttributionMonitor(target=3, name="three"),
    ]
    trainer, _ = run(tmp_path, *monitors, max_epochs=1)
    assert sorted(path.name for path in (tmp_path / "attribution").iterdir()) == sorted(m.name for m in monitors)
    trainer.save_checkpoint(tmp_path / "all.ckpt")
    states = torch.load(tmp_path / "all.ckpt", weights_only=True)["callbacks"]
    assert {m.state_key for m in monitors} <= set(states)
    assert np.load(next((tmp_path / "attribution" / "three").rglob("attributions.npz")))["targets"].tolist() == [3] * 8


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resume_shows_the_same(tmp_path):
    def parts(n):
        checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
        return [AttributionMonitor("GradientShap", probe=n), checkpoint]

    whole, first, again = parts(4), parts(4), parts(4)
    run(tmp_path / "whole", *whole[:1], max_epochs=4)
    run(tmp_path / "first", *first, max_epochs=2, enable_checkpointing=True)
    resumed = trainer_of(lightning.pytorch, tmp_path / "second", *again, max_epochs=4, enable_checkpointing=True)
    module = module_of(lightning.pytorch, digits_net())
    resumed.fit(module, loader(), loader(), ckpt_path=tmp_path / "ckpt" / "last.ckpt")
    expected, found = arrays(tmp_path / "whole"), arrays(tmp_path / "first") | arrays(tmp_path / "second")
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert {k: v.tobytes() for k, v in found[name].items()} == {k: v.tobytes() for k, v in values.items()}
    assert again[0]._state == whole[0]._state
    for path in (tmp_path / "second").rglob("figure.png"):
        assert path.read_bytes() == (tmp_path / "whole" / path.relative_to(tmp_path / "second")).read_bytes()


def test_resume_with_another_probe_warns_and_shows_it(tmp_path):
    trainer, module = run(tmp_path, AttributionMonitor(probe=[20]), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    for probe, data in (([1, 2], loader()), ([20], loader(10))):
        monitor = AttributionMonitor(probe=probe) if probe != [20] else AttributionMonitor(probe=[3])
        resumed = trainer_of(lightning.pytorch, tmp_path, monitor, max_epochs=2)
        with pytest.warns(UserWarning, match="samples differ from those of the resumed run"):
            resumed.fit(module, loader(), data, ckpt_path=tmp_path / "one.ckpt")
        assert monitor._state["indices"] == ([1, 2] if probe != [20] else [3])


def test_resume_with_fewer_samples_warns(tmp_path):
    trainer, module = run(tmp_path, AttributionMonitor(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = trainer_of(lightning.pytorch, tmp_path, AttributionMonitor(), max_epochs=2)
    with pytest.warns(UserWarning, match="indices expected 0 to 4"):
        resumed.fit(module, loader(), loader(5), ckpt_path=tmp_path / "one.ckpt")


def test_resume_with_other_data_warns(tmp_path):
    trainer, module = run(tmp_path, AttributionMonitor(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    images, labels = loader().dataset.tensors
    other = DataLoader(TensorDataset(images + 1, labels), batch_size=8)
    resumed = trainer_of(lightning.pytorch, tmp_path, AttributionMonitor(), max_epochs=2)
    with pytest.warns(UserWarning, match="samples differ from those of the resumed run"):
        resumed.fit(module, loader(), other, ckpt_path=tmp_path / "one.ckpt")


def test_one_scale_for_all_epochs(tmp_path, monkeypatch):
    import lit_xai.render

    limits = []
    original = lit_xai.render.attribution_figure
    monkeypatch.setattr(
        lit_xai.render, "attribution_figure", lambda *a, **k: limits.append(k["limit"]) or original(*a, **k)
    )
    run(tmp_path, AttributionMonitor(), max_epochs=3)
    assert len(limits) == 4
    assert len(set(limits[1:])) == 1  # the first is the rehearsal's, which decides nothing


@pytest.mark.parametrize("baselines", ["zero", "black", "mean", "blur", "training", 0.5])
def test_baselines(baselines, tmp_path):
    monitor = AttributionMonitor(baselines=baselines, mean=[0.3], std=[0.5], on_error="raise")
    _, module = run(tmp_path, monitor, max_epochs=1)
    found = next(iter(arrays(tmp_path).values()))
    delta = found["convergence_delta"]
    assert np.abs(delta).max() < 0.3  # attributions add up to the difference from that very baseline
    x = torch.from_numpy(np.load(next(tmp_path.rglob("probe-val-*.npz")))["inputs"])
    base = torch.from_numpy(found["baseline"]).expand_as(x)
    difference = (module(x) - module(base)).gather(1, torch.from_numpy(found["targets"])[:, None]).flatten()
    maps = torch.from_numpy(found["attributions"]).flatten(1).sum(1)
    torch.testing.assert_close(maps - difference.detach(), torch.from_numpy(delta), atol=1e-4, rtol=0)


class Pictures(torch.utils.data.Dataset):
    """Somebody's dataset, whose transform normalizes."""

    class Normalize:
        mean, std = (0.5,), (0.25,)

    transform = Normalize()

    def __len__(self):
        return 16

    def __getitem__(self, index):
        pixels = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(index))
        return (pixels - 0.5) / 0.25, index % 10


def default_baseline(folder, val, **options):
    run(folder, AttributionMonitor(on_error="raise", **options), max_epochs=1, train=val, val=val)
    (found,) = arrays(folder).values()
    return found["baseline"]


def test_the_default_baseline_is_black_where_the_normalization_is_known(tmp_path, caplog):
    pictures = DataLoader(Pictures(), batch_size=8)
    with caplog.at_level("INFO"):
        found = default_baseline(tmp_path / "known", pictures)
    assert np.unique(found).tolist() == [-2.0]
    assert "the baseline is black" in caplog.text
    given = default_baseline(tmp_path / "given", pictures, mean=[0.5], std=[0.2])
    assert np.unique(given).tolist() == [-2.5]
    assert not default_baseline(tmp_path / "zero", pictures, baselines="zero").any()
    assert not default_baseline(tmp_path / "unknown", loader()).any()


def test_the_title_names_the_baseline_that_was_taken(tmp_path, monkeypatch):
    import lit_xai.render

    titles = []
    original = lit_xai.render.attribution_figure
    monkeypatch.setattr(
        lit_xai.render, "attribution_figure", lambda *a, **k: titles.append(k["title"]) or original(*a, **k)
    )
    default_baseline(tmp_path, DataLoader(Pictures(), batch_size=8))
    assert all("baseline: black" in title for title in titles)
    assert titles


class Named(nn.Module):
    """Takes its input by name."""

    def __init__(self):
        super().__init__()
        self.net = digits_net()

    def forward(self, x):
        return self.net(x)


def keys_of(folder, collate, where=None):
    class Module(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Named()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return self(batch["x"] if isinstance(batch, dict) else batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    dataset = loader().dataset
    data = DataLoader(dataset, 8, collate_fn=lambda rows: collate(*map(torch.stack, zip(*rows, strict=True))))
    trainer = trainer_of(
        lightning.pytorch, folder, AttributionMonitor(on_error="raise", batch_to_target=where), max_epochs=1
    )
    trainer.fit(Module(), data)
    (found,) = arrays(folder).values()
    assert list(folder.rglob("figure.png"))  # of this very name
    return set(found), found["labels"].tolist(), set(np.load(next(folder.rglob("probe-train-*.npz"))))


@pytest.mark.parametrize(
    ("collate", "where", "has_labels"),
    [
        (lambda x, y: (x, y), None, True),
        (lambda x, y: {"x": x, "label": y}, None, True),
        (lambda x, y: {"x": x, "digit": y}, "digit", True),
        (lambda x, y: {"x": x, "digit": y}, None, False),
        (lambda x, y: (x,), None, False),
    ],
)
def test_the_names_in_the_files_do_not_depend_on_the_batch(collate, where, has_labels, tmp_path):
    found, labels, probe = keys_of(tmp_path, collate, where)
    names = {"attributions", "baseline", "logits", "targets", "labels", "sample_ids", "convergence_delta"}
    assert found == names
    assert len(labels) == (8 if has_labels else 0)
    assert probe == {"inputs", "labels", "sample_ids"}


def test_a_probe_is_spread_over_classes_under_any_key():
    from lit_xai.network.probing import choose_indices

    samples = [{"x": torch.zeros(1), "digit": label} for label in (3, 3, 3, 1, 3, 0)]
    assert choose_indices(samples, Probe(n=3), batch_to_target="digit") == [5, 3, 0]
    assert choose_indices(samples, Probe(n=3)) == [0, 1, 2]


def test_labels_that_are_not_where_they_were_named_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"batch_to_target='digits' is not in a batch of .* Did you mean 'digit'"):
        keys_of(tmp_path, lambda x, y: {"x": x, "digit": y}, "digits")


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*loader().dataset.tensors, strict=True)


def test_stream(tmp_path):
    run(
        tmp_path,
        AttributionMonitor(probe=4),
        train=DataLoader(Stream(), batch_size=8),
        val=DataLoader(Stream(), batch_size=8),
    )
    assert all(found["sample_ids"].tolist() == [0, 1, 2, 3] for found in arrays(tmp_path).values())


def test_stream_resumes(tmp_path):
    data = DataLoader(Stream(), batch_size=8)
    trainer, module = run(tmp_path, AttributionMonitor(probe=4), train=data, val=data, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = trainer_of(lightning.pytorch, tmp_path / "again", AttributionMonitor(probe=4), max_epochs=2)
    resumed.fit(module, data, data, ckpt_path=tmp_path / "one.ckpt")
    assert list(arrays(tmp_path / "again")) == ["epoch=1"]


class OwnGenerators(torch.utils.data.Dataset):
    """Augments with generators of its own, as some transform libraries do."""

    def __init__(self):
        self.data = loader().dataset
        self.transforms = [{"numpy": np.random.default_rng(0)}]
        self.torch = torch.Generator().manual_seed(0)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, label = self.data[index]
        noise = self.transforms[0]["numpy"].normal() + torch.randn((), generator=self.torch)
        return (image + noise).float(), label


def test_generators_of_the_dataset_stay_where_they_are(tmp_path):
    losses = []
    for callbacks in ([AttributionMonitor(probe=Probe(loader="train"))], []):
        torch.manual_seed(0)
        _, module = run(tmp_path, *callbacks, train=DataLoader(OwnGenerators(), batch_size=8))
        losses.append([p.detach().clone() for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_a_forward_that_logs(tmp_path):
    class Logs(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = digits_net()

        def forward(self, x):
            logits = self.net(x)
            self.log("activation", logits.mean(), on_step=True, on_epoch=True)
            return logits

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    seen = []
    for callbacks in ([AttributionMonitor(on_error="raise")], []):
        torch.manual_seed(0)
        trainer = trainer_of(lightning.pytorch, tmp_path, *callbacks)
        module = Logs()
        trainer.fit(module, loader())
        seen.append(float(trainer.callback_metrics["activation_epoch"]))
        assert "log" not in vars(module)
    assert seen[0] == seen[1]


def test_hooks_that_augment_in_training_leave_validation_samples_alone(tmp_path):
    module = module_of(lightning.pytorch, digits_net())
    module.on_after_batch_transfer = lambda batch, _: (
        [batch[0] + 100 * module.trainer.training, batch[1]] if not module.trainer.sanity_checking else batch
    )
    trainer_of(lightning.pytorch, tmp_path, AttributionMonitor(), max_epochs=1).fit(module, loader(), loader())
    assert np.load(next(tmp_path.rglob("probe-val-*.npz")))["inputs"].max() < 10


def test_labels_that_are_no_classes_fall_back_on_the_prediction(tmp_path):
    images, labels = loader().dataset.tensors
    data = DataLoader(TensorDataset(images, torch.where(labels == 2, -100, labels)), batch_size=8)
    run(tmp_path, AttributionMonitor(probe=[1, 2], on_error="raise"), train=loader(), val=data)
    found = arrays(tmp_path)["epoch=1"]
    assert found["targets"].tolist() == [1, int(found["logits"][1].argmax())]


def test_one_hot_labels_are_classes(tmp_path):
    images, labels = loader().dataset.tensors
    data = DataLoader(TensorDataset(images, F.one_hot(labels, 10).float()), batch_size=8)
    run(tmp_path, AttributionMonitor(probe=[3, 5], on_error="raise"), train=data, val=data)
    assert arrays(tmp_path)["epoch=1"]["targets"].tolist() == [3, 5]


def test_fast_dev_run_writes_nothing(tmp_path):
    run(tmp_path, AttributionMonitor(), fast_dev_run=True)
    assert not list(tmp_path.rglob("*.npz"))


def test_without_validation_it_looks_at_training_samples(tmp_path):
    trainer = trainer_of(lightning.pytorch, tmp_path, AttributionMonitor(), limit_val_batches=0)
    trainer.fit(module_of(lightning.pytorch, digits_net()), loader(), loader())
    assert list(tmp_path.rglob("probe-train-*.npz"))
    assert len(arrays(tmp_path)) == 2


def test_tabular_regression(tmp_path):
    x = torch.randn(24, 5)
    data = DataLoader(TensorDataset(x, x @ torch.arange(5.0)), batch_size=8)
    network = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))
    run(
        tmp_path,
        AttributionMonitor(feature_names=list("abcde")),
        network=network,
        train=data,
        val=data,
        loss=F.mse_loss,
    )
    assert len(list(tmp_path.rglob("figure.png"))) == 2


def test_dict_batches_and_two_inputs(tmp_path):
    class TwoTowers(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, left, right):
            return {"logits": self.left(left) + self.right(right)}

    class Module(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = TwoTowers()

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch["left"], batch["right"])["logits"], batch["label"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = [{"left": torch.randn(4), "right": torch.randn(2), "id": str(i), "label": i % 3} for i in range(12)]
    monitor = AttributionMonitor(module="net", on_error="raise")
    trainer_of(lightning.pytorch, tmp_path, monitor).fit(Module(), DataLoader(data, batch_size=4))
    found = next(iter(arrays(tmp_path).values()))
    assert found["attributions.left"].shape == (8, 4)
    assert found["attributions.right"].shape == (8, 2)
    assert {path.name for path in tmp_path.rglob("*.png")} == {"figure-left.png", "figure-right.png"}


# --- refused before the first step ------------------------------------------------------------------------------------


class NoSteps(lightning.pytorch.Callback):
    """Fails the test if training begins."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pytest.fail("a step was taken")


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 4), nn.Linear(4, 10)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


REFUSED = {
    "method": (lambda: AttributionMonitor("IntegratedGradient"), "Did you mean 'IntegratedGradients'"),
    "method path": (lambda: AttributionMonitor("captum.attr.Salience"), "Did you mean 'Saliency'"),
    "layer": (lambda: AttributionMonitor("LayerGradCam", layer="net.one"), "layer='net.one' is no part of Module"),
    "no layer": (lambda: AttributionMonitor("LayerGradCam"), "requires layer="),
    "attribute_args": (lambda: AttributionMonitor(attribute_args={"n_step": 3}), "Did you mean 'n_steps'"),
    "init_args": (
        lambda: AttributionMonitor(init_args={"multiply_by_input": True}),
        "Did you mean 'multiply_by_inputs'",
    ),
    "missing option": (lambda: AttributionMonitor("Occlusion"), "requires 'sliding_window_shapes'"),
    "noise_tunnel": (lambda: AttributionMonitor(noise_tunnel={"nt_sample": 3}), "Did you mean 'nt_samples'"),
    "module": (lambda: AttributionMonitor(module="nett"), "Did you mean 'net'"),
    "batch_to_inputs": (
        lambda: AttributionMonitor(batch_to_inputs="image"),
        "batch_to_inputs='image' is not in a batch",
    ),
    "output": (lambda: AttributionMonitor(output="logits"), "name them with output="),
    "target": (lambda: AttributionMonitor(target="labels"), "Did you mean 'label'"),
    "baselines": (lambda: AttributionMonitor(baselines="blurr"), "Did you mean 'blur'"),
    "black": (lambda: AttributionMonitor(baselines="black"), "needs the mean and std"),
    "on_error": (lambda: AttributionMonitor(on_error="ignore"), "on_error expected one of warn, raise"),
    "every_n_epochs": (lambda: AttributionMonitor(every_n_epochs=-1), "every_n_epochs expected"),
    "probe type": (lambda: AttributionMonitor(probe="8"), "probe expected a number of samples"),
    "kind": (lambda: AttributionMonitor(kind="imgae"), "Did you mean 'image'"),
    "name": (lambda: AttributionMonitor(name="../evil"), "name expected the name of a folder"),
    "internal_batch_size": (lambda: AttributionMonitor(internal_batch_size=0), "internal_batch_size expected"),
    "never": (lambda: AttributionMonitor(every_n_epochs=0), "every_n_epochs expected 1 or more"),
    "no baseline to take": (lambda: AttributionMonitor("Saliency", baselines="black"), "since Saliency takes none"),
    "probe index": (lambda: AttributionMonitor(probe=[99]), "indices expected 0 to 23, but got 99"),
    "probe loader": (lambda: AttributionMonitor(probe=Probe(loader="test")), "no test loader"),
    "reused module": (lambda: AttributionMonitor("LRP"), "used more than once: 'net.a'"),
}


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x):
        return self.b(self.a(self.a(x.flatten(1))))


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(case, tmp_path):
    make, message = REFUSED[case]
    network = Reused() if case == "reused module" else None
    with pytest.raises(ValueError, match=r"(?s).*") as raised:
        run(tmp_path, make(), NoSteps(), network=network)
    assert message in str(raised.value)


class Broken(Words):
    def draw(self, drawing):
        raise IndexError("no such word")


UNDRAWABLE = {
    "kind": ({"kind": "tabular"}, "kind='tabular' expected attributions (N, features)"),
    "feature_names": ({"feature_names": ["a"], "kind": "tabular"}, "feature_names expected 3 names"),
    "class_names": ({"class_names": ["one", "two"]}, "class_names expected 3 names, one per output, but got 2"),
    "draw": ({"kind": Broken()}, "no such word"),
}


@pytest.mark.parametrize("case", UNDRAWABLE)
@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_figures_that_cannot_be_drawn_are_refused_before_the_first_step(case, on_error, tmp_path):
    options, message = UNDRAWABLE[case]
    if case == "kind":
        monitor = AttributionMonitor("LayerIntegratedGradients", layer="net.0", on_error=on_error, **options)
    else:
        monitor = AttributionMonitor("FeatureAblation", on_error=on_error, **options)
    tokens, labels = torch.tensor([[0, 1, 2], [3, 0, 1], [2, 2, 2]]), torch.tensor([0, 1, 2])
    data = DataLoader(TensorDataset(tokens, labels), batch_size=3)
    with pytest.raises((ValueError, IndexError), match=re.escape(message)):
        run(tmp_path, monitor, NoSteps(), network=text_net(), train=data, val=data)


def test_activations_speak_for_no_class(tmp_path, monkeypatch):
    import lit_xai.render

    ends = []
    original = lit_xai.render.attribution_figure
    monkeypatch.setattr(
        lit_xai.render, "attribution_figure", lambda *a, **k: ends.append(k["ends"]) or original(*a, **k)
    )
    run(tmp_path, AttributionMonitor("LayerActivation", layer="net.1", on_error="raise"), max_epochs=1)
    assert set(ends) == {("negative", "positive activation")}


@pytest.mark.parametrize("target", ["prediction", 10])
def test_the_closing_line_names_the_folder_only_if_something_is_there(target, tmp_path, caplog):
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(tmp_path, AttributionMonitor(target=target), max_epochs=1)
    assert ("figures and attributions are in" in caplog.text) == (target != 10)


def test_two_of_one_name(tmp_path):
    with pytest.raises(MisconfigurationException, match="have the name 'IntegratedGradients'"):
        run(tmp_path, AttributionMonitor(), AttributionMonitor(), NoSteps())


def test_integer_inputs_name_the_embedding(tmp_path):
    data = DataLoader(TensorDataset(torch.randint(20, (24, 5)), torch.arange(24) % 10), batch_size=8)
    with pytest.raises(ValueError, match=r"LayerIntegratedGradients' and layer='net\.embed'"):
        run(tmp_path, AttributionMonitor("IntegratedGradients"), NoSteps(), network=Tokens(), train=data, val=data)
    run(
        tmp_path,
        AttributionMonitor("LayerIntegratedGradients", layer="net.embed"),
        network=Tokens(),
        train=data,
        val=data,
    )
    assert next(iter(arrays(tmp_path).values()))["attributions"].shape == (8, 5, 4)


def test_tokens_are_explained_at_their_embedding(tmp_path, caplog, monkeypatch):
    import lit_xai.render

    data = DataLoader(TensorDataset(torch.randint(20, (24, 5)), torch.arange(24) % 10), batch_size=8)
    named = AttributionMonitor("LayerIntegratedGradients", layer="net.embed", name="named", baselines=0)
    titles, sizes, monitor = [], [], AttributionMonitor()
    original = lit_xai.render.attribution_figure

    def figure(shown, maps, **options):
        titles.append(options["title"])
        sizes.append(lit_xai.render.registry.choose_renderer(shown, maps, None).find_shares(shown, maps).values.shape)
        return original(shown, maps, **options)

    monkeypatch.setattr(lit_xai.render, "attribution_figure", figure)
    with caplog.at_level("INFO"):
        run(tmp_path, monitor, named, network=Tokens(), train=data, val=data, max_epochs=1)
    assert monitor.name == "LayerIntegratedGradients-net.embed"
    assert monitor.state_key == "AttributionMonitor[IntegratedGradients]"
    assert "explained at the embedding 'net.embed' that they enter" in caplog.text
    assert "LayerIntegratedGradients, layer net.embed, target: label, baseline: token 0" in titles[0]
    assert sizes[-1] == (8, 1, 5)  # one number for each token
    files = {path.parts[-3]: path for path in tmp_path.rglob("attributions.npz")}
    assert set(files) == {"LayerIntegratedGradients-net.embed", "named"}
    with np.load(files["named"]) as other, np.load(files[monitor.name]) as own:
        assert own["attributions"].shape == (8, 5, 4)
        assert (own["attributions"] == other["attributions"]).all()
    assert not list(tmp_path.rglob("attribution/IntegratedGradients"))


def test_tokens_by_default_and_by_name_are_two_of_one_name(tmp_path):
    data = DataLoader(TensorDataset(torch.randint(20, (24, 5)), torch.arange(24) % 10), batch_size=8)
    named = AttributionMonitor("LayerIntegratedGradients", layer="net.embed")
    with pytest.raises(MisconfigurationException, match=r"have the name 'LayerIntegratedGradients-net\.embed'"):
        run(tmp_path, AttributionMonitor(), named, NoSteps(), network=Tokens(), train=data, val=data)


@pytest.mark.filterwarnings("ignore:.*Total length of.*is zero")
def test_empty_loader(tmp_path):
    empty = DataLoader(TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)))
    trainer = trainer_of(lightning.pytorch, tmp_path, AttributionMonitor(probe=Probe(loader="val")), NoSteps())
    with pytest.raises(ValueError, match=r"empty|no val loader"):
        trainer.fit(module_of(lightning.pytorch, digits_net()), loader(), empty)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="default_root_dir"):
        run(tmp_path / "file" / "run", AttributionMonitor(), NoSteps())


# --- what turns up later is one warning -------------------------------------------------------------------------------


class Failing(nn.Module):
    """Outputs NaN from the second epoch on."""

    def __init__(self):
        super().__init__()
        self.net = digits_net()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return self.net(x) * (float("nan") if self.calls > 3 else 1.0)


def test_nan_output_is_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="NaN or infinite") as warned:
        trainer, _ = run(tmp_path, AttributionMonitor(), network=Failing(), max_epochs=4)
    assert sum("NaN or infinite" in str(w.message) for w in warned) == 1
    assert trainer.current_epoch == 4
    assert list(arrays(tmp_path)) == ["epoch=0"]


class Steep(nn.Sequential):
    """Steps between its values, which hardly any path of two points meets."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 10))

    def forward(self, x):
        return super().forward(x) + 20 * torch.sigmoid(50 * super().forward(x))


def test_attributions_that_do_not_add_up_are_one_warning(tmp_path):
    monitor = AttributionMonitor(attribute_args={"n_steps": 2})
    with pytest.warns(UserWarning, match="IntegratedGradients does not add up") as warned:
        trainer, _ = run(tmp_path, monitor, network=Steep(), max_epochs=3)
    told = [str(w.message) for w in warned if "does not add up" in str(w.message)]
    assert len(told) == 1
    assert "raise n_steps in attribute_args" in told[0]
    assert len(arrays(tmp_path)) == trainer.current_epoch == 3


def test_target_out_of_range_is_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="classes from 0 to 9") as warned:
        trainer, _ = run(tmp_path, AttributionMonitor(target=10), max_epochs=3)
    assert sum("classes from 0 to 9" in str(w.message) for w in warned) == 1
    assert trainer.current_epoch == 3


def test_raise_on_request(tmp_path):
    with pytest.raises(ValueError, match="classes from 0 to 9"):
        run(tmp_path, AttributionMonitor(target=10, on_error="raise"))


def test_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    import lit_xai.attribution.evaluation as evaluation

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(evaluation, "save_arrays", full)
    with pytest.warns(UserWarning, match="No space left"):
        trainer, _ = run(tmp_path, AttributionMonitor(), max_epochs=2)
    assert trainer.current_epoch == 2


# --- nothing stays behind ---------------------------------------------------------------------------------------------


def test_nothing_survives_an_exception(tmp_path):
    class Interrupt(lightning.pytorch.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4:
                raise RuntimeError("stop")

    monitor = AttributionMonitor()
    with pytest.raises(RuntimeError, match="stop"):
        run(tmp_path, monitor, Interrupt())
    assert monitor._samples is None


def test_digits_end_to_end_with_data_module(tmp_path):
    from lit_xai.models import MLP, Classifier

    trainer = trainer_of(
        lightning.pytorch, tmp_path, AttributionMonitor(baselines="black", on_error="raise"), max_epochs=3
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.fit(Classifier(MLP(64, (32,), 10), num_classes=10), datamodule=Digits(batch_size=64))
    assert len(arrays(tmp_path)) == 3
    assert json.dumps(trainer.callbacks[0]._state)  # plain values


class Sentences(Words):
    drawn = []

    def draw(self, drawing):
        figure = super().draw(drawing)
        self.drawn.append([text.get_text() for text in figure.texts])
        return figure


def text_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(4, 8), nn.Flatten(), nn.Linear(24, 3))


@pytest.mark.parametrize("kind", ["words", None], ids=["by name", "where it suits"])
def test_a_renderer_of_ones_own_draws_the_pictures_of_a_fit(kind, tmp_path):
    tokens, labels = torch.tensor([[0, 1, 2], [3, 0, 1], [2, 2, 2]]), torch.tensor([0, 1, 2])
    data = DataLoader(TensorDataset(tokens, labels), batch_size=3)
    Sentences.drawn.clear()
    register_renderer(Sentences())
    try:
        monitor = AttributionMonitor("FeatureAblation", probe=2, kind=kind)
        run(tmp_path, monitor, network=text_net(), train=data, val=data, max_epochs=2)
    finally:
        unregister_renderer("words")
    assert len(Sentences.drawn) == 3  # the rehearsal's, and one per epoch
    assert all([word[0] for word in words[1:]] == ["a", "b", "c"] for words in Sentences.drawn)
    assert len(list(tmp_path.rglob("figure.png"))) == 2
    with pytest.raises(ValueError, match=r"kind expected one of image, tabular, beeswarm, .*, but got 'words'"):
        AttributionMonitor(kind="words")
