"""Data, networks and measures of retention.py and study.py."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchmetrics.functional.classification import multiclass_calibration_error

from lit_xai.attribution.baselines import make_baselines
from lit_xai.data import CIFAR10, FashionMNIST
from lit_xai.data.augmentation import crop_and_flip, darken
from lit_xai.data.corruption import CORRUPTIONS
from lit_xai.functional import quantize
from lit_xai.models import Classifier, ResNet
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.intervals import retention
from lit_xai.retention.reference import ReferenceExplanations, predict
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.runtime.onnx import export_onnx

IMAGES, BATCH, PROBE, NULLS = 19200, 128, 256, 10
DENSE_EPOCHS, DENSE_LR = 3, 0.1
EXAMPLE = torch.zeros(2, 1, 28, 28)


@dataclass(frozen=True)
class Setting:
    """Which images, how many of them train, the dense network's size and epochs, and where it trains."""

    data: Callable[..., Any]
    images: int
    network: tuple[int, int, int, int]  # depth, width, stride of the stem, channels
    dense_epochs: int
    is_flipped: bool  # training images are flipped and shifted
    accelerator: str


SETTINGS = {
    "fashion_mnist": Setting(FashionMNIST, IMAGES, (8, 16, 2, 1), DENSE_EPOCHS, False, "cpu"),
    "cifar10": Setting(CIFAR10, 45000, (20, 16, 1, 3), 60, True, "auto"),
}


@dataclass(frozen=True)
class Where:
    """Where images are, and which."""

    data_dir: str
    dataset: str

    @property
    def setting(self) -> Setting:
        """What belongs to the images."""
        return SETTINGS[self.dataset]


def where(args: argparse.Namespace) -> Where:
    """Return where a command's images are, by default of Fashion-MNIST."""
    return Where(args.data_dir, getattr(args, "dataset", "fashion_mnist"))


EXPLAINERS = {
    "IG": Explainer("IntegratedGradients"),
    "InputXGradient": Explainer("InputXGradient"),
    "Occlusion": Explainer("Occlusion"),
    "GradCAM": Explainer("LayerGradCam", layer="layer3"),
}

# --- data -------------------------------------------------------------------------------------------------------------


@lru_cache
def data(place: Where) -> Any:
    """Read the images once a process; 5,000 of the training images are left aside."""
    setting = place.setting
    module = setting.data(data_dir=place.data_dir, batch_size=BATCH, val_size=5000, train_size=setting.images)
    module.prepare_data()
    module.setup()
    module.setup("test")
    return module


@lru_cache
def images(place: Where, name: str) -> tuple[Tensor, Tensor]:
    """Return the normalized images of ``"train"``, ``"val"`` or ``"test"`` and their labels."""
    dataset = getattr(data(place), f"{name}_dataloader")().dataset
    return dataset.__getitems__(list(range(len(dataset))))


def of_pixels(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each channel, ``(channels, 1, 1)``."""
    module = data(where(args))
    return tuple(torch.tensor(values)[:, None, None] for values in (module.mean, module.std))  # type: ignore[return-value]


def pixels(args: argparse.Namespace, x: Tensor) -> Tensor:
    """Return images from 0 to 1."""
    mean_, std = of_pixels(args)
    return x * std + mean_


def normalized(args: argparse.Namespace, x: Tensor) -> Tensor:
    """Return what a network is given of images from 0 to 1."""
    mean_, std = of_pixels(args)
    return (x - mean_) / std


def marked(args: argparse.Namespace, x: Tensor, y: Tensor) -> Tensor:
    """Return images whose upper left corner says a class, as a number of four bits of 2x2 white pixels."""
    x, white = x.clone(), float(normalized(args, torch.ones(())))
    for bit in range(4):
        row, column = 2 * (bit // 2), 2 * (bit % 2)
        chosen = ((y + 1) >> bit & 1).bool()
        x[chosen, :, row : row + 2, column : column + 2] = white
    return x


def batches(args: argparse.Namespace, seed: int, share: float = 0.0) -> DataLoader:
    """Return batches of the training images, a share of which bears a mark."""
    x, y = images(where(args), "train")
    generator = torch.Generator().manual_seed(seed)
    if share:
        chosen = torch.rand(len(x), generator=generator) < share
        x = torch.where(chosen[:, None, None, None], marked(args, x, y), x)
    collate = flipped if where(args).setting.is_flipped else None
    return DataLoader(TensorDataset(x, y), BATCH, shuffle=True, drop_last=True, generator=generator, collate_fn=collate)


def flipped(samples: list[Any]) -> list[Tensor]:
    """Return a batch of images that are shifted by up to 4 pixels, and half of them flipped."""
    x, y = default_collate(samples)
    return [crop_and_flip(x, 4), y]


class Darkened:
    """Batches of which half the images are darkened, each by a random factor.

    Args:
        loader: of normalized images.
        args: where the data are.
    """

    def __init__(self, loader: DataLoader, args: argparse.Namespace) -> None:
        self.loader, self.args = loader, args

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for x, y in self.loader:
            yield [normalized(self.args, darken(pixels(self.args, x), 0.5)), y]


# --- networks ---------------------------------------------------------------------------------------------------------


def fit(
    network: nn.Module,
    loader: DataLoader | Darkened,
    seed: int,
    epochs: int,
    lr: float,
    callbacks: Sequence[Any] = (),
    rises: bool = False,
    accelerator: str = "cpu",
) -> None:
    """Train in place with SGD whose learning rate falls along a cosine, after it has risen where ``rises``."""
    seed_everything(seed, verbose=False)
    network.train()
    sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * len(loader)
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
    if rises:
        cosine = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=lr, total_steps=steps)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        default_root_dir="logs/retention",
    )
    trainer.fit(Classifier(network, 10, optimizer=sgd, lr_scheduler=cosine, lr_scheduler_interval="step"), loader)
    network.eval()


def dense(args: argparse.Namespace, seed: int) -> ResNet:
    """Return the trained dense network, from the work folder if it is there."""
    setting = where(args).setting
    depth, width, stride, channels = setting.network
    path = Path(args.work_dir, f"dense-{setting.dense_epochs}-{seed}.pt")
    torch.manual_seed(seed)
    network = ResNet(depth, width=width, stem_stride=stride, in_channels=channels)
    if not path.exists():
        loader = batches(args, seed)
        fit(network, loader, seed, setting.dense_epochs, DENSE_LR, rises=True, accelerator=setting.accelerator)
        partial_path = path.with_suffix(f".{os.getpid()}")
        torch.save(network.state_dict(), partial_path)
        partial_path.replace(path)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def calibration(args: argparse.Namespace) -> list[Tensor]:
    """Return 16 batches of training images."""
    return list(images(where(args), "train")[0][: 16 * 64].split(64))


def quantized(args: argparse.Namespace, network: nn.Module) -> nn.Module:
    """Return a copy in fake-quantised 8-bit integers, without training."""
    return quantize(network, calibration(args), progress=False)


def in_runtime(network: nn.Module, folder: str) -> FileNetwork:
    """Return a network's file in ONNX Runtime."""
    path = Path(folder, "network.onnx")
    export_onnx(network, EXAMPLE, path)
    return FileNetwork(path, threads=1)


# --- measures ---------------------------------------------------------------------------------------------------------


def probe(args: argparse.Namespace) -> Tensor:
    """Return the images that are explained."""
    return images(where(args), "test")[0][:PROBE]


class Reference:
    """The explanations of a dense network, and those of untrained ones, which are kept in the work folder."""

    def __init__(self, network: nn.Module, inputs: Tensor, args: argparse.Namespace, name: str, seed: int) -> None:
        self.network, self.inputs, self.args, self.name, self.seed = network, inputs, args, name, seed
        self._explained: dict[str, ReferenceExplanations] = {}

    def of(self, explainer: str) -> ReferenceExplanations:
        """Return the explanations by one explainer."""
        if explainer not in self._explained:
            mean_, std = data(where(self.args)).mean, data(where(self.args)).std
            takes_one = explainer in ("IG", "Occlusion")
            self._explained[explainer] = ReferenceExplanations(
                self.network,
                self.inputs,
                EXPLAINERS[explainer],
                baselines=make_baselines("black", self.inputs, mean=mean_, std=std) if takes_one else None,
                seed=10_000 * self.seed,
            )
        return self._explained[explainer]

    def nulls(self, explainer: str, n: int = NULLS) -> Tensor:
        """Return the similarity of untrained networks, ``(n, N)``."""
        path = Path(self.args.work_dir, f"untrained-{self.name}-{explainer}.npy")
        rows = list(np.load(path)) if path.exists() else []
        for number in range(len(rows), n):
            network = self.of(explainer).untrained(number)
            rows.append(self.of(explainer).compare(network).similarity.numpy())
            np.save(path, np.stack(rows))
        return torch.from_numpy(np.stack(rows[:n]))

    def judge(self, network: nn.Module, name: str, explainers: Sequence[str] = tuple(EXPLAINERS)) -> dict[str, float]:
        """Return retention by each explainer; keep what it was of every sample."""
        found, kept = {}, {}
        for key in explainers:
            compared = self.of(key).compare(network)
            null = float(self.nulls(key).mean())
            found[key] = retention(float(compared.similarity.mean()), null)
            kept |= {f"{key}_similarity": compared.similarity.numpy(), f"{key}_maps": compared.maps.float().numpy()}
            kept["logits"] = compared.logits.numpy()
        folder = Path(self.args.work_dir, "maps")
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / f"{self.name}-{name}.npz".replace(" ", "_").replace("%", "").replace(",", ""), **kept
        )
        return found


@lru_cache(maxsize=1)
def reference(place: Where, work_dir: str, seed: int) -> Reference:
    """Return that of a seed's dense network on test images."""
    args = argparse.Namespace(data_dir=place.data_dir, dataset=place.dataset, work_dir=work_dir)
    return Reference(dense(args, seed), probe(args), args, f"dense-{seed}", seed)


@lru_cache
def corrupted(place: Where, n: int) -> list[Tensor]:
    """Return test images under each corruption."""
    args = argparse.Namespace(data_dir=place.data_dir, dataset=place.dataset)
    clean = pixels(args, images(place, "test")[0][:n])
    return [normalized(args, corrupt(clean)) for corrupt in CORRUPTIONS.values()]


def predictions(network: nn.Module, original: nn.Module, args: argparse.Namespace) -> dict[str, float]:
    """Return accuracy, flips, KL divergence from the dense network, and calibration, on test images."""
    x, y = images(where(args), "test")
    logits, dense_logits = predict(network, x), predict(original, x)
    return {
        "accuracy": _share(logits.argmax(1) == y),
        "dense": _share(dense_logits.argmax(1) == y),
        "flips": _share(logits.argmax(1) != dense_logits.argmax(1)),
        "kl": float(
            F.kl_div(logits.log_softmax(1), dense_logits.log_softmax(1), reduction="batchmean", log_target=True)
        ),
        "ece": float(multiclass_calibration_error(logits.softmax(1), y, 10)),
        "nll": float(F.cross_entropy(logits, y)),
    }


def robustness(network: nn.Module, args: argparse.Namespace) -> dict[str, float]:
    """Return accuracy on 2,000 test images under each corruption, and the mean."""
    y = images(where(args), "test")[1][:2000]
    parts = zip(CORRUPTIONS, corrupted(where(args), len(y)), strict=True)
    found = {name: _share(predict(network, part).argmax(1) == y) for name, part in parts}
    return found | {"corruptions": mean(found.values())}


def _share(right: Tensor) -> float:
    return float(right.double().mean())
