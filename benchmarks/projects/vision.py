"""Images: anomalies, self-supervision, segmentation, detection, restoration, generation."""

from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from projects.project import BATCH_SIZE, SAMPLES, Built, from_repository, loader, project


def _pictures(size: int = 32) -> list[tuple[torch.Tensor, int]]:
    return [(torch.rand(3, size, size), i % 3) for i in range(SAMPLES)]


# --- anomalies --------------------------------------------------------------------------------------------------------


def _anomaly(name: str, size: int, **options: Any) -> Built:
    # A feature extractor would fetch weights.
    import timm
    from anomalib import models
    from anomalib.data import ImageBatch, ImageItem

    create = timm.create_model
    with patch.object(timm, "create_model", lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False})):
        kind = getattr(models, name)
        module = kind(
            pre_processor=kind.configure_pre_processor(image_size=(size, size)),
            post_processor=False,
            evaluator=False,
            visualizer=False,
            **options,
        )
    items = [ImageItem(image=torch.rand(3, size, size), gt_label=torch.tensor(0)) for _ in range(SAMPLES)]
    return Built(module, loader(items, collate_fn=ImageBatch.collate))


@project(network="model", inputs="image", logits="output[1]: the reconstruction", labels=None)
def ganomaly() -> Built:
    return _anomaly("Ganomaly", 32, batch_size=BATCH_SIZE, n_features=16, latent_vec_size=16)


@project(network="model", inputs="image", logits="a list of hidden variables, and of Jacobians", labels=None)
def fastflow() -> Built:
    return _anomaly("Fastflow", 64, pre_trained=False, flow_steps=2)


@project(network="model.student_model", inputs="image", logits="a dict of feature maps", labels=None)
def stfpm() -> Built:
    return _anomaly("Stfpm", 64)


# --- self-supervision -------------------------------------------------------------------------------------------------


def _views(repository_file: str, name: str) -> Built:
    from lightly.models import modules  # imported for what it says where it is missing

    del modules
    import pytorch_lightning
    from torchvision import datasets

    def nothing(*args: object, **kwargs: object) -> list[int]:
        return [0]

    # The file trains at its end.
    with patch.object(datasets, "CIFAR10", nothing), patch.object(pytorch_lightning.Trainer, "fit", nothing):
        module = getattr(from_repository("lightly-ai/lightly", repository_file), name)()
    pairs = [([torch.rand(3, 32, 32), torch.rand(3, 32, 32)], i % 3, f"{i}.png") for i in range(SAMPLES)]
    return Built(module, loader(pairs), trainer={"limit_train_batches": 2})


@project(network="(itself)", inputs="[0][0] (and [0][1])", logits="output: an embedding", labels=None)
def simclr() -> Built:
    return _views("examples/pytorch_lightning/simclr.py", "SimCLR")


@project(network="(itself)", inputs="[0][0] (and [0][1])", logits="output: an embedding", labels=None)
def byol() -> Built:
    return _views("examples/pytorch_lightning/byol.py", "BYOL")


# --- generation -------------------------------------------------------------------------------------------------------


@project(
    network="discriminator (the generator sees noise)", inputs="[0]", labels=None,
    notes="the pictures that it draws after each epoch, in TensorBoard alone, are left out",
)  # fmt: skip
def gan() -> Built:
    file = "examples/pytorch/domain_templates/generative_adversarial_net.py"
    module = from_repository("Lightning-AI/pytorch-lightning", file).GAN(img_shape=(1, 8, 8), latent_dim=16)
    module.on_train_epoch_end = lambda: None
    return Built(module, loader([(torch.rand(1, 8, 8), 0) for _ in range(SAMPLES)]))


@project(network="_model", inputs="x_targ[0]", logits="the reconstruction", labels=None)
def beta_vae() -> Built:
    from disent.frameworks.vae import BetaVae
    from disent.model import AutoEncoder
    from disent.model.ae import DecoderFC, EncoderFC

    shape = (3, 8, 8)
    module = BetaVae(
        AutoEncoder(EncoderFC(x_shape=shape, z_size=4, z_multiplier=2), DecoderFC(x_shape=shape, z_size=4)),
        cfg=BetaVae.cfg(optimizer="adam", loss_reduction="mean_sum", beta=1),
    )
    return Built(module, loader([{"x_targ": (torch.rand(shape),)} for _ in range(SAMPLES)]))


# --- segmentation and restoration -------------------------------------------------------------------------------------


@project(network="model", inputs="image", labels="mask")
def geo_segmentation() -> Built:
    from torchgeo.trainers import SemanticSegmentationTask

    module = SemanticSegmentationTask(model="unet", backbone="resnet18", in_channels=3, num_classes=4)
    tiles = [{"image": torch.rand(3, 32, 32), "mask": torch.randint(4, (32, 32))} for _ in range(SAMPLES)]
    return Built(module, loader(tiles), loader(tiles[:BATCH_SIZE]), trainer={"limit_train_batches": 2})


@project(network="model", inputs="[0]", logits="output (at the targets' valid pixels)", labels="[1]")
def uncertainty_segmentation() -> Built:
    from torch_uncertainty.routines import SegmentationRoutine

    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 4, 1),
    )  # fmt: skip
    module = SegmentationRoutine(
        model=network, num_classes=4, loss=nn.CrossEntropyLoss(), optim_recipe=torch.optim.Adam(network.parameters())
    )
    from torchvision import tv_tensors

    tiles = [
        (tv_tensors.Image(torch.rand(3, 16, 16)), tv_tensors.Mask(torch.randint(4, (16, 16)))) for _ in range(SAMPLES)
    ]
    return Built(module, loader(tiles))


@project(
    network="model", inputs="[0].data", labels="[1].data (an image)",
    notes="on_fit_start asks for the package's data module and is left out",
)  # fmt: skip
def restoration() -> Built:
    from careamics.config import algorithms
    from careamics.dataset.image_region_data import ImageRegionData
    from careamics.lightning.modules import CAREModule

    config = algorithms.CAREAlgorithm(
        algorithm="care", loss="mae", model={"architecture": "UNet", "conv_dims": 2, "num_channels_init": 8, "depth": 2}
    )
    module = CAREModule(config)
    module.on_fit_start = lambda: None
    spec = {"data_idx": 0, "sample_idx": 0, "coords": (0, 0), "patch_size": (16, 16)}
    regions = [
        tuple(
            ImageRegionData(
                data=torch.rand(1, 16, 16), source="array", data_shape=(1, 1, 16, 16), dtype="float32", axes="YX",
                target_axes="YX",
                region_spec=spec, additional_metadata={}, original_data_shape=(16, 16),
            )
            for _ in range(2)
        )
        for _ in range(SAMPLES)
    ]  # fmt: skip
    return Built(module, loader(regions), loader(regions[:BATCH_SIZE]))


# --- detection --------------------------------------------------------------------------------------------------------


def _boxes() -> torch.Tensor:
    corner = torch.rand(2, 2) * 30
    return torch.cat([corner, corner + 20], 1)


@project(
    network="model", inputs="image (and boxes and labels, in training)", logits="losses in training", labels="label",
)  # fmt: skip
def geo_detection() -> Built:
    from torchgeo.trainers import ObjectDetectionTask

    module = ObjectDetectionTask(model="fcos", backbone="resnet18", num_classes=3)

    def collate(found: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        rest = {key: [one[key] for one in found] for key in ("bbox_xyxy", "label")}
        return {"image": torch.stack([one["image"] for one in found]), **rest}

    samples = [
        {"image": torch.rand(3, 64, 64), "bbox_xyxy": _boxes(), "label": torch.randint(1, 3, (2,))} for _ in range(4)
    ]
    batches = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=collate)  # type: ignore[arg-type]
    return Built(module, batches, batches, trainer={"limit_val_batches": 1})


@project(network="model", inputs="[0]: a list of images (and [1])", logits="losses in training", labels="[1][i].labels")
def tree_detection() -> Built:
    from deepforest.main import deepforest
    from torchvision.models.detection import retinanet_resnet50_fpn

    network = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, min_size=64, max_size=64)
    module = deepforest(
        model=network, config_args={"num_classes": 1, "label_dict": {"Tree": 0}, "train": {"csv_file": "-"}}
    )
    samples = [
        (torch.rand(3, 64, 64), {"boxes": _boxes(), "labels": torch.zeros(2, dtype=torch.long)}, f"{i}.png")
        for i in range(4)
    ]
    batches = torch.utils.data.DataLoader(
        samples, batch_size=2, collate_fn=lambda found: tuple(list(part) for part in zip(*found, strict=True))
    )  # type: ignore[arg-type,var-annotated]
    return Built(module, batches)


@project(
    network="_model", inputs="pixel_values, pixel_mask", logits="output.logits", labels="labels[i].class_labels",
    notes="its map metric, which needs a GPU, is left out; random weights",
)  # fmt: skip
def detr() -> Built:
    import sys

    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    from projects.project import REPOSITORIES

    folder = mkdtemp()
    backbone = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    config = DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, backbone=None, use_pretrained_backbone=False, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=5, num_labels=2,
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(folder)
    sys.path.insert(0, str(REPOSITORIES / "Szirx+modeling_detr/src"))
    code = from_repository("Szirx/modeling_detr", "src/lightning_module.py")
    options = {
        "data_config": {
            "data_path": "", "batch_size": 2, "n_workers": 0, "image_size": 64, "processor_image_size": 64,
        },
        "clearml_config": {"project_name": "", "task": ""},
        "mlflow_config": {"run_name": "", "experiment_name": "", "tracking_uri": ""},
        "n_epochs": 1, "num_queries": 5, "num_classes": 2, "accelerator": "cpu", "devices": "1",
        "monitor_metric": "train_loss_ce", "model": "transformers.DetrForObjectDetection", "model_path": folder,
        "ckpt_path": "", "id2label": {0: "a", 1: "b"}, "processor": "", "optimizer": "torch.optim.AdamW",
        "optimizer_kwargs": {"lr": 1e-4}, "scheduler": "torch.optim.lr_scheduler.StepLR",
        "scheduler_kwargs": {"step_size": 5}, "threshold": 0.5, "patience": 1, "save_top_k": 1, "log_every_n_steps": 1,
    }  # fmt: skip
    module = code.DetrLightning(code.Config(**options), None)
    module.update_map = lambda *args, **kwargs: None
    module.on_train_epoch_end = lambda: None
    pictures = [
        {
            "pixel_values": torch.rand(2, 3, 64, 64),
            "pixel_mask": torch.ones(2, 64, 64, dtype=torch.long),
            "labels": [{"class_labels": torch.randint(2, (2,)), "boxes": torch.rand(2, 4) / 2} for _ in range(2)],
        }
        for _ in range(4)
    ]
    return Built(module, torch.utils.data.DataLoader(pictures, batch_size=None))  # type: ignore[arg-type]
