"""Make the figures of the documentation: `make figures`. All is trained here, on data that scikit-learn holds.

Four need files that their owners publish: `make figures DATA=folder`, where each data module finds its own folder. What
is not there is left as it is, and named.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from torchmetrics.classification import MulticlassAccuracy

from lit_xai import (
    AttributionMonitor,
    PartialDependence,
    QuantizationAwareTraining,
    RankingMonitor,
    StructuredPruning,
    SurrogateTree,
)
from lit_xai.cli.run import LitXaiCLI, start
from lit_xai.data import BreastCancer, Diabetes, Digits
from lit_xai.data.phrases import SYSTEM
from lit_xai.models import MLP, Classifier, NeuralAdditiveModel, Regressor, ResNet
from lit_xai.pruning.sensitivity import layer_sensitivity
from lit_xai.quantization.sensitivity import quantization_sensitivity
from lit_xai.render import figure_to_rgb, save_png, sensitivity_figure
from lit_xai.trainer.access import callbacks_of

HERE = Path(__file__).parent
GALLERY = HERE / "gallery"
EPOCHS = 10

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
QUIET |= {"accelerator": "cpu", "deterministic": True}


def classifier() -> Classifier:
    """Return the network of configs/digits.yaml."""
    optimizer = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.01)
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01)
    network = ResNet(depth=8, width=16, in_channels=1, num_classes=10)
    return Classifier(network, num_classes=10, optimizer=optimizer, lr_scheduler=schedule)


def train(folder: Path, *callbacks: object, **options: object) -> Classifier:
    """Train on the digits, with callbacks, in a folder of its own."""
    seed_everything(0)
    model = classifier()
    trainer = Trainer(max_epochs=EPOCHS, default_root_dir=folder, callbacks=[*callbacks], **{**QUIET, **options})
    trainer.fit(model, Digits(batch_size=64))
    return model


def keep(figure: Path, name: str) -> None:
    """Copy a run's figure to the gallery."""
    GALLERY.mkdir(exist_ok=True)
    shutil.copyfile(figure, GALLERY / f"{name}.png")


def dense(folder: Path) -> Classifier:
    """Train the dense network: the README's figure, the epochs, then other methods and baselines on what it learned."""
    few = AttributionMonitor(probe=4, name="epochs", at_start=True)
    model = train(folder, AttributionMonitor(probe=10), few)
    shutil.copyfile(
        folder / f"attribution/IntegratedGradients/epoch={EPOCHS - 1}/figure.png", HERE / "attributions.png"
    )
    keep(folder / "attribution/epochs/before-training/figure.png", "untrained")
    keep(folder / f"attribution/epochs/epoch={EPOCHS - 1}/figure.png", "trained")
    monitors = {
        "occlusion": AttributionMonitor("Occlusion", attribute_args={"sliding_window_shapes": (1, 2, 2)}, probe=4),
        "grad-cam": AttributionMonitor("LayerGradCam", layer="network.layer3", probe=4),
        "saliency": AttributionMonitor("Saliency", probe=4),
        "mean": AttributionMonitor(baselines="mean", probe=4, name="mean"),
    }
    trainer = Trainer(default_root_dir=folder / "methods", callbacks=[*monitors.values()], **QUIET)
    trainer.validate(model, Digits(batch_size=64), verbose=False)
    for name, monitor in monitors.items():
        keep(next((folder / "methods/attribution" / monitor.name).glob("*/figure.png")), name)
    return model


def compressed(folder: Path) -> None:
    """Prune to a quarter of the MACs and train for integers: channels, and attributions of what is left."""
    monitor = AttributionMonitor(probe=4, name="compressed")
    pruning = StructuredPruning(target_macs=0.25, start_epoch=3, end_epoch=5, report_latency=False)
    train(folder, pruning, QuantizationAwareTraining(start_epoch=7), monitor, gradient_clip_val=1.0)
    keep(folder / f"attribution/compressed/epoch={EPOCHS - 1}/figure.png", "compressed")
    keep(sorted((folder / "compression").glob("channels-*.png"))[-1], "channels")


def sensitivities(model: Classifier) -> None:
    """Draw which layers tolerate losing channels, and bits."""
    data = Digits(batch_size=256)
    data.prepare_data()
    data.setup("validate")
    loader, metric = data.val_dataloader(), MulticlassAccuracy(10, average="micro")
    pruned = layer_sensitivity(model, loader, metric)
    save_png(figure_to_rgb(sensitivity_figure(pruned, "ResNet-8 on digits")), GALLERY / "layer-sensitivity.png")
    quantized = quantization_sensitivity(model, loader, metric, bits=(8, 4, 2))
    save_png(
        figure_to_rgb(sensitivity_figure(quantized, "ResNet-8 on digits")), GALLERY / "quantization-sensitivity.png"
    )


def table(folder: Path) -> None:
    """Attribute a network on a table: 30 measurements of 569 tumors."""
    seed_everything(0)
    model = Classifier(MLP(30, [32], 2), num_classes=2, optimizer=partial(torch.optim.AdamW, lr=0.01))
    monitor = AttributionMonitor(probe=32, name="table")
    Trainer(max_epochs=EPOCHS, default_root_dir=folder, callbacks=[monitor], **QUIET).fit(model, BreastCancer())
    keep(folder / f"attribution/table/epoch={EPOCHS - 1}/figure.png", "table")


def surrogate(folder: Path) -> Classifier:
    """Fit a tree to a network on the same table, and one to its labels."""
    seed_everything(0)
    model = Classifier(MLP(30, [32], 2), num_classes=2, optimizer=partial(torch.optim.AdamW, lr=0.01))
    tree = SurrogateTree(on_labels=True)
    Trainer(max_epochs=EPOCHS, default_root_dir=folder, callbacks=[tree], **QUIET).fit(
        model, BreastCancer(batch_size=32)
    )
    keep(folder / f"surrogate/epoch={EPOCHS - 1}/figure.png", "surrogate")
    return model


def beeswarm(folder: Path, model: Classifier) -> None:
    """Attribute the tumors of the whole test set, each a dot."""
    monitor = AttributionMonitor(probe=114, kind="beeswarm", name="beeswarm", target=0)
    Trainer(default_root_dir=folder, callbacks=[monitor], **QUIET).test(model, BreastCancer(), verbose=False)
    keep(next((folder / "attribution/beeswarm").glob("*/figure.png")), "beeswarm")


def curves(folder: Path) -> None:
    """Draw the shape functions of an additive model."""
    seed_everything(0)
    optimizer = partial(torch.optim.AdamW, lr=0.005, weight_decay=0.1)
    model = Regressor(NeuralAdditiveModel(10, hidden=[32, 16]), optimizer=optimizer)
    Trainer(max_epochs=EPOCHS, default_root_dir=folder, callbacks=[PartialDependence()], **QUIET).fit(
        model, Diabetes(batch_size=32)
    )
    keep(folder / f"dependence/epoch={EPOCHS - 1}/figure.png", "shape-functions")


@dataclass(frozen=True)
class Published:
    """A figure of a run of a config, on files that a user puts into a folder.

    Args:
        name: of the figure.
        configs: that stack on base.
        option: that names the folder of files.
        files: the folder in the one that holds all, which has to be there.
        drawn: the figure in the run's folder.
        callback: what draws it, if the configs have nothing that does.
    """

    name: str
    configs: tuple[str, ...]
    option: str
    files: str
    drawn: str
    callback: AttributionMonitor | None = None

    def draw(self, folder: Path, data: Path) -> None:
        """Train, and keep the figure."""
        callback = self.callback

        class Run(LitXaiCLI):
            def before_fit(self) -> None:
                callbacks = callbacks_of(self.trainer)
                callbacks += [] if callback is None else [callback]
                for one in callbacks:
                    if isinstance(one, RankingMonitor):
                        one.shown = 1

        stacked = [part for config in ("base", *self.configs) for part in ("--config", config)]
        quiet = ["logger=false", "enable_progress_bar=false", "enable_model_summary=false", "accelerator=cpu"]
        quiet = [f"--trainer.{option}" for option in (*quiet, f"default_root_dir={folder}")]
        found = start(["fit", *stacked, *quiet, f"--data.{self.option}={data}"], Run)
        if found is None:
            raise SystemExit(1)
        keep(folder / self.drawn, self.name)


PUBLISHED = [
    Published(
        "text",
        ("reviews",),
        "data_dir",
        "rotten-tomatoes",
        "attribution/texts/epoch=2/figure.png",
        AttributionMonitor(probe=3, name="texts", every_n_epochs=1000),
    ),
    Published(
        "series",
        ("japanese_vowels",),
        "data_dir",
        "japanese-vowels",
        "attribution/series/epoch=29/figure.png",
        AttributionMonitor(probe=3, name="series", every_n_epochs=1000),
    ),
    Published("ranking", ("movielens", "two_tower"), "data_dir", "ml-100k", "ranking/epoch=7.png"),
    Published("translation", ("phrases", "translation"), "folder", "phrases", "attribution/translation/epoch=19.png"),
]


def published(folder: Path, data: Path, only: Sequence[str]) -> list[str]:
    """Draw the figures whose files are there; return in words which are left as they are."""
    left = []
    for one in PUBLISHED:
        if only and one.name not in only:
            continue
        # Phrases are in the system as well.
        place = data if one.option == "data_dir" else data / one.files if (data / one.files).exists() else Path(SYSTEM)
        if (data / one.files).exists() or one.option != "data_dir":
            one.draw(folder / one.name, place)
        else:
            left.append(f"{one.name}.png (no '{data / one.files}')")
    return left


def main() -> None:
    """Make all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=HERE.parent / "data", help="the folder of published files")
    parser.add_argument("--only", nargs="*", default=[], choices=[one.name for one in PUBLISHED], help="of these alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.only:
            model = dense(folder / "dense")
            sensitivities(model)
            compressed(folder / "compressed")
            table(folder / "table")
            beeswarm(folder / "beeswarm", surrogate(folder / "surrogate"))
            curves(folder / "curves")
        left = published(folder, given.data_dir, given.only)
    sys.stdout.write(f"The figures are in {GALLERY} and {HERE / 'attributions.png'}.\n")
    if left:
        sys.stdout.write(f"Left as they are: {', '.join(left)}.\n")


if __name__ == "__main__":
    main()
