import copy

import pytest
import torch
from torch import nn

from lit_xai.attribution.tokens import embedding_instead
from lit_xai.functional import attribute, prune_step, quantize
from lit_xai.models import DeepAverage
from lit_xai.models.spelled_embedding import MOST, SpelledEmbedding, groups
from lit_xai.network.tables import tables
from lit_xai.structure.kinds import apply_step_

NAMES = ["[PAD]", "[UNK]", "happy", "unhappy", "film", "##ness", "a"]
BATCH = {"input_ids": torch.tensor([[2, 5, 4], [3, 4, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


@pytest.fixture
def table():
    torch.manual_seed(0)
    made = SpelledEmbedding(vocab_size=9, dim=8, letters=500)
    made.spell(NAMES)
    return made


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = DeepAverage(vocab_size=9, num_classes=3, dim=16, hidden=32, letters=40).eval()
    made.words.spell(NAMES)
    return made


@pytest.mark.parametrize("name", range(len(NAMES)))
def test_an_embedding_is_the_words_own_and_that_of_its_letters(table, name):
    words = {2: ("happy", True), 3: ("unhappy", True), 4: ("film", True), 5: ("ness", False), 6: ("a", True)}
    expected = table.tokens.weight[name].clone()
    if name in words:
        rows = table.spelling[name][table.spelling[name] > 0].long()
        assert len(rows) == len(groups(*words[name]))
        expected += sum(table.letters.weight[row] for row in rows) / max(1, len(rows)) ** 0.5
    torch.testing.assert_close(table(torch.tensor([[name]]))[0, 0], expected)


def test_words_that_are_written_alike_share_groups(table):
    def rows(i):
        return set(table.spelling[i].tolist()) - {0}

    assert len(rows(2) & rows(3)) >= len(groups("happy")) - 3  # all but those that begin it
    assert not rows(2) & rows(4)


@pytest.mark.parametrize("word", ["a", "unbelievable", "x" * 100, "абв", ""])
def test_groups_are_parts_of_the_word_each_once(word):
    found = groups(word)
    assert len(found) == len(set(found)) <= MOST
    assert all(group in f"<{word}>" and group != f"<{word}>" for group in found)


def test_padding_and_special_tokens_have_no_letters(table):
    assert not table.spelling[:2].any()
    assert not table(torch.tensor([0])).any()


def test_what_is_learned_of_one_word_moves_the_other(table):
    before = table(torch.tensor([3, 4])).detach()
    table(torch.tensor([2])).sum().backward()
    with torch.no_grad():
        for parameter in table.parameters():
            parameter -= parameter.grad
    alike, other = (table(torch.tensor([3, 4])) - before).abs().sum(1)
    assert alike > 0
    assert other == 0


def test_the_spelling_is_in_the_state(table):
    other = SpelledEmbedding(vocab_size=9, dim=8, letters=500)
    other.load_state_dict(table.state_dict())
    assert other.is_spelled
    torch.testing.assert_close(other(BATCH["input_ids"]), table(BATCH["input_ids"]))


def test_training_without_letters_is_said():
    table = SpelledEmbedding(vocab_size=9, dim=8, letters=500)
    table.eval()(torch.tensor([2]))
    with pytest.warns(UserWarning, match=r"call spell\(\)"):
        table.train()(torch.tensor([2]))


def test_more_names_than_ids():
    with pytest.raises(ValueError, match="at most one for each of 3 ids, but got 7"):
        SpelledEmbedding(vocab_size=3, dim=8, letters=5).spell(NAMES)


def test_without_groups_it_is_torchs_embedding():
    assert type(DeepAverage(vocab_size=9).words) is nn.Embedding
    with pytest.raises(ValueError, match="letters"):
        DeepAverage(vocab_size=9, letters=-1)


def test_it_is_one_table_whatever_it_is_made_of(network):
    assert list(tables(network)) == ["words"]


def test_attributions_of_tokens_are_those_of_the_whole_embedding(network):
    """The head is linear in the mean where the perceptron says nothing: input times weight is the answer."""
    for parameter in network.fc2.parameters():
        nn.init.zeros_(parameter)
    layer = embedding_instead(network, BATCH).layer
    found = attribute(network, BATCH, method="LayerIntegratedGradients", layer=layer, target=torch.tensor([0, 1]))
    vectors = network.words(BATCH["input_ids"])
    parts = vectors * network.head.weight[[0, 1]][:, None] / BATCH["attention_mask"].sum(1)[:, None, None]
    expected = (parts * BATCH["attention_mask"][..., None]).sum(-1)
    torch.testing.assert_close(found.sum(-1) if found.dim() == 3 else found, expected, rtol=1e-4, atol=1e-6)


def test_its_tables_are_cut_together(network):
    step = prune_step(network, BATCH, pruning_ratio=0.5)
    apply_step_(network, step)
    assert network.words.tokens.weight.shape == (9, 8)
    assert network.words.letters.weight.shape == (41, 8)
    assert network(**BATCH).shape == (2, 3)


def test_its_tables_are_quantized(network):
    quantized = quantize(copy.deepcopy(network), [BATCH], progress=False)
    rounded = [name for name, _ in quantized.named_modules() if name.endswith("embedding/weight")]
    assert sorted(name.rpartition("words/")[2] for name in rounded) == [
        "letters/embedding/weight",
        "tokens/embedding/weight",
    ]
    difference = (quantized(**BATCH) - network(**BATCH)).abs().max()
    assert 0 < difference < 0.05
