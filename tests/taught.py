"""Small students, teachers and fits, shared by the tests of distillation."""

import warnings

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

OURS = {"training_step", "validation_step", "manual_backward", "on_load_checkpoint", "on_save_checkpoint"}
OURS |= {"__reduce_ex__", "_compiled_call_impl"}


def mlp(width=16, seed=0, classes=10, dropout=0.0):
    """``(N, 1, 8, 8)`` to classes; no BatchNorm, and no dropout by default."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        extra = [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), *extra, nn.Linear(width, classes))


class Conv(nn.Module):
    """``(N, 1, 8, 8)`` to 10 classes, with named parts."""

    def __init__(self, width=8, norm=False, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Conv2d(1, width, 3, padding=1, bias=not norm)
            self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
            self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x))))).mean((2, 3)))


class Module(LightningModule):
    """A user's module: it contains nothing of the library."""

    def __init__(self, network=None, lr=0.05):
        super().__init__()
        self.network = mlp() if network is None else network
        self.lr = lr

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Sized(Module):
    """A module whose checkpoint holds its arguments."""

    def __init__(self, width=16):
        super().__init__(mlp(width))
        self.save_hyperparameters()


def data(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 10)


def loader(n=64, batch_size=16, **options):
    return DataLoader(data(n), batch_size=batch_size, **options)


def learn(network, n=64, steps=60):
    """Overfit a network to the data."""
    x, y = data(n).tensors
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


def fit(module, folder, *callbacks, train=None, val=None, ckpt_path=None, seed=1, **options):
    seed_everything(seed, verbose=False)
    trainer = Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **{"max_epochs": 2, "logger": False, "accelerator": "cpu", "devices": 1, **options},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You defined a `validation_step` but have no")
        trainer.fit(module, loader() if train is None else train, val, ckpt_path=ckpt_path)
    return trainer


class Record(Callback):
    """The loss and the gradients of every batch."""

    def __init__(self):
        self.losses, self.gradients, self.batches = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)

    def on_after_backward(self, trainer, pl_module):
        self.gradients.append(
            {name: None if p.grad is None else p.grad.clone() for name, p in pl_module.named_parameters()}
        )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].detach().clone() if outputs else None)


def assert_equal(found, expected):
    """Two state dicts are the same, bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def kd(student, teacher, temperature=1.0):
    """The loss of Hinton et al., times the square of the temperature."""
    soft = F.softmax(teacher / temperature, 1)
    return F.kl_div(F.log_softmax(student / temperature, 1), soft, reduction="batchmean") * temperature**2
