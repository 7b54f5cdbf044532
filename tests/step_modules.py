"""LightningModules of many shapes, each with what a reader of its code says of it: a witness for whatever finds it out.

A reader answers four questions about ``training_step``: which part is the network, what of the batch goes into it,
where the logits are, and which leaves of the batch are labels.
"""

from collections import namedtuple
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

STEP = "the step"
"""The network of a step that chains several parts, none of which is called by another."""

N = 6
"""Samples in each batch."""


def _none(batch: Any) -> Sequence[Tensor]:
    return ()


@dataclass(frozen=True)
class StepModule:
    """A module, a batch and the reader's answers.

    Attributes:
        make: the module.
        batch: one batch for its ``training_step``.
        networks: dotted names of the network, the reader's choice first; the others are called with the same tensors
            and return the same logits. ``""`` is the module itself. Several that are not the same: ``candidates``.
        inputs: the leaves of the batch that the logits are computed from.
        logits: of a module in ``eval`` mode for a batch, computed in another way than by its step; ``None`` where
            nothing but a loss comes out.
        labels: the leaves that are labels; none where targets are computed.
        candidates: ``labels`` lists several that are equally good, and whoever has to choose names them.
        derived: the network is not called with the inputs themselves but with something computed from them.
    """

    make: Callable[[], LightningModule]
    batch: Callable[[], Any]
    networks: tuple[str, ...]
    inputs: Callable[[Any], Sequence[Tensor]]
    logits: Callable[[Any, Any], Tensor] | None
    labels: Callable[[Any], Sequence[Tensor]] = _none
    candidates: bool = False
    derived: bool = False


class Base(LightningModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def convolutions(classes: int = 3, channels: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
    )


def dense(features: int = 5, outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, outputs))


def images(size: int = 8) -> Tensor:
    return torch.randn(N, 3, size, size)


def classes() -> Tensor:
    return torch.randint(3, (N,))


# --- batches ----------------------------------------------------------------------------------------------------------


class Pair(Base):
    """The textbook's: ``forward`` and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)


class UnusualKeys(Base):
    """A dict with words of its own, and no ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch["pixels"]), batch["garment"])


class Nested(Base):
    """Dicts in dicts, with leaves that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"classifier": convolutions()})

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = self.body["classifier"](batch["views"][0]["data"])
        return F.nll_loss(F.log_softmax(scores, 1), batch["annotation"]["species"])


@dataclass
class Sample:
    names: list[str]
    image: Tensor
    grade: Tensor
    date: Tensor = field(default_factory=lambda: torch.arange(N))


class DataclassBatch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.model = convolutions()

    def forward(self, batch: Sample) -> Tensor:
        return self.model(batch.image)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch), batch.grade)


Weighted = namedtuple("Weighted", "weight image label")


class SampleWeights(Base):
    """A third tensor multiplies the loss: it is no label."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def training_step(self, batch: Weighted, batch_idx: int) -> Tensor:
        losses = F.cross_entropy(self.net(batch.image), batch.label, reduction="none")
        return (losses * batch.weight).mean()


class Graph:
    """A batch that is an object, as graph libraries have them."""

    def __init__(self) -> None:
        self.x = torch.randn(3 * N, 5)
        self.edge_index = torch.randint(3 * N, (2, 5 * N))
        self.batch = torch.arange(N).repeat_interleave(3)
        self.y = classes()


class Neighbours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        hidden = torch.relu(self.lin1(x))
        hidden = hidden.index_add(0, edge_index[1], hidden[edge_index[0]])
        return torch.zeros(N, 3).index_add(0, batch, self.lin2(hidden))


class GraphBatch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.gnn = Neighbours()

    def training_step(self, data: Graph, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.gnn(data.x, data.edge_index, data.batch), data.y)


class IdentifiersFirst(Base):
    """The first leaf is of integers, and no label."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()
        self.seen: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        identifiers, x, y = batch
        self.seen += identifiers.tolist()
        return F.cross_entropy(self.net(x), y)


class WholeBatch(Base):
    """``forward`` takes the batch as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.net(batch["image"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch), batch["answer"])


class ImagesAndBoxes(Base):
    """A list of images and a list of dicts: labels are a leaf of each."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, targets = batch
        scores = self.net(torch.stack(pictures))
        return F.cross_entropy(scores, torch.stack([target["labels"][0] for target in targets]))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores, self.boxes = nn.Linear(16, 3), nn.Linear(16, 4)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        places = features.flatten(2).transpose(1, 2)
        return {"scores": self.scores(places), "boxes": self.boxes(places)}


class Detector(nn.Module):
    """As in torchvision: losses in training, boxes of each image in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())
        self.head = Head()

    def forward(self, pictures: Any, targets: Any = None) -> Any:
        found = self.head(self.backbone(pictures if isinstance(pictures, Tensor) else torch.stack(pictures)))
        if self.training:
            return self.losses(found, targets)
        best = found["scores"].amax(2)
        return [
            {"boxes": boxes[score > score.mean()], "scores": score[score > score.mean()]}
            for boxes, score in zip(found["boxes"], best, strict=True)
        ]

    def losses(self, found: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        # The box of a place is that of its number.
        losses = {"classification": torch.zeros(()), "regression": torch.zeros(())}
        for scores, boxes, target in zip(found["scores"], found["boxes"], targets, strict=True):
            n = len(target["labels"])
            losses["classification"] = losses["classification"] + F.cross_entropy(scores[:n], target["labels"])
            losses["regression"] = losses["regression"] + F.l1_loss(boxes[:n], target["boxes"])
        return losses


class ListDetector(Base):
    """Calls a detector with a list of images and a list of targets."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Detector()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, targets, _ = batch
        self.net.train()
        return sum(self.net.forward(pictures, targets).values())


class StackDetector(Base):
    """Makes the list of targets of a dict of lists, and calls itself with it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Detector()

    def forward(self, *args: Any) -> Any:
        return self.net(*args)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures = batch["image"]
        targets = [{"boxes": batch["box"][i], "labels": batch["kind"][i]} for i in range(len(pictures))]
        return sum(self(pictures, targets).values())


class LossOfBoxes(nn.Module):
    """As detectors with queries: logits and boxes of each, and a loss where labels are given."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = Detector()

    def forward(self, pixels: Tensor, labels: list[dict[str, Tensor]] | None = None) -> dict[str, Any]:
        found = self.detector.head(self.detector.backbone(pixels))
        loss = sum(self.detector.losses(found, labels).values()) if labels is not None else None
        return {"loss": loss, "logits": found["scores"], "pred_boxes": found["boxes"]}


class QueryDetector(Base):
    def __init__(self) -> None:
        super().__init__()
        self.model = LossOfBoxes()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        labels = [dict(one) for one in batch["labels"]]
        return self.model(pixels=batch["pixel_values"], labels=labels)["loss"]


# --- calls ------------------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense = nn.Embedding(7, 4), nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, categories: Tensor, numbers: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.dense(torch.cat([self.embedding(categories), scale * numbers], 1))


class MixedTable(Base):
    """Positional and keyword at once, integers among the inputs, and an argument that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.table = TwoInputs()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = self.table(batch["shop"], numbers=batch["sales"], scale=0.5)
        return F.cross_entropy(scores, batch["outcome"])


@dataclass
class ModelOutput:
    logits: Tensor
    loss: Tensor | None = None


class LossInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> ModelOutput:
        mask = attention_mask.unsqueeze(-1)
        pooled = (self.embeddings(input_ids) * mask).sum(1) / mask.sum(1)
        logits = self.head(pooled)
        return ModelOutput(logits, None if labels is None else F.cross_entropy(logits, labels))


class LabelsInTheCall(Base):
    """``model(**batch)``, with the loss in what comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.model = LossInside()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.model(**batch).loss
        assert loss is not None
        return loss


class Preprocessing(Base):
    """Bytes become floats in the step: the network is called with something computed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net((x.float() / 255 - 0.5) * 4), y)


# --- parts ------------------------------------------------------------------------------------------------------------


class OtherForward(Base):
    """``forward`` gives features for retrieval; the step does something else with them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.body(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.head(self.body(x)), y)


class Chained(Base):
    """An encoder and a head, with arithmetic between them, and no ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = dense(5, 16), nn.Linear(16, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(torch.tanh(self.encoder(batch["row"]))), batch["kind"])


class Ensemble(Base):
    """Several networks, whose mean is meant."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([dense() for _ in range(3)])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(torch.stack([member(x) for member in self.members]).mean(0), y)


class TeacherInside(Base):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = convolutions(), convolutions().requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        with torch.no_grad():
            soft = self.teacher(x).softmax(1)
        scores = self.student(x)
        return F.cross_entropy(scores, y) + F.kl_div(scores.log_softmax(1), soft, reduction="batchmean")


class AveragedCopy(Base):
    """A running average that no step calls."""

    def __init__(self) -> None:
        super().__init__()
        self.net = dense()
        self.average = deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def on_train_batch_end(self, *args: Any) -> None:
        for mean, value in zip(self.average.parameters(), self.net.parameters(), strict=True):
            mean.data.lerp_(value.data, 0.1)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.kind, self.size = nn.Linear(5, 16), nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.trunk(x))
        return {"kind": self.kind(hidden), "size": self.size(hidden).squeeze(1)}


class MultiTask(Base):
    """Two heads with labels of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Heads()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, target = batch
        out = self.net(x)
        return F.cross_entropy(out["kind"], target["kind"]) + F.mse_loss(out["size"], target["size"])


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.aux, self.second = nn.Linear(5, 16), nn.Linear(16, 3), nn.Linear(16, 16)
        self.main = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.first(x))
        return self.main(torch.relu(self.second(hidden))), self.aux(hidden)


class DeepSupervision(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = Auxiliary()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        main, aux = self.net(x)
        return F.cross_entropy(main, y) + 0.3 * F.cross_entropy(aux, y)


# --- losses -----------------------------------------------------------------------------------------------------------


class CastLabels(Base):
    """Labels on their way through a cast and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.net = dense(5, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.net(batch["x"]), batch["ill"].float().view(-1, 1))


class OneHot(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = dense()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return (self.net(x).softmax(1) - F.one_hot(y, 3)).square().mean()


class Regression(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = dense(5, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch["features"]).squeeze(1), batch["price"])


class MetricOnly(Base):
    """The loss needs no labels; a metric sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = dense()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        scores = self.net(x)
        self.log("accuracy", (scores.argmax(1) == y).float().mean())
        return -(scores.softmax(1) * scores.log_softmax(1)).sum(1).mean()


class MaskedTags(Base):
    """A tag for each token; the mask multiplies the loss, and is no label."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = self.net(batch["tokens"])
        losses = F.cross_entropy(scores.transpose(1, 2), batch["tags"], reduction="none")
        return (losses * batch["mask"]).sum() / batch["mask"].sum()


class Segmentation(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch["tile"]), batch["landuse"].squeeze(1), ignore_index=255)


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 8), nn.Embedding(20, 8)
        self.encoder, self.decoder = nn.GRU(8, 16, batch_first=True), nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, source: Tensor, previous: Tensor) -> Tensor:
        _, state = self.encoder(self.source(source))
        return self.head(self.decoder(self.target(previous), state)[0])


class SequenceToSequence(Base):
    """One leaf is both: what was written so far is an input, what comes next the label."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Translator()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        written = batch["french"]
        scores = self.net(batch["english"], written[:, :-1])
        return F.cross_entropy(scores.flatten(0, 1), written[:, 1:].flatten())


# --- computed targets -------------------------------------------------------------------------------------------------


class Autoencoder(Base):
    """The target is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x,) = batch
        return F.mse_loss(self.net(x), x)


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(5, 8), nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x).chunk(2, 1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decode(mean + noise * (0.5 * log_variance).exp()), mean, log_variance


class VariationalAutoencoder(Base):
    def __init__(self) -> None:
        super().__init__()
        self.vae = Variational()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        back, mean, log_variance = self.vae(x)
        return F.mse_loss(back, x) - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()


class Contrastive(Base):
    """Two views of each image through one encoder; their classes are carried along unused."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = convolutions(8)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (first, second), _ = batch
        similarity = F.normalize(self.encoder(first)) @ F.normalize(self.encoder(second)).T
        return F.cross_entropy(similarity / 0.1, torch.arange(N))


class Triplets(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions(8)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        anchor, near, far = batch["anchor"], batch["near"], batch["far"]
        return F.triplet_margin_loss(self.net(anchor), self.net(near), self.net(far))


class Mixup(Base):
    """Mixed images and mixed one-hot classes: the targets are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutions()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        order, share = torch.randperm(len(x)), torch.rand(())
        hot = F.one_hot(y, 3).float()
        mixed, target = share * x + (1 - share) * x[order], share * hot + (1 - share) * hot[order]
        return F.cross_entropy(self.net(mixed), target)


class MaskedModelling(Base):
    """A part of each input is hidden and has to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = torch.rand_like(batch["row"]) < 0.3
        told = self.net(batch["row"].masked_fill(hidden, 0.0))
        return ((told - batch["row"]).square() * hidden).mean()


# --- optimization -----------------------------------------------------------------------------------------------------


class Manual(Base):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = dense()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.net(x), y))
        optimizer.step()


class Adversarial(LightningModule):
    """A generator fed by noise and a discriminator that sees the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = dense(4, 5), dense(5, 1)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real, _ = batch
        first, second = self.optimizers()
        made = self(torch.randn(len(real), 4))
        judged = self.discriminator(made)
        first.zero_grad()
        self.manual_backward(F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged)))
        first.step()
        true, false = self.discriminator(real), self.discriminator(made.detach())
        second.zero_grad()
        self.manual_backward(F.softplus(-true).mean() + F.softplus(false).mean())
        second.step()

    def configure_optimizers(self) -> Any:
        parts = (self.generator, self.discriminator)
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in parts]


class ValueLearning(Base):
    """Q-learning: actions index the output, rewards and a copy of the network make the target."""

    def __init__(self) -> None:
        super().__init__()
        self.net = dense(4, 2)
        self.target_net = deepcopy(self.net)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        states, actions, rewards, done, following = batch
        values = self.net(states).gather(1, actions.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            future = self.target_net(following).amax(1).masked_fill(done, 0.0)
        return F.mse_loss(values, rewards + 0.9 * future)


# --- the table --------------------------------------------------------------------------------------------------------


def _pair(size: int = 8) -> tuple[Tensor, Tensor]:
    return images(size), classes()


def _row() -> tuple[Tensor, Tensor]:
    return torch.randn(N, 5), classes()


def _tagged() -> dict[str, Tensor]:
    mask = (torch.arange(7) < torch.randint(3, 8, (N, 1))).float()
    return {"mask": mask, "tags": torch.randint(4, (N, 7)), "tokens": torch.randint(20, (N, 7))}


def _transitions() -> tuple[Tensor, ...]:
    states, following = torch.randn(2, N, 4)
    return states, torch.randint(2, (N,)), torch.randn(N), torch.rand(N) < 0.2, following


def _tokens() -> dict[str, Tensor]:
    ids = torch.randint(20, (N, 7))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": classes()}


def _boxes() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    boxes = [{"boxes": torch.rand(2, 4), "labels": torch.randint(3, (2,))} for _ in range(N)]
    return list(images()), boxes


def _detections() -> list[dict[str, Tensor]]:
    return [{"boxes": torch.rand(i % 3 + 1, 4), "labels": torch.randint(3, (i % 3 + 1,))} for i in range(N)]


def _listed() -> tuple[list[Tensor], list[dict[str, Tensor]], list[str]]:
    return list(images()), _detections(), [f"{i}.png" for i in range(N)]


def _stacked() -> dict[str, Any]:
    found = _detections()
    return {"image": images(), "box": [one["boxes"] for one in found], "kind": [one["labels"] for one in found]}


def _raw_scores(network: Any, pictures: Tensor) -> Tensor:
    return network.head(network.backbone(pictures))["scores"]


def _nested() -> dict[str, Any]:
    view = {"data": images(), "scale": torch.ones(N)}
    return {"id": torch.arange(N), "views": [view], "annotation": {"species": classes(), "place": torch.rand(N, 2)}}


STEP_MODULES = {
    "pair": StepModule(Pair, _pair, ("", "net"), lambda b: [b[0]], lambda m, b: m.net(b[0]), lambda b: [b[1]]),
    "unusual_keys": StepModule(
        UnusualKeys,
        lambda: {"pixels": images(), "garment": classes()},
        ("net",),
        lambda b: [b["pixels"]],
        lambda m, b: m.net(b["pixels"]),
        lambda b: [b["garment"]],
    ),
    "nested": StepModule(
        Nested,
        _nested,
        ("body.classifier",),
        lambda b: [b["views"][0]["data"]],
        lambda m, b: m.body["classifier"](b["views"][0]["data"]),
        lambda b: [b["annotation"]["species"]],
    ),
    "dataclass": StepModule(
        DataclassBatch,
        lambda: Sample(["a"] * N, images(), classes()),
        ("model", ""),
        lambda b: [b.image],
        lambda m, b: m.model(b.image),
        lambda b: [b.grade],
    ),
    "sample_weights": StepModule(
        SampleWeights,
        lambda: Weighted(torch.rand(N), images(), classes()),
        ("net",),
        lambda b: [b.image],
        lambda m, b: m.net(b.image),
        lambda b: [b.label],
    ),
    "graph": StepModule(
        GraphBatch,
        Graph,
        ("gnn",),
        lambda b: [b.x, b.edge_index, b.batch],
        lambda m, b: m.gnn(b.x, b.edge_index, b.batch),
        lambda b: [b.y],
    ),
    "identifiers_first": StepModule(
        IdentifiersFirst,
        lambda: (torch.arange(N), *_pair()),
        ("net",),
        lambda b: [b[1]],
        lambda m, b: m.net(b[1]),
        lambda b: [b[2]],
    ),
    "whole_batch": StepModule(
        WholeBatch,
        lambda: {"answer": classes(), "image": images()},
        ("net", ""),
        lambda b: [b["image"]],
        lambda m, b: m.net(b["image"]),
        lambda b: [b["answer"]],
    ),
    "images_and_boxes": StepModule(
        ImagesAndBoxes,
        _boxes,
        ("net",),
        lambda b: b[0],
        lambda m, b: m.net(torch.stack(b[0])),
        lambda b: [target["labels"] for target in b[1]],
        derived=True,
    ),
    "list_detector": StepModule(
        ListDetector,
        _listed,
        (STEP,),
        lambda b: b[0],
        lambda m, b: _raw_scores(m.net, torch.stack(b[0])),
        lambda b: [target["labels"] for target in b[1]],
    ),
    "stack_detector": StepModule(
        StackDetector,
        _stacked,
        (STEP,),
        lambda b: [b["image"]],
        lambda m, b: _raw_scores(m.net, b["image"]),
        lambda b: b["kind"],
    ),
    "query_detector": StepModule(
        QueryDetector,
        lambda: {"pixel_values": images(), "labels": _detections()},
        ("model",),
        lambda b: [b["pixel_values"]],
        lambda m, b: _raw_scores(m.model.detector, b["pixel_values"]),
        lambda b: [one["labels"] for one in b["labels"]],
    ),
    "mixed_table": StepModule(
        MixedTable,
        lambda: {"shop": torch.randint(7, (N,)), "sales": torch.randn(N, 5), "outcome": classes()},
        ("table",),
        lambda b: [b["shop"], b["sales"]],
        lambda m, b: m.table(b["shop"], b["sales"], scale=0.5),
        lambda b: [b["outcome"]],
    ),
    "labels_in_the_call": StepModule(
        LabelsInTheCall,
        _tokens,
        ("model",),
        lambda b: [b["input_ids"], b["attention_mask"]],
        lambda m, b: m.model(b["input_ids"], b["attention_mask"]).logits,
        lambda b: [b["labels"]],
    ),
    "preprocessing": StepModule(
        Preprocessing,
        lambda: (torch.randint(256, (N, 3, 8, 8), dtype=torch.uint8), classes()),
        ("net", STEP),
        lambda b: [b[0]],
        lambda m, b: m.net((b[0].float() / 255 - 0.5) * 4),
        lambda b: [b[1]],
        derived=True,
    ),
    "other_forward": StepModule(
        OtherForward, _pair, (STEP,), lambda b: [b[0]], lambda m, b: m.head(m.body(b[0])), lambda b: [b[1]]
    ),
    "chained": StepModule(
        Chained,
        lambda: {"kind": classes(), "row": torch.randn(N, 5)},
        (STEP,),
        lambda b: [b["row"]],
        lambda m, b: m.head(m.encoder(b["row"]).tanh()),
        lambda b: [b["kind"]],
    ),
    "ensemble": StepModule(
        Ensemble,
        _row,
        (STEP,),
        lambda b: [b[0]],
        lambda m, b: sum(member(b[0]) for member in m.members) / 3,
        lambda b: [b[1]],
    ),
    "teacher_inside": StepModule(
        TeacherInside, _pair, ("student",), lambda b: [b[0]], lambda m, b: m.student(b[0]), lambda b: [b[1]]
    ),
    "averaged_copy": StepModule(
        AveragedCopy, _row, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0]), lambda b: [b[1]]
    ),
    "multi_task": StepModule(
        MultiTask,
        lambda: (torch.randn(N, 5), {"kind": classes(), "size": torch.rand(N)}),
        ("net",),
        lambda b: [b[0]],
        lambda m, b: m.net(b[0])["kind"],
        lambda b: [b[1]["kind"], b[1]["size"]],
        candidates=True,
    ),
    "deep_supervision": StepModule(
        DeepSupervision, _row, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0])[0], lambda b: [b[1]]
    ),
    "cast_labels": StepModule(
        CastLabels,
        lambda: {"x": torch.randn(N, 5), "ill": torch.randint(2, (N,))},
        ("net",),
        lambda b: [b["x"]],
        lambda m, b: m.net(b["x"]),
        lambda b: [b["ill"]],
    ),
    "one_hot": StepModule(OneHot, _row, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0]), lambda b: [b[1]]),
    "regression": StepModule(
        Regression,
        lambda: {"price": torch.rand(N), "features": torch.randn(N, 5)},
        ("net",),
        lambda b: [b["features"]],
        lambda m, b: m.net(b["features"]),
        lambda b: [b["price"]],
    ),
    "metric_only": StepModule(MetricOnly, _row, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0]), lambda b: [b[1]]),
    "masked_tags": StepModule(
        MaskedTags,
        _tagged,
        ("net",),
        lambda b: [b["tokens"]],
        lambda m, b: m.net(b["tokens"]),
        lambda b: [b["tags"]],
    ),
    "segmentation": StepModule(
        Segmentation,
        lambda: {"tile": images(), "landuse": torch.randint(4, (N, 1, 8, 8))},
        ("net",),
        lambda b: [b["tile"]],
        lambda m, b: m.net(b["tile"]),
        lambda b: [b["landuse"]],
    ),
    "sequence_to_sequence": StepModule(
        SequenceToSequence,
        lambda: {"english": torch.randint(20, (N, 6)), "french": torch.randint(20, (N, 7))},
        ("net",),
        lambda b: [b["english"], b["french"]],
        lambda m, b: m.net(b["english"], b["french"][:, :-1]),
        lambda b: [b["french"]],
        derived=True,
    ),
    "autoencoder": StepModule(
        Autoencoder, lambda: [torch.randn(N, 5)], ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0])
    ),
    "variational": StepModule(VariationalAutoencoder, _row, ("vae",), lambda b: [b[0]], lambda m, b: m.vae(b[0])[0]),
    "contrastive": StepModule(
        Contrastive,
        lambda: ((images(), images()), classes()),
        ("encoder",),
        lambda b: [b[0][0]],
        lambda m, b: m.encoder(b[0][0]),
    ),
    "triplets": StepModule(
        Triplets,
        lambda: {"anchor": images(), "near": images(), "far": images()},
        ("net",),
        lambda b: [b["anchor"]],
        lambda m, b: m.net(b["anchor"]),
    ),
    "mixup": StepModule(Mixup, _pair, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0]), derived=True),
    "masked_modelling": StepModule(
        MaskedModelling,
        lambda: {"row": torch.randn(N, 5)},
        ("net",),
        lambda b: [b["row"]],
        lambda m, b: m.net(b["row"]),
        derived=True,
    ),
    "manual": StepModule(Manual, _row, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0]), lambda b: [b[1]]),
    "adversarial": StepModule(
        Adversarial, _row, ("discriminator",), lambda b: [b[0]], lambda m, b: m.discriminator(b[0])
    ),
    "value_learning": StepModule(ValueLearning, _transitions, ("net",), lambda b: [b[0]], lambda m, b: m.net(b[0])),
}
"""By name, so that a test's name says which module it is about."""
