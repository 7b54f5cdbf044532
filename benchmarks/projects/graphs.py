"""Graphs and molecules."""

import torch

from projects.project import BATCH_SIZE, SAMPLES, Built, from_repository, loader, project


def _graphs() -> list[object]:
    from torch_geometric.data import Data

    return [
        Data(x=torch.randn(6, 5), edge_index=torch.randint(6, (2, 14)), y=torch.randint(3, (1,)))
        for _ in range(SAMPLES)
    ]


@project(network="model", inputs="x, edge_index, batch (a Batch of graphs)", logits="output[0]", labels="y")
def graphgym() -> Built:
    from torch_geometric.graphgym.config import cfg, set_cfg
    from torch_geometric.graphgym.model_builder import create_model
    from torch_geometric.loader import DataLoader

    set_cfg(cfg)
    cfg.dataset.task, cfg.dataset.task_type, cfg.accelerator = "graph", "classification", "cpu"
    cfg.gnn.head, cfg.gnn.dim_inner, cfg.model.graph_pooling = "graph", 16, "add"
    cfg.share.num_splits = 1
    module = create_model(dim_in=5, dim_out=3)
    return Built(module, DataLoader(_graphs(), BATCH_SIZE), DataLoader(_graphs()[:BATCH_SIZE], BATCH_SIZE))


@project(network="(itself)", inputs="x, edge_index, batch (a Batch of graphs)", labels="y")
def gin() -> Built:
    from torch_geometric.loader import DataLoader

    module = from_repository("pyg-team/pytorch_geometric", "examples/pytorch_lightning/gin.py").Model(5, 3, 16)
    return Built(module, DataLoader(_graphs(), BATCH_SIZE), DataLoader(_graphs()[:BATCH_SIZE], BATCH_SIZE))


@project(
    network="model", inputs="triples of indices (positives, negatives)", logits="scores, by score_hrt", labels=None,
)  # fmt: skip
def knowledge_graph() -> Built:
    import numpy as np
    from pykeen.contrib.lightning import SLCWALitModule
    from pykeen.datasets.base import EagerDataset
    from pykeen.triples import TriplesFactory

    rng = np.random.default_rng(0)
    names = np.array([[f"e{rng.integers(8)}", f"r{rng.integers(3)}", f"e{rng.integers(8)}"] for _ in range(64)])
    training = TriplesFactory.from_labeled_triples(names)
    data = EagerDataset(training, training, training)
    module = SLCWALitModule(dataset=data, model="distmult", model_kwargs={"embedding_dim": 16}, batch_size=16)
    return Built(module, trainer={"limit_train_batches": 4, "limit_val_batches": 1})


@project(
    network="the step (message passing, aggregation, predictor); forward chains the same",
    inputs="bmg.V, bmg.E, bmg.edge_index, bmg.rev_edge_index, bmg.batch",
    labels="Y",
)
def message_passing() -> Built:
    from chemprop import data, models, nn

    smiles = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCC", "C1CCCCC1", "CO", "CN"] * (SAMPLES // 8)
    points = [data.MoleculeDatapoint.from_smi(one, [float(i % 5)]) for i, one in enumerate(smiles)]
    batches = data.build_dataloader(data.MoleculeDataset(points), batch_size=BATCH_SIZE, num_workers=0)
    module = models.MPNN(
        nn.BondMessagePassing(d_h=32), nn.MeanAggregation(), nn.RegressionFFN(input_dim=32, hidden_dim=16)
    )
    return Built(module, batches, batches)


@project(
    network="model", inputs="_positions, _atomic_numbers, _idx_i, _idx_j, _idx_m, _offsets", logits='output["energy"]',
    labels="energy",
)  # fmt: skip
def schnet() -> Built:
    import torch.utils.data.dataloader as dataloader

    if not hasattr(dataloader, "T_co"):  # which the package imports, and torch 2.13 no longer has there
        dataloader.T_co = torch.utils.data.dataset._T_co  # type: ignore[attr-defined]
    import schnetpack
    import schnetpack.properties as names
    import torchmetrics
    from schnetpack.data.loader import _atoms_collate_fn

    model = schnetpack.model.NeuralNetworkPotential(
        schnetpack.representation.SchNet(
            n_atom_basis=32, n_interactions=2, radial_basis=schnetpack.nn.GaussianRBF(8, 5.0),
            cutoff_fn=schnetpack.nn.CosineCutoff(5.0),
        ),
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=[schnetpack.atomistic.Atomwise(n_in=32, output_key="energy")],
    )  # fmt: skip
    output = schnetpack.task.ModelOutput("energy", torch.nn.MSELoss(), 1.0, {"mae": torchmetrics.MeanAbsoluteError()})
    module = schnetpack.task.AtomisticTask(model, [output], optimizer_args={"lr": 1e-3})
    first, second = (~torch.eye(4, dtype=torch.bool)).nonzero().T

    def molecule() -> dict[str, torch.Tensor]:
        return {
            names.idx: torch.zeros(1, dtype=torch.long),
            names.Z: torch.randint(1, 9, (4,)),
            names.R: torch.randn(4, 3),
            names.n_atoms: torch.tensor([4]),
            names.idx_i: first,
            names.idx_j: second,
            names.offsets: torch.zeros(12, 3),
            names.cell: torch.zeros(1, 3, 3),
            names.pbc: torch.zeros(3, dtype=torch.bool),
            "energy": torch.randn(1),
        }

    molecules = [molecule() for _ in range(SAMPLES)]
    collated = {"collate_fn": _atoms_collate_fn}
    return Built(module, loader(molecules, **collated), loader(molecules[:BATCH_SIZE], **collated))
