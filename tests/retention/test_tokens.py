"""Runs of a text model, of which integer tokens are explained at their embedding without being told."""

import json
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from retention_runs import FAST, run
from torch import nn
from torch.utils.data import DataLoader

from lit_xai import RetentionMonitor
from lit_xai.retention.explainer import Explainer, occlusion_window
from lit_xai.retention.tokens import explainers_of_tokens

TOKENS = {name: value for name, value in FAST.items() if name != "second_explainer"} | {"on_error": "raise"}


class Text(LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.words = nn.Embedding(30, width, padding_idx=3)
        self.hidden, self.head = nn.Linear(width, 16), nn.Linear(16, 3)

    def forward(self, ids, mask):
        # A sum, not a mean over the text: taking away a token changes only that token's own share.
        return self.head((torch.tanh(self.hidden(self.words(ids))) * mask[..., None]).sum(1))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch["ids"], batch["mask"]), batch["labels"])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def texts(n=48):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 30, (n, 9), generator=generator)
    mask = torch.arange(9) < torch.randint(3, 10, (n, 1), generator=generator)
    ids[~mask] = 3
    rows = [{"ids": i, "mask": m.long(), "labels": i[0] % 3} for i, m in zip(ids, mask, strict=True)]
    return DataLoader(rows, 16)


def test_tokens_are_explained_at_their_embedding(tmp_path):
    monitor = RetentionMonitor(**TOKENS)
    run(tmp_path, monitor, module=Text(), epochs=2, train=texts(), val=texts())
    found = json.loads((tmp_path / "retention" / "retention.json").read_text())["explainers"]
    assert list(found) == ["LayerIntegratedGradients-words", "Occlusion"]
    assert all(one["n"] == 40 for one in found.values())
    assert all("its own map in another order" in one["references"] for one in found.values())
    assert not any("the input itself" in one["references"] for one in found.values())
    assert -1 < found["Occlusion"]["similarity"] < 1
    assert monitor.explainer.baselines == monitor.second_explainer.baselines == 3
    # Of a sum over tokens, taking one away is the change along its own path: both see the same.
    maps = np.load(tmp_path / "retention" / "samples.npz")
    one, other = (torch.from_numpy(maps[f"maps {name}"]) for name in found)
    assert one.shape == other.shape == (40, 9)
    assert torch.allclose(one, other, atol=0.05 * float(one.abs().max()))


def test_a_method_that_is_named_is_refused_with_a_hint(tmp_path):
    with pytest.raises(
        ValueError, match=r"IntegratedGradients differentiates .* method='LayerIntegratedGradients' and"
    ):
        run(
            tmp_path,
            RetentionMonitor(explainer="IntegratedGradients", **TOKENS),
            module=Text(),
            train=texts(),
            val=texts(),
        )


def test_of_no_second_explainer_there_is_none():
    network = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
    first, second = explainers_of_tokens(network, torch.tensor([[1, 2, 3]]), None)
    assert (first.layer, second) == ("0", None)
    own = Explainer("Occlusion", baselines=2)
    assert explainers_of_tokens(network, torch.tensor([[1, 2, 3]]), own)[1] is own
    assert explainers_of_tokens(nn.Linear(3, 2), torch.rand(1, 3), own) is None


@pytest.mark.parametrize(("length", "window"), [(9, 1), (64, 1), (65, 2), (512, 8)])
def test_long_texts_are_taken_away_in_pieces(length, window):
    assert occlusion_window(torch.zeros(2, length, dtype=torch.int64))["sliding_window_shapes"] == (window,)
    assert occlusion_window(torch.zeros(2, length))["sliding_window_shapes"] == (1,)


@pytest.mark.slow
def test_a_transformer_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Bert(Text):
        def __init__(self):
            LightningModule.__init__(self)
            config = transformers.BertConfig(
                30, 16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3, pad_token_id=3
            )
            self.bert = transformers.BertForSequenceClassification(config)

        def forward(self, ids, mask):
            return self.bert(input_ids=ids, attention_mask=mask).logits

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not add up")
        run(tmp_path, RetentionMonitor(**TOKENS), module=Bert(), epochs=2, train=texts(), val=texts())
    found = json.loads((tmp_path / "retention" / "retention.json").read_text())["explainers"]
    assert list(found) == ["LayerIntegratedGradients-bert.bert.embeddings.word_embeddings", "Occlusion"]
    assert all(one["retention"] is not None or one["null"]["band"] for one in found.values())
