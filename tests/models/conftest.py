import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

# Raised inside dependencies on every fit, whatever the model is.
KNOWN_WARNINGS = [
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated",  # lightning over this torch
    r"ignore:The '\w+_dataloader' does not have many workers",
    # Lightning builds its command line with calls that jsonargparse will drop in its version 5, which we exclude.
    "ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning",
]


def pytest_itemcollected(item):
    for warning in KNOWN_WARNINGS:
        item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small networks are fastest so, and a forked process hangs in a parallel region that its parent has been in."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits():
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels))


@pytest.fixture
def fit(tmp_path):
    """Train a module on a dataset with a real Trainer, and return the Trainer."""

    def run(module: LightningModule, data, batch_size=128, **kwargs) -> Trainer:
        torch.manual_seed(0)
        settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "default_root_dir": tmp_path}
        settings |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(**settings | kwargs)
        loader = DataLoader(data, batch_size=batch_size)
        trainer.fit(module, loader, loader)
        return trainer

    return run
