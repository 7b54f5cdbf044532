import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.metrics import ndcg_score

from lit_xai import RankingMonitor, StructuredPruning
from lit_xai.data import Digits, Ratings, RatingsDataModule
from lit_xai.models import MLP, Classifier, MatrixFactorization, Regressor, TwoTower

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")
USERS, ITEMS = 20, 30


class Own(RatingsDataModule):
    def read(self):
        rng = np.random.default_rng(0)
        places = rng.choice(USERS * ITEMS, 300, replace=False)
        genres = {j: ["War", "Drama"][: 1 + j % 2] for j in range(ITEMS)}
        titles = {j: f"film {j}" for j in range(ITEMS)}
        return Ratings(places // ITEMS, places % ITEMS, rng.integers(1, 6, 300), titles=titles, genres=genres)


def trainer(folder, *callbacks, **options):
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | options
    return Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_logs_the_ranking_of_held_out_items_and_draws_recommendations(tmp_path):
    model, data = Regressor(TwoTower(USERS, ITEMS, 2, factors=4, mean=3.0)), Own(batch_size=50, val_size=60)
    fit = trainer(tmp_path, RankingMonitor(k=3, users=5, shown=2))
    fit.fit(model, data)
    rows = data.val_dataset
    user, ratings = rows.inputs[:, 0], rows.targets
    with torch.no_grad():
        scores = model.eval()(**data.describe(*rows.inputs.unbind(1)))[:, 0]
    several = [u for u in user.unique() if (user == u).sum() > 1]
    expected = [ndcg_score([ratings[user == u].numpy()], [scores[user == u].numpy()], k=3) for u in several]
    expected += [1.0] * (len(user.unique()) - len(several))  # of one item there is one order
    assert fit.callback_metrics["val/ndcg"].item() == pytest.approx(np.mean(expected), abs=1e-5)
    assert {"val/ndcg_popularity", "val/ndcg_biases"} < set(fit.callback_metrics)
    assert "ranking/overlap" not in fit.callback_metrics
    assert [path.name for path in (tmp_path / "ranking").iterdir()] == ["epoch=1.png"]
    found = fit.test(model, data, verbose=False)[0]
    assert {"test/ndcg", "test/ndcg_biases"} < set(found)
    assert (tmp_path / "ranking" / "test.png").exists()


@pytest.mark.parametrize(
    "network", [MatrixFactorization(USERS, ITEMS, 8), TwoTower(USERS, ITEMS, 2, factors=8, hidden=8)]
)
def test_width_is_pruned_in_both_tables_at_once_and_the_overlap_is_logged(tmp_path, network):
    model = Regressor(network)
    pruning = StructuredPruning(pruning_ratio=0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    fit = trainer(tmp_path, RankingMonitor(users=5, shown=0), pruning, max_epochs=3)
    fit.fit(model, Own(batch_size=50))
    tables = [module for module in network.modules() if isinstance(module, torch.nn.Embedding)]
    assert sorted(table.embedding_dim for table in tables) == [1, 1, 4, 4]
    assert 0 <= fit.callback_metrics["ranking/overlap"] <= 1


def test_what_the_dense_model_recommends_is_kept_in_checkpoints():
    monitor, other = RankingMonitor(), RankingMonitor()
    assert monitor.state_dict() == {}
    monitor.load_state_dict({"dense": [[1, 2], [3, 4]]})
    other.load_state_dict(monitor.state_dict())
    assert torch.equal(other._dense, torch.tensor([[1, 2], [3, 4]]))


def test_data_that_are_no_ratings_are_refused(tmp_path):
    model = Classifier(MLP(64, [4]), num_classes=10)
    with pytest.raises(MisconfigurationException, match="RankingMonitor expected a data module of ratings"):
        trainer(tmp_path, RankingMonitor()).fit(model, Digits())


@pytest.mark.parametrize("name", ["k", "users", "every_n_epochs"])
def test_bad_arguments_are_named(name):
    with pytest.raises(ValueError, match=f"{name} expected a positive integer"):
        RankingMonitor(**{name: 0})


def test_an_attribution_monitor_names_the_columns_of_each_input(tmp_path, monkeypatch):
    import lit_xai.render
    from lit_xai import AttributionMonitor

    given = []
    draw = lit_xai.render.attribution_figure
    monkeypatch.setattr(
        lit_xai.render, "attribution_figure", lambda *a, **k: given.append(k["feature_names"]) or draw(*a, **k)
    )
    model, data = Regressor(TwoTower(USERS, ITEMS, 2, factors=4, mean=3.0)), Own(batch_size=50)
    trainer(tmp_path, AttributionMonitor(probe=4, on_error="raise"), max_epochs=1).fit(model, data)
    folder = tmp_path / "attribution/IntegratedGradients/epoch=0"
    assert {path.name for path in folder.glob("*.png")} == {
        f"figure-{name}.png" for name in ("history", "seen", "genres")
    }
    assert ["Drama", "War"] in given
    assert data.item_names in given


def test_embeddings_of_ids_are_explained_at_their_layer(tmp_path):
    from lit_xai import AttributionMonitor

    monitor = AttributionMonitor("LayerIntegratedGradients", layer="network.item", probe=4, on_error="raise")
    trainer(tmp_path, monitor, max_epochs=1).fit(Regressor(MatrixFactorization(USERS, ITEMS, 4)), Own(batch_size=50))
    assert list(tmp_path.glob("attribution/*/epoch=0/figure.png"))
