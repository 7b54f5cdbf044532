"""Graphs of different sizes, a network of them, and a LightningModule that trains it."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

FEATURES, CLASSES, WIDTH = 5, 3, 16


class GraphNetwork(nn.Module):
    """Sums messages over edges, and nodes over graphs, whose number it reads out of a tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x, edges, graph):
        hidden = self.first(x).relu()
        messages = hidden.index_select(0, edges[0])
        to = edges[1].view(-1, 1).expand(-1, WIDTH)
        hidden = self.second(hidden + torch.zeros_like(hidden).scatter_add(0, to, messages)).relu()
        return self.head(hidden.new_zeros(int(graph.max()) + 1, WIDTH).index_add(0, graph, hidden))


class GraphModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = GraphNetwork()

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch["x"], batch["edges"], batch["graph"]), batch["y"])

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.training_step(batch, batch_idx), batch_size=len(batch["y"]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def graph(nodes: int, seed: int) -> dict[str, torch.Tensor]:
    """A graph of so many nodes, and one edge more than twice as many."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(nodes, FEATURES, generator=generator),
        "edges": torch.randint(nodes, (2, 2 * nodes + 1), generator=generator),
        "y": torch.randint(CLASSES, (1,), generator=generator),
    }


def collate(graphs):
    """One graph of several parts, as libraries for graphs do."""
    sizes = [len(one["x"]) for one in graphs]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return {
        "x": torch.cat([one["x"] for one in graphs]),
        "edges": torch.cat([one["edges"] + start for one, start in zip(graphs, starts, strict=True)], 1),
        "graph": torch.arange(len(graphs)).repeat_interleave(torch.tensor(sizes)),
        "y": torch.cat([one["y"] for one in graphs]),
    }


def graphs(sizes, batch_size: int = 4) -> DataLoader:
    """Batches of graphs with these numbers of nodes."""
    return DataLoader([graph(nodes, seed) for seed, nodes in enumerate(sizes)], batch_size, collate_fn=collate)
