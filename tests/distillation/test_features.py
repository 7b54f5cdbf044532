"""Hidden states of transformers: of any width and depth, from blocks that return tuples, and padding takes no part."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from taught import Module
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

from lit_xai import KnowledgeDistillation
from lit_xai.distillation.adapters import Adapters
from lit_xai.distillation.features import FeatureMatching
from lit_xai.distillation.loss_spec import LossSpec
from lit_xai.distillation.losses import FEATURE_LOSSES, attention_transfer, hint
from lit_xai.models import TextTransformer
from lit_xai.network.recording import Call

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def matching(name):
    return FeatureMatching({"a": "b"}, LossSpec(name, "feature_loss", FEATURE_LOSSES), 1.0)


def test_padding_takes_no_part_and_channels_of_tokens_come_last():
    ids = torch.randint(1, 9, (3, 6))
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    student, teacher = torch.randn(3, 6, 5), torch.randn(3, 6, 5)
    call = Call("", (), {"input_ids": ids, "attention_mask": mask.long()}, None, {"a": student})
    found = matching("hint").term(call, {"b": teacher}, Adapters(1e-3))
    torch.testing.assert_close(found, hint(student[mask], teacher[mask]))
    by_hand = [[(row[:n] ** 2).mean(-1) for row, n in zip(x, (6, 4, 2), strict=True)] for x in (student, teacher)]
    distances = [
        (F.normalize(one, dim=0) - F.normalize(other, dim=0)).square().sum()
        for one, other in zip(*by_hand, strict=True)
    ]
    found = matching("attention_transfer").term(call, {"b": teacher}, Adapters(1e-3))
    torch.testing.assert_close(found, torch.stack(distances).sum() / 18)
    images = Call("", (torch.rand(3, 1, 6, 6),), {}, None, {"a": student})  # (N, channels, positions)
    found = matching("attention_transfer").term(images, {"b": teacher}, Adapters(1e-3))
    torch.testing.assert_close(found, attention_transfer(student, teacher))


def text(dim, depth):
    return TextTransformer(50, max_length=8, dim=dim, depth=depth, heads=2)


def bert(dim, depth):
    sizes = {"hidden_size": dim, "num_hidden_layers": depth, "num_attention_heads": 2, "intermediate_size": dim}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=8, num_labels=2, **sizes))


class OfTexts(Module):
    def forward(self, input_ids, attention_mask):
        found = self.network(input_ids=input_ids, attention_mask=attention_mask)
        return getattr(found, "logits", found)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(*batch[:2]), batch[2])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def train_dataloader(self):
        draw = torch.Generator().manual_seed(0)
        mask = (torch.arange(8) < torch.randint(3, 9, (64, 1), generator=draw)).long()
        ids = torch.randint(1, 50, (64, 8), generator=draw) * mask
        return DataLoader(TensorDataset(ids, mask, torch.arange(64) % 2), 16)

    val_dataloader = train_dataloader


class Record(Callback):
    def __init__(self):
        self.values = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.values.append(float(trainer.callback_metrics["distillation/features"]))


BERT = "bert.encoder.layer"
KINDS = {
    "text of text": (text, text, {"blocks.0": "blocks.2"}),
    "bert of bert": (bert, bert, {f"{BERT}.0": f"{BERT}.2"}),
    "text of bert": (text, bert, {"blocks.0": f"{BERT}.2", "words": "bert.embeddings.word_embeddings"}),
}


def test_after_a_layer_norm_tokens_have_one_length_and_attention_transfer_compares_nothing():
    hidden = [F.layer_norm(torch.randn(3, 6, width), (width,)) for width in (16, 32)]
    assert attention_transfer(*hidden, channel_dim=-1) < 1e-8
    assert attention_transfer(torch.randn(3, 6, 16), hidden[1], channel_dim=-1) > 1e-4


@pytest.mark.filterwarnings("ignore:.*the student is ahead")
@pytest.mark.parametrize("loss", ["hint", "attention_transfer"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wider_and_deeper_teacher_is_approached(kind, loss, tmp_path):
    if (kind, loss) == ("bert of bert", "attention_transfer"):
        pytest.skip("BERT's blocks end with a LayerNorm")
    torch.manual_seed(0)
    small, large, features = KINDS[kind]
    student, teacher = small(16, 1), large(32, 3)
    record = Record()
    kept = KnowledgeDistillation(
        teacher, alpha=0.0, features=features, feature_loss=loss, feature_weight=10.0, adapter_lr=0.01
    )
    trainer = Trainer(max_epochs=6, callbacks=[kept, record], default_root_dir=tmp_path, accelerator="cpu", **QUIET)
    trainer.fit(OfTexts(student, lr=0.05))
    assert record.values[-1] < 0.8 * record.values[0]
    assert not any("adapter" in name for name, _ in student.named_parameters())
