"""Tables: tabular networks, single cells, event sequences, self-supervision on rows."""

import numpy as np
import torch

from projects.project import BATCH_SIZE, SAMPLES, STEP, Built, captured, loader, project


def _frame() -> "object":
    import pandas as pd

    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.standard_normal(SAMPLES),
            "height": rng.standard_normal(SAMPLES),
            "town": rng.choice(["a", "b", "c"], SAMPLES),
            "bought": rng.integers(0, 3, SAMPLES).astype(str),
        }
    )


def _tabular(config: object) -> Built:
    from pytorch_tabular import TabularModel
    from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig

    data = DataConfig(target=["bought"], continuous_cols=["age", "height"], categorical_cols=["town"], num_workers=0)
    options = TrainerConfig(
        batch_size=BATCH_SIZE, max_epochs=1, accelerator="cpu", load_best=False, checkpoints=None, early_stopping=None,
        progress_bar="none",
    )  # fmt: skip
    model = TabularModel(
        data_config=data, model_config=config, optimizer_config=OptimizerConfig(), trainer_config=options, verbose=False
    )
    return captured(lambda: model.fit(train=_frame(), validation=_frame()))


@project(network="(itself)", inputs="continuous, categorical", logits='output["logits"]', labels="target")
def tabular_embedding() -> Built:
    from pytorch_tabular.models import CategoryEmbeddingModelConfig

    return _tabular(CategoryEmbeddingModelConfig(task="classification", layers="64-64"))


@project(network="(itself)", inputs="continuous, categorical", logits='output["logits"]', labels="target")
def tabular_transformer() -> Built:
    from pytorch_tabular.models import FTTransformerConfig

    return _tabular(FTTransformerConfig(task="classification", input_embed_dim=16, num_heads=2, num_attn_blocks=2))


@project(network="model", inputs="input", labels="target")
def uq_regression() -> Built:
    from lightning_uq_box.uq_methods import MVERegression

    network = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    module = MVERegression(network, burnin_epochs=1)
    samples = [{"input": torch.randn(5), "target": torch.randn(1)} for _ in range(SAMPLES)]
    return Built(module, loader(samples), loader(samples[:BATCH_SIZE]))


@project(network="model", inputs="[0]", labels="[1]")
def uncertainty_classification() -> Built:
    from torch_uncertainty.models.mlp import mlp
    from torch_uncertainty.routines import ClassificationRoutine

    network = mlp(in_features=5, num_outputs=3, hidden_dims=[32, 16])
    module = ClassificationRoutine(
        model=network,
        num_classes=3,
        loss=torch.nn.CrossEntropyLoss(),
        optim_recipe=torch.optim.Adam(network.parameters()),
    )
    samples = [(torch.randn(5), i % 3) for i in range(SAMPLES)]
    return Built(module, loader(samples), loader(samples[:BATCH_SIZE]))


# --- single cells -----------------------------------------------------------------------------------------------------


def _cells() -> "object":
    import anndata
    import pandas as pd
    import scvi

    scvi.settings.seed = 0  # of which cells are held back; without it no two runs are alike
    rng = np.random.default_rng(0)
    observed = pd.DataFrame({"type": pd.Categorical(rng.choice(["B", "T", "unknown"], 64))})
    return anndata.AnnData(rng.poisson(1.0, (64, 20)).astype("float32"), obs=observed)


@project(network="module", inputs="X (counts), batch", logits="a dict of distributions: no logits", labels=None)
def scvi() -> Built:
    import scvi

    cells = _cells()
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_hidden=32, n_latent=8)
    return captured(lambda: model.train(max_epochs=1, accelerator="cpu", batch_size=16, datasplitter_kwargs={}))


@project(network="module", inputs="X (counts), batch, labels", logits="a dict of distributions", labels="labels")
def scanvi() -> Built:
    import scvi

    cells = _cells()
    scvi.model.SCANVI.setup_anndata(cells, labels_key="type", unlabeled_category="unknown")
    model = scvi.model.SCANVI(cells, n_hidden=32, n_latent=8)
    return captured(lambda: model.train(max_epochs=1, accelerator="cpu", batch_size=16))


@project(network="pipeline", inputs="x_ng", logits="none in training: a loss", labels="y_n")
def cellarium() -> Built:
    from cellarium.ml import CellariumModule
    from cellarium.ml.models import LogisticRegression

    genes, kinds = np.array([f"gene{i}" for i in range(20)]), np.array(["B", "T", "NK"])
    module = CellariumModule(
        model=LogisticRegression(SAMPLES, genes, kinds, log_metrics=False),
        optim_fn=torch.optim.Adam,
        optim_kwargs={"lr": 1e-2},
    )
    batches = [
        {"x_ng": torch.rand(8, 20), "var_names_g": genes, "y_n": torch.randint(3, (8,)), "y_categories": kinds}
        for _ in range(4)
    ]
    return Built(module, loader(batches, collate_fn=lambda found: found[0]), None)


# --- self-supervision -------------------------------------------------------------------------------------------------


@project(network="model", inputs="[0], [1]: two views", logits="output[0]: an embedding", labels=None)
def scarf() -> Built:
    import pandas as pd
    from ts3l.pl_modules import SCARFLightning
    from ts3l.utils.backbone_utils import MLPBackboneConfig
    from ts3l.utils.embedding_utils import IdentityEmbeddingConfig
    from ts3l.utils.scarf_utils import SCARFConfig, SCARFDataset

    config = SCARFConfig(
        task="classification", loss_fn="CrossEntropyLoss", metric="accuracy_score", output_dim=2, corruption_rate=0.4,
        embedding_config=IdentityEmbeddingConfig(input_dim=5),
        backbone_config=MLPBackboneConfig(input_dim=5, hidden_dims=16, output_dim=16),
        pretraining_head_dim=16,
    )  # fmt: skip
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((SAMPLES, 5)), columns=list("abcde"))
    data = SCARFDataset(frame, config=config, continuous_cols=list("abcde"), category_cols=[])
    return Built(SCARFLightning(config), torch.utils.data.DataLoader(data, batch_size=BATCH_SIZE))


@project(network=STEP, inputs="[0].payload, a PaddedBatch", logits="an embedding", labels=None)
def coles() -> Built:
    from functools import partial

    from ptls.data_load.datasets import MemoryMapDataset
    from ptls.frames import PtlsDataModule
    from ptls.frames.coles import ColesDataset, CoLESModule
    from ptls.frames.coles.split_strategy import SampleSlices
    from ptls.nn import RnnSeqEncoder, TrxEncoder

    encoder = RnnSeqEncoder(
        trx_encoder=TrxEncoder(embeddings={"code": {"in": 10, "out": 8}}, numeric_values={"amount": "identity"}),
        hidden_size=16,
    )
    module = CoLESModule(
        encoder,
        optimizer_partial=partial(torch.optim.Adam, lr=1e-3),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=10),
    )
    people = [
        {"code": torch.randint(1, 10, (30,)), "amount": torch.rand(30), "event_time": torch.arange(30)}
        for _ in range(SAMPLES)
    ]
    data = ColesDataset(MemoryMapDataset(people), SampleSlices(split_count=3, cnt_min=5, cnt_max=10))
    datamodule = PtlsDataModule(train_data=data, train_batch_size=BATCH_SIZE, train_num_workers=0)
    return Built(module, datamodule.train_dataloader())
