"""A network that reads digits, quantized, and what an export of both leaves."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.export import ExportReport, export_model
from lit_xai.models import ResNet
from lit_xai.quantization.quantization import quantize

MEAN, STD = [0.3], [0.4]
CLASSES = [f"the digit {i}" for i in range(10)]


@dataclass
class Trained:
    network: nn.Module
    quantized: nn.Module
    images: Tensor
    labels: Tensor
    loader: DataLoader


@pytest.fixture(scope="session")
def trained() -> Trained:
    digits = load_digits()
    images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16 - MEAN[0]) / STD[0]
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    network = ResNet(8, width=8, in_channels=1).train()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    for _ in range(2):
        for rows in torch.randperm(1500).split(50):
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    quantized = quantize(network, images[:512].split(64), progress=False)
    loader = DataLoader(TensorDataset(images[1500:], labels[1500:]), 64)
    return Trained(network.eval(), quantized, images[1500:], labels[1500:], loader)


@dataclass
class Exported:
    report: ExportReport
    folder: Path


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Exported:
    folder = tmp_path_factory.mktemp("exported") / "new" / "export"
    report = export_model(
        trained.network,
        trained.loader,
        folder,
        quantized=trained.quantized,
        ptq=trained.quantized,
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        recipe={"steps": [{"kind": "quantize"}]},
        source="epoch 2, in a test",
        progress=False,
    )
    return Exported(report, folder)
