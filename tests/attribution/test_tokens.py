"""The embedding that tokens enter, and what is explained there."""

import captum.attr
import pytest
import torch
from networks import Tokens
from torch import nn
from witness import digest, module_state

from lit_xai.attribution.tokens import Named, TokenEmbedding, embedding_instead
from lit_xai.functional import attribute

IDS = torch.randint(1, 11, (4, 6), generator=torch.Generator().manual_seed(0))
ANSWER = torch.randint(1, 11, (4, 5), generator=torch.Generator().manual_seed(1))


class Words(nn.Module):
    """Token types, words and positions, in that order; words may be cast or copied on the way."""

    def __init__(self, padding=None, copies=False):
        super().__init__()
        torch.manual_seed(0)
        self.types, self.words = nn.Embedding(2, 4), nn.Embedding(40, 4, padding_idx=padding)
        self.places, self.head, self.copies = nn.Embedding(50, 4), nn.Linear(4, 3), copies

    def forward(self, types, ids, mask=None):
        mask = torch.ones_like(ids) if mask is None else mask
        x = self.types(types) + self.words(ids.clone() if self.copies else ids)
        x = x + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head((torch.tanh(x) * mask[..., None]).sum(1))


class Half(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table, self.mix = table, nn.Linear(4, 4)

    def forward(self, ids=None, vectors=None):
        return torch.tanh(self.mix(self.table(ids) if vectors is None else vectors))


class Translator(nn.Module):
    """An encoder and a decoder that share a table, which stands first under the name of the decoder's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        table = nn.Embedding(11, 4)
        self.decoder, self.encoder, self.head = Half(table), Half(table), nn.Linear(4, 3)

    def forward(self, ids, answer):
        read = self.encoder(ids).mean(1, keepdim=True)
        return self.head((self.decoder(answer) * read).mean(1))


class Columns(nn.Module):
    """A table of categories, each column with an embedding of its own."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(11, 4) for _ in range(6)])

    def forward(self, x):
        return sum(table(x[:, i]) for i, table in enumerate(self.tables))


@pytest.mark.parametrize("copies", [False, True])
def test_words_and_not_positions_or_types(copies):
    types = torch.zeros_like(IDS)
    for inputs in ((types, IDS), {"mask": torch.ones_like(IDS), "types": types, "ids": IDS}):
        network = Words(padding=3, copies=copies)
        before = digest(module_state(network))
        assert embedding_instead(network, inputs) == TokenEmbedding("words", 3)
        assert digest(module_state(network)) == before


@pytest.mark.parametrize(
    ("network", "inputs"),
    [(nn.Linear(6, 2), torch.rand(2, 6)), (Columns(), IDS), (nn.Linear(6, 2), IDS), (Tokens(), torch.tensor(3))],
)
def test_none(network, inputs):
    assert embedding_instead(network, inputs) is None


def test_a_table_that_is_read_twice_by_one_name_is_none():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(11, 4)

        def forward(self, one, other):
            return self.table(one).mean(1) * self.table(other).mean(1)

    assert embedding_instead(Pair(), (IDS, ANSWER)) is None


def test_a_shared_table_is_explained_where_the_encoder_calls_it():
    network = Translator().eval()
    names = [(name, id(m)) for name, m in network.named_modules(remove_duplicate=False)]
    found = embedding_instead(network, (IDS, ANSWER))
    assert found == TokenEmbedding("encoder.table")
    for layer, ids, other in (("encoder.table", IDS, ANSWER), ("decoder.table", ANSWER, IDS)):
        given = {"layer": layer, "target": 1, "attribute_args": {"n_steps": 20}}
        maps = attribute(network, (IDS, ANSWER), method="LayerIntegratedGradients", **given)
        table = network.encoder.table

        def forward(vectors, other, layer=layer):
            read = network.encoder(None, vectors) if layer[0] == "e" else network.encoder(other)
            said = network.decoder(other) if layer[0] == "e" else network.decoder(None, vectors)
            return network.head((said * read.mean(1, keepdim=True)).mean(1))

        explainer = captum.attr.IntegratedGradients(forward)
        empty = table(torch.zeros_like(ids))
        expected = explainer.attribute(table(ids), empty, target=1, additional_forward_args=(other,), n_steps=20)
        torch.testing.assert_close(maps, expected.detach().float(), atol=1e-5, rtol=1e-4)
    assert names == [(name, id(m)) for name, m in network.named_modules(remove_duplicate=False)]


def test_a_table_shared_but_called_once_has_its_first_name():
    network = Tokens()
    network.also = network.embedding
    assert embedding_instead(network, IDS) == TokenEmbedding("embedding")
    maps = [
        attribute(network, IDS, method="LayerIntegratedGradients", layer=n, target=0) for n in ("embedding", "also")
    ]
    assert torch.equal(*maps)


def test_a_mask_before_the_tokens_gets_no_baseline():
    network, types, mask = Words(), torch.zeros_like(IDS), torch.ones_like(IDS)
    given = {"method": "LayerIntegratedGradients", "layer": "words", "target": 1, "baselines": 7}
    maps = [
        attribute(network, inputs, **given)
        for inputs in ({"ids": IDS, "types": types, "mask": mask}, {"mask": mask, "types": types, "ids": IDS})
    ]
    assert maps[0].abs().max() > 0
    assert torch.equal(*maps)


def test_bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        **{"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3},
        **{"intermediate_size": 16, "max_position_embeddings": 16},
    )
    batch = {"attention_mask": torch.ones_like(IDS), "input_ids": IDS, "token_type_ids": torch.zeros_like(IDS)}
    found = embedding_instead(BertForSequenceClassification(config), batch)
    assert found == TokenEmbedding("bert.embeddings.word_embeddings")


def test_t5_with_labels():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    network = T5ForConditionalGeneration(config).eval()
    batch = {"attention_mask": torch.ones_like(IDS), "input_ids": IDS, "labels": ANSWER}
    found = embedding_instead(network, batch)
    assert found == TokenEmbedding("encoder.embed_tokens")
    given = {"target": torch.tensor([[2, 5]] * 4), "attribute_args": {"n_steps": 20}}
    maps = attribute(network, batch, method="LayerIntegratedGradients", layer=found.layer, **given)
    explainer = captum.attr.IntegratedGradients(lambda x, y: network(inputs_embeds=x, labels=y).logits[:, 2, 5])
    vectors = network.shared(torch.stack([IDS, torch.zeros_like(IDS)]))
    expected = explainer.attribute(*vectors, additional_forward_args=(ANSWER,), n_steps=20).detach().float()
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)


def test_a_named_module_is_the_module():
    table = nn.Embedding(5, 2)
    assert Named(table).weight is table.weight
    with pytest.raises(AttributeError):
        _ = Named(table).nothing
