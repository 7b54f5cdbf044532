"""A recommender at a quarter of its width and in 8-bit integers: ratings, ranking and recommendations that are left.

    python benchmarks/recommender.py [--data-dir data] [--seeds 0]

MovieLens 100k, 80% of the ratings to train on, and of these 10% to validate; the two towers of
``configs/two_tower.yaml``, 32 factors, trained for 8 epochs. Then, from its weights, 8 epochs in which 24 of 32
factors are pruned from all tables and layers at once, the dense network teaches, and the last ones train for 8-bit
integers. Measured on the test ratings: RMSE, the NDCG@10 of each user's held-out movies, and the share of the dense
network's gain over biases of users and movies that is kept. ``overlap``: the share of the top 10 of 200 users, out of
all movies that they have not rated in training, that the dense network recommends as well. The biases are fitted in
closed form.
"""

import argparse
import copy
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torchmetrics import MeanSquaredError

from lit_xai import KnowledgeDistillation, QuantizationAwareTraining, StructuredPruning
from lit_xai.data import MovieLens
from lit_xai.models import MatrixDecay, Regressor, TwoTower
from lit_xai.ranking.measures import ndcg, overlap, top_items
from lit_xai.ranking.scoring import score_all, score_pairs

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
USERS = 200


def regressor(
    data: MovieLens, network: torch.nn.Module | None = None, lr: float = 0.005, decay: float = 1.0
) -> Regressor:
    """Return the module of configs/two_tower.yaml, or one that trains a network further."""
    if network is None:
        sizes = data.num_users, data.num_items, len(data.genre_names)
        network = TwoTower(*sizes, factors=32, mean=3.53, dropout=0.3)
    optimizer = partial(MatrixDecay, lr=lr, weight_decay=decay)
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=lr)
    metrics = {"rmse": MeanSquaredError(squared=False)}
    return Regressor(network, metrics=metrics, optimizer=optimizer, lr_scheduler=schedule)


def fit(model: Regressor, data: MovieLens, epochs: int, folder: str, *callbacks: Any) -> None:
    """Train."""
    options: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": folder, **QUIET}
    Trainer(max_epochs=epochs, callbacks=list(callbacks), **options).fit(model, data)


def compress(model: Regressor, data: MovieLens, folder: str, lr: float, decay: float) -> Regressor:
    """Return a copy with a quarter of the factors, trained for integers."""
    small = regressor(data, copy.deepcopy(model.network), lr=lr, decay=decay)
    small.network.dropout.p = 0.1  # of few factors, few can be spared
    pruning = StructuredPruning(pruning_ratio=0.75, start_epoch=0, end_epoch=2, report_latency=False)
    teacher = KnowledgeDistillation(teacher="dense", alpha=0.5)
    fit(small, data, 8, folder, pruning, teacher, QuantizationAwareTraining(start_epoch=6))
    return small


def measured(data: MovieLens, scores: Tensor) -> tuple[float, float]:
    """Return RMSE and NDCG@10 of scores of the test ratings."""
    user, ratings = data.test_dataset.inputs[:, 0], data.test_dataset.targets
    return (scores - ratings).square().mean().sqrt().item(), ndcg(scores, ratings, user)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each seed and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lr", type=float, default=0.005, help="of the compressed network")
    parser.add_argument("--decay", type=float, default=1.0, help="of the compressed network")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(
        "| seed | network | factors | parameters | RMSE | NDCG@10 | RMSE gain kept | NDCG gain kept | overlap |",
        flush=True,
    )
    print("|---:|:---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for seed in args.seeds:
        seed_everything(seed)
        data = MovieLens(args.data_dir, seed=seed)
        data.setup()
        user, item = data.test_dataset.inputs.unbind(1)
        mean, users, items = data.effects
        biases = measured(data, mean + users[user] + items[item])
        popularity = measured(data, (data.histories != 0).sum(0)[item].float())[1]
        print(f"| {seed} | popularity | | | | {popularity:.4f} | | | |", flush=True)
        print(f"| {seed} | biases | 0 | | {biases[0]:.4f} | {biases[1]:.4f} | | | |", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            model = regressor(data)
            fit(model, data, 8, str(Path(folder, "dense")))
            small = compress(model, data, str(Path(folder, "small")), args.lr, args.decay)
        shown = torch.from_numpy(np.random.RandomState(seed).permutation(data.num_users)[:USERS])
        tops, found = [], []
        for one in (model, small):
            found.append(measured(data, score_pairs(one, data.describe, user, item)))
            tops.append(top_items(score_all(one, data.describe, shown, data.num_items), data.histories[shown] != 0))
            gains = [(biases[k] - found[-1][k]) / (biases[k] - found[0][k]) for k in (0, 1)]
            factors = one.network.head.in_features
            count = sum(parameter.numel() for parameter in one.network.parameters())
            cells = [f"{found[-1][0]:.4f}", f"{found[-1][1]:.4f}", *(f"{gain:.0%}" for gain in gains)]
            name = "dense" if one is model else "quarter width, int8"
            row = [str(seed), name, str(factors), str(count), *cells, f"{overlap(tops[0], tops[-1]):.2f}"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
