"""Translator, against losses and greedy writing by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_xai.models import Translator
from lit_xai.models.translator import write_tokens

V = 7


class Tiny(nn.Module):
    """Writes from the mean of what was read and the token before."""

    def __init__(self):
        super().__init__()
        self.source, self.before, self.head = nn.Embedding(V, 4), nn.Embedding(V, 4), nn.Linear(4, V)

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        mask = attention_mask[..., None].float()
        read = (self.source(input_ids) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return {"logits": self.head(read + self.before(decoder_input_ids))}


@pytest.fixture
def batch():
    torch.manual_seed(0)
    labels = torch.tensor([[3, 4, 1], [5, 1, -100]])
    read = torch.tensor([[0, 3, 4], [0, 5, 0]])
    ids = torch.tensor([[2, 3, 0], [4, 5, 6]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "decoder_input_ids": read, "labels": labels}


def loss_of(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return model.compute_loss(*model.align(model(**inputs), batch["labels"], True))


def test_the_loss_is_that_of_the_tokens_that_count(batch):
    model = Translator(Tiny(), V)
    loss = loss_of(model, batch)
    logits = model.network(*(batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")))["logits"]
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()))


def test_what_is_padding_does_not_count(batch):
    model, other = Translator(Tiny(), V), {**batch, "decoder_input_ids": batch["decoder_input_ids"].clone()}
    other["decoder_input_ids"][1, 2] = 6
    assert loss_of(model, batch) == loss_of(model, other)


def test_writing_is_the_most_probable_token_again_and_again(batch):
    network = Tiny().eval()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    found = write_tokens(network, given, most=5)
    for row in range(2):
        read = [0]
        for _ in range(5):
            one = network(
                given["input_ids"][row : row + 1], given["attention_mask"][row : row + 1], torch.tensor([read])
            )
            read.append(int(one["logits"][0, -1].argmax()))
        assert found[row].tolist() == read[1:]


def test_behind_the_end_nothing_is_written(batch):
    class Ends(nn.Module):
        def forward(self, input_ids, decoder_input_ids):
            place = decoder_input_ids.shape[1]
            tokens = torch.tensor([[4, 1, 5, 6], [4, 5, 1, 6]])[:, :place]
            return F.one_hot(tokens, V).float()

    found = write_tokens(Ends(), {"input_ids": batch["input_ids"]}, most=4, end=1)
    assert found.tolist() == [[4, 1, 1], [4, 5, 1]]


def test_wrong_shapes_and_tokens_are_refused(batch):
    with pytest.raises(ValueError, match=r"logits expected shape \(2, 3, 9\)"):
        loss_of(Translator(Tiny(), 9), batch)
    with pytest.raises(ValueError, match="labels expected tokens from 0 to 6"):
        loss_of(Translator(Tiny(), V), {**batch, "labels": batch["labels"] + 4})
    with pytest.raises(ValueError, match="vocab_size expected"):
        Translator(Tiny(), 1)
