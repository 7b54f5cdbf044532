"""Watch what a recommender ranks first, why, and what compression changes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_xai.network.check import check_integer
from lit_xai.ranking.measures import ndcg, overlap, top_items
from lit_xai.ranking.parts import Recommendation, explain_ranking
from lit_xai.ranking.scoring import score_all, score_pairs
from lit_xai.structure.recipe import recipe_of
from lit_xai.trainer.access import MisconfigurationException, logged_step, rank_zero_info, run_folder
from lit_xai.trainer.base import AnyCallback
from lit_xai.trainer.logging import log_image

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from matplotlib.figure import Figure

    from lit_xai.data.rating_rows import RatingRows
    from lit_xai.data.ratings import RatingsDataModule

RECOMMENDED = 10
"""Items that a figure shows of each user."""
REASONS, LONGEST = 2, 24
"""Items of a history that a figure names, and letters of a name."""
MINUS = "\N{MINUS SIGN}"


class RankingMonitor(AnyCallback):
    """Log how well a recommender ranks what each user rated, and draw what it recommends to some of them, and why.

    After each validation, and in the test, ``<stage>/ndcg`` is the mean over users of the NDCG of their held-out items,
    and ``<stage>/ndcg_popularity`` and ``<stage>/ndcg_biases`` that of an order by the number of training ratings, and
    by biases of users and items alone. In a run that changes the structure, ``ranking/overlap`` is the share of the
    recommendations that the dense model, as it was before, has too. A figure of
    :func:`~lit_xai.ranking.parts.explain_ranking` is in the run's folder ``ranking``. The data module is a
    :class:`~lit_xai.data.RatingsDataModule`.

    Args:
        k: places of a ranking that count.
        users: how many users' recommendations are compared with the dense model's.
        shown: how many of these are drawn.
        every_n_epochs: how often there is a figure; the last epoch has one as well.

    Raises:
        ValueError: an argument is no positive integer.
        MisconfigurationException: the data are no ratings.

    Example:
        >>> RankingMonitor(k=5).k
        5
    """

    def __init__(self, k: int = 10, users: int = 50, shown: int = 3, every_n_epochs: int = 1000) -> None:
        self.k = check_integer("k", k)
        self.users = check_integer("users", users)
        self.shown = check_integer("shown", shown, 0)
        self.every_n_epochs = check_integer("every_n_epochs", every_n_epochs)
        self._dense: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data that are no ratings."""
        if not hasattr(type(getattr(trainer, "datamodule", None)), "histories"):
            raise MisconfigurationException(
                "RankingMonitor expected a data module of ratings, lit_xai.data.RatingsDataModule, which knows users"
                " and items: pass datamodule= to the Trainer's method."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the dense model recommends before its first structural step."""
        self._keep_dense(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the measures, and draw the figure where it is due."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by the Trainer, which does not declare it
        if trainer.sanity_checking:
            return
        self._log(pl_module, data, data.val_dataset, "val")
        if not self._keep_dense(trainer, pl_module) and self._dense is not None:
            found = self._recommended(pl_module, data)
            pl_module.log("ranking/overlap", overlap(self._dense, found), rank_zero_only=True)
        epoch = trainer.current_epoch
        if (epoch + 1) % self.every_n_epochs == 0 or epoch + 1 == trainer.max_epochs:
            self._draw(trainer, pl_module, data, f"epoch={epoch}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the measures on the test ratings, and draw the figure."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # as above
        self._log(pl_module, data, data.test_dataset, "test")
        self._draw(trainer, pl_module, data, "test")

    def state_dict(self) -> dict[str, Any]:
        """Return what the dense model recommends."""
        return {} if self._dense is None else {"dense": self._dense.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what the dense model of a resumed run recommended."""
        self._dense = torch.tensor(state_dict["dense"]) if "dense" in state_dict else None

    def _keep_dense(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Keep the recommendations of a model that is still dense; return whether it was."""
        if recipe_of(pl_module).steps:
            return False
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # as above
        self._dense = self._recommended(pl_module, data)
        return True

    def _recommended(self, pl_module: LightningModule, data: RatingsDataModule) -> Tensor:
        users = self._users(data)
        scores = score_all(pl_module, data.describe, users, data.num_items)
        return top_items(scores, data.histories[users] != 0, self.k)

    def _users(self, data: RatingsDataModule) -> Tensor:
        order = torch.randperm(data.num_users, generator=torch.Generator().manual_seed(data.seed))
        return order[: self.users]

    def _log(self, pl_module: LightningModule, data: RatingsDataModule, rows: RatingRows, stage: str) -> None:
        if not len(rows):
            return
        (user, item), ratings = rows.inputs.unbind(1), rows.targets
        _, of_users, of_items = data.effects
        orders = {
            "": score_pairs(pl_module, data.describe, user, item),
            "popularity": (data.histories != 0).sum(0)[item].float(),
            "biases": of_users[user] + of_items[item],
        }
        measures = {
            f"{stage}/{'_'.join(filter(None, ('ndcg', name)))}": ndcg(scores, ratings, user, self.k)
            for name, scores in orders.items()
        }
        pl_module.log_dict(measures, rank_zero_only=True)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, data: RatingsDataModule, name: str) -> None:
        if not self.shown or not trainer.is_global_zero:
            return
        from lit_xai.render import figure_to_rgb, save_png

        users = self._users(data)[: self.shown]
        scores = score_all(pl_module, data.describe, users, data.num_items)
        tops = top_items(scores, data.histories[users] != 0, RECOMMENDED)
        explained = {
            user: explain_ranking(pl_module, data.describe, user, items, data.num_users, data.num_items)
            for user, items in zip(users.tolist(), tops.tolist(), strict=True)
        }
        pixels = figure_to_rgb(draw_rankings(explained, data, name.replace("=", " ")))
        png = save_png(pixels, run_folder(trainer) / "ranking" / f"{name}.png")
        log_image(
            trainer,
            "ranking/recommended" + ("" if name.startswith("epoch") else f"/{name}"),
            pixels,
            logged_step(trainer),
            png,
        )
        rank_zero_info(f"RankingMonitor: what is recommended to {len(users)} users, and why, is in '{png}'.")


def draw_rankings(explained: Mapping[int, Sequence[Recommendation]], data: RatingsDataModule, when: str) -> Figure:
    """Return the figure of the recommendations of some users.

    Args:
        explained: the recommendations by the user's number.
        data: the names of items and genres.
        when: such as ``"epoch 3"``.
    """
    from lit_xai.render.ranking import RankedItem, RankedUser, ranking_figure

    users = []
    for user, recommendations in explained.items():
        history = data.histories[user]
        items = [
            RankedItem(
                data.item_names[one.item], f"{one.score:.2f}", one.parts, _reasons(one, history, data.item_names)
            )
            for one in recommendations
        ]
        note = f"{int((history != 0).sum())} ratings in training"
        users.append(RankedUser(f"user {data.ratings.user_ids[user]}", items, note))
    average = next(iter(explained.values()))[0].average
    return ranking_figure(
        users, f"Recommended, and why: {when}", f"bars add up to the score less {average:.2f}, the average"
    )


def _reasons(recommendation: Recommendation, history: Tensor, names: Sequence[str]) -> str:
    """Return in words which items of a history add most, or take most."""
    known = [values for values in recommendation.columns.values() if len(values) == len(history)]
    if not known:
        return ""
    added = torch.stack(known).sum(0)
    order = added.abs().argsort(descending=True)[:REASONS].tolist()
    told = [f"{_short(names[k])} {'+' if added[k] > 0 else MINUS}{abs(added[k].item()):.2f}" for k in order if added[k]]
    return f"history: {', '.join(told)}" if told else ""


def _short(name: str) -> str:
    name = name.split(" (", 1)[0] or name  # without a year, or a title in another language
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
