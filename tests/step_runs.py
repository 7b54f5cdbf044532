"""Small runs in optimizer steps that write down what each batch meets; counted by the modules themselves."""

import itertools

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lit_xai.structure.recipe import recipe_of

BATCHES = 10


def samples(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    return torch.randn(n, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1), labels


class Stream(IterableDataset):
    """Without a length, and without end."""

    def __iter__(self):
        for seed in itertools.count():
            x, labels = samples(1, seed)
            yield x[0], labels[0]


class Recorded(LightningModule):
    """One optimizer; its network is widths of 16 that a half cut makes 8."""

    is_stream = False

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
        )
        self.steps, self.met = 0, []

    def forward(self, x):
        return self.network(x)

    def loss(self, batch, batch_idx):
        now = (self.current_epoch, batch_idx, self.steps)
        self.met.append((*now, self.network[0].out_channels, [step["kind"] for step in recipe_of(self).steps]))
        return F.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch, batch_idx)

    def train_dataloader(self):
        return DataLoader(Stream() if self.is_stream else TensorDataset(*samples(4 * BATCHES)), batch_size=4)

    def counted(self, cls):
        """Return a class of optimizers that count their steps, in a way of the test's own."""
        module = self

        class Counted(cls):
            def step(self, closure=None):
                result = super().step(closure)
                module.steps += 1
                return result

        return Counted

    def configure_optimizers(self):
        return self.counted(torch.optim.Adam)(self.parameters(), lr=0.01)


class Streamed(Recorded):
    is_stream = True


class Manual(Recorded):
    """Two optimizers: the first steps after every second batch, the other twice a batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        self.manual_backward(self.loss(batch, batch_idx) + self.other.square().sum())
        for _ in range(2):
            second.step()
        second.zero_grad()
        if batch_idx % 2:
            first.step()
            first.zero_grad()

    def configure_optimizers(self):
        first = self.counted(torch.optim.SGD)(self.network.parameters(), lr=0.01, momentum=0.9)
        return first, torch.optim.SGD([self.other], lr=0.01)


class Alike(Manual):
    """Two optimizers that step once a batch each."""

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch, batch_idx) + self.other.square().sum())
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()


def fit(module, folder, *callbacks, ckpt_path=None, **options):
    trainer = Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


def changes(module):
    """Return what the first batch after each change met: epoch, batch, steps, width and kinds of steps."""
    pairs = itertools.pairwise(module.met)
    return [after for before, after in pairs if before[3:] != after[3:]]
