import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_xai.data import Digits, ImageDataModule
from lit_xai.data.augmentation import crop_and_flip

# Lightning advises more workers on any machine with more than one core; images in memory need none.
pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@pytest.fixture
def digits():
    data = Digits(batch_size=100)
    data.prepare_data()
    data.setup()
    return data


def test_what_is_known_before_setup():
    data = Digits()
    assert (data.mean, data.std) == ((0.3054,), (0.3755,))
    assert data.class_names == list("0123456789")
    assert data.num_classes == 10
    assert data.input_shape == (1, 8, 8)
    plain = Digits(normalize=False)
    assert (plain.mean, plain.std) == ((0.0,), (1.0,))


def test_batches_are_float_images_and_integer_labels(digits):
    for loader in (digits.train_dataloader(), digits.val_dataloader(), digits.test_dataloader()):
        for x, y in loader:
            assert x.shape[1:] == (1, 8, 8)
            assert len(x) == len(y) <= 100
            assert x.dtype == torch.float32
            assert y.dtype == torch.int64


def test_training_and_validation_share_no_image_and_lose_none(digits):
    images, targets = digits.read(train=True)
    together = torch.cat([digits.train_dataset.images, digits.val_dataset.images]).flatten(1)
    labels = torch.cat([digits.train_dataset.targets, digits.val_dataset.targets])
    # Sorted as rows of pixels and label, both are the same list: nothing twice, nothing lost, labels in place.
    rows = sorted(torch.cat([images.flatten(1), targets[:, None]], 1).tolist())
    assert sorted(torch.cat([together, labels[:, None]], 1).tolist()) == rows
    assert len(digits.val_dataset) == 144


def test_the_split_follows_its_own_seed_alone(digits):
    torch.manual_seed(1)
    again, other = Digits(), Digits(seed=1)
    again.setup("fit"), other.setup("fit")
    assert torch.equal(again.val_dataset.images, digits.val_dataset.images)
    assert not torch.equal(other.val_dataset.images, digits.val_dataset.images)


def test_training_order_follows_the_global_seed_and_changes_every_epoch(digits):
    def epochs(seed):
        torch.manual_seed(seed)
        loader = digits.train_dataloader()
        return [torch.cat([y for _, y in loader]) for _ in range(2)]

    first, second = epochs(0)
    assert torch.equal(first, epochs(0)[0])
    assert not torch.equal(first, second)
    assert not torch.equal(first, epochs(1)[0])
    assert torch.equal(first.sort().values, second.sort().values)


@pytest.mark.parametrize("options", [{"augment": True}, {"darken": 1.0}, {"augment": True, "darken": 0.5}], ids=str)
def test_only_training_images_are_augmented(digits, options):
    moving = Digits(batch_size=100, **options)
    moving.setup()
    assert torch.equal(moving.train_dataset.images, digits.train_dataset.images)
    torch.manual_seed(0)
    x, _ = moving.train_dataset.__getitems__(range(50))
    assert not torch.equal(x, digits.train_dataset.__getitems__(range(50))[0])
    assert torch.equal(moving.val_dataset[3][0], digits.val_dataset[3][0])
    assert torch.equal(moving.test_dataset[3][0], digits.test_dataset[3][0])


def test_images_are_darkened_towards_black_before_normalization():
    dim = Digits(darken=1.0)
    dim.setup("fit")
    black = (0.0 - dim.mean[0]) / dim.std[0]
    torch.manual_seed(0)
    (x, _), original = dim.train_dataset.__getitems__(range(50)), dim.train_dataset.images[:50].float() / 16
    pixels = x * dim.std[0] + dim.mean[0]
    assert float(x.min()) >= black - 1e-5
    assert bool((pixels <= original + 0.5 / 16 + 1e-5).all())
    assert float(pixels.mean() / original.mean()) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("share", [-0.1, 1.5, "half", True, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"^darken expected a share of the training images, 0 to 1, but got"):
        Digits(darken=share)


def test_digits_are_shifted_by_one_pixel_and_never_mirrored():
    moving = Digits(augment=True, normalize=False)
    moving.setup("fit")
    x, _ = moving.train_dataset.__getitems__([0] * 200)
    padded = torch.nn.functional.pad(moving.train_dataset.images[0, 0].float() / 16, (1, 1, 1, 1))
    shifts = {tuple(padded[i : i + 8, j : j + 8].flatten().tolist()) for i in range(3) for j in range(3)}
    assert {tuple(image.flatten().tolist()) for image in x} == shifts


def test_fits_tests_and_predicts(make_trainer, make_model):
    torch.manual_seed(0)
    data, model, trainer = Digits(batch_size=64), make_model(64), make_trainer(max_epochs=8)
    trainer.fit(model, datamodule=data)
    assert trainer.test(model, datamodule=data, verbose=False)[0]["accuracy"] > 0.85
    predictions = torch.cat(trainer.predict(model, datamodule=data))
    assert (predictions == data.test_dataset.targets).float().mean() > 0.85
    full = ((64, 1, 8, 8), torch.float32, (64,), torch.int64)
    assert all(seen.count(full) >= len(seen) * 2 // 3 for seen in model.seen.values())
    assert len(model.seen["train"]) == 8 * 21  # 1293 images in batches of 64, the last one smaller


def test_the_images_are_read_once(monkeypatch, make_trainer, make_model):
    parts = []
    read = Digits.read
    monkeypatch.setattr(Digits, "read", lambda self, train: parts.append(train) or read(self, train))
    data, model, trainer = Digits(), make_model(64), make_trainer(limit_train_batches=1)
    trainer.fit(model, datamodule=data)
    assert parts == [True]
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.test(model, datamodule=data, verbose=False)
    trainer.predict(model, datamodule=data)
    assert parts == [True, False]


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # which is the point
def test_without_validation_images_lightning_skips_validation(make_trainer, make_model):
    data, model = Digits(val_size=0), make_model(64)
    make_trainer().fit(model, datamodule=data)
    assert len(data.train_dataset) == 1437
    assert model.seen["val"] == []
    assert model.seen["train"]


def test_sizes_and_drop_last(make_trainer, make_model):
    data, model = Digits(batch_size=64, val_size=37, train_size=200, drop_last=True), make_model(64)
    make_trainer(num_sanity_val_steps=0).fit(model, datamodule=data)
    assert [seen[0][0] for seen in model.seen["train"]] == [64] * 3
    assert [seen[0][0] for seen in model.seen["val"]] == [37]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size expected a positive integer, but got 0"),
        ({"batch_size": 1.5}, "but got 1.5"),
        ({"batch_size": True}, "but got True"),
        ({"num_workers": -1}, "num_workers expected an integer of at least 0, but got -1"),
        ({"seed": -1}, "seed expected an integer from 0 to 4294967295, but got -1"),
        ({"seed": 2**32}, "but got 4294967296"),
        ({"val_size": 1437}, "expected to leave samples to train on"),
        ({"val_size": 2000}, "val_size expected a number of samples up to 1437"),
        ({"drop_last": True, "train_size": 100}, "batch_size expected an integer from 1 to 100, .*, but got 128"),
    ],
)
def test_refuses_arguments_before_the_first_step(make_trainer, make_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_trainer().fit(make_model(64), datamodule=Digits(**arguments))


def test_loaders_before_setup_say_what_to_call():
    with pytest.raises(MisconfigurationException, match=r"Digits has not been read yet: call `prepare_data\(\)`"):
        Digits().train_dataloader()
    with pytest.raises(MisconfigurationException, match="not been read yet"):
        Digits().val_dataloader()


def test_the_configuration_is_in_the_checkpoint(tmp_path, make_trainer, make_model):
    trainer = make_trainer(limit_train_batches=1, limit_val_batches=0)
    trainer.fit(make_model(64), datamodule=Digits(batch_size=17, val_size=0.3, normalize=False))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    again = Digits.load_from_checkpoint(tmp_path / "some.ckpt")
    assert (again.batch_size, again.val_size, again.mean) == (17, 0.3, (0.0,))


YAML = """
data:
  class_path: lit_xai.data.Digits
  init_args: {batch_size: 64, val_size: 300, train_size: 500, augment: true}
"""


def test_from_yaml(tmp_path, monkeypatch):
    (tmp_path / "digits.yaml").write_text(YAML)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls a method of it with a new name
    monkeypatch.setattr(sys, "argv", ["lit-xai", "--config", str(tmp_path / "digits.yaml")])
    data = LightningCLI(BoringModel, subclass_mode_data=True, seed_everything_default=False, run=False).datamodule
    data.setup()
    assert isinstance(data, Digits)
    # Whole numbers have to arrive as such: as floats they would be fractions.
    assert (len(data.train_dataset), len(data.val_dataset)) == (500, 300)
    assert data.train_dataset.augment.func is crop_and_flip


# Images are filled with their own index, so that each process can tell what it was given.
TWO_PROCESSES = """
import json, sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lit_xai.data import MNIST

folder = Path(sys.argv[1])

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"indices": [], "shapes": []}

    def _see(self, batch):
        x, y = batch
        index = (x[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(index % 10, y)
        self.seen["indices"] += index.tolist()
        self.seen["shapes"].append(list(x.shape))
        return self.weight * x.mean()

    def training_step(self, batch, batch_idx):
        return self._see(batch)

    def test_step(self, batch, batch_idx):
        self._see(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_end(self):
        self.write("train")

    def on_test_end(self):
        self.write("test")

    def write(self, stage):
        (folder / f"{stage}{self.global_rank}.json").write_text(json.dumps(self.seen))

torch.set_num_threads(1)
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
data, model = MNIST(folder, batch_size=8, val_size=0, normalize=False), Model()
trainer = Trainer(accelerator="cpu", strategy="ddp_fork", devices=2, max_epochs=1, **options)
trainer.fit(model, datamodule=data)
trainer.test(model, datamodule=data, verbose=False)
"""


@pytest.mark.slow
def test_two_processes_share_the_images(tmp_path, write_mnist):
    write_mnist(tmp_path / "mnist", train=60, test=30)
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    root = str(Path(sys.modules[ImageDataModule.__module__].__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for stage, count, sizes in (("train", 60, [8, 8, 8, 6]), ("test", 30, [8, 7])):
        first, second = (json.loads((tmp_path / f"{stage}{rank}.json").read_text()) for rank in (0, 1))
        assert first["shapes"] == second["shapes"] == [[size, 1, 28, 28] for size in sizes]
        assert sorted(first["indices"] + second["indices"]) == list(range(count))
