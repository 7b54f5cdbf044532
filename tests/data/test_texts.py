import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_xai.data import TextDataModule, Texts
from lit_xai.models.spelled_embedding import SpelledEmbedding

GOOD, BAD = "a good film with a fine cast", "a bad film"


def texts(n=20, **options):
    return Texts([GOOD, BAD] * n, [1, 0] * n, ["bad", "good"], **options)


def module(given=None, **options):
    return TextDataModule.from_texts(given or texts(), **{"vocab_size": 60, "batch_size": 4, **options})


class Net(LightningModule):
    def __init__(self, ids=60, positions=20):
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(ids, 4), nn.Embedding(positions, 4), nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        hidden = self.words(batch["input_ids"]) + self.positions.weight[: batch["input_ids"].shape[1]]
        return nn.functional.cross_entropy(self.head(hidden.mean(1)), batch["labels"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_train_batch_start(self, batch, batch_idx):
        self.has_begun = True


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(max_epochs=1, default_root_dir=folder, **{**quiet, "enable_checkpointing": False, **options})


def fit(folder, network, data, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*have no `validation_step`")
        run = trainer(folder, **options)
        run.fit(network, data)
    return run


def test_groups_stay_together_and_parts_are_disjoint():
    groups = [f"film{i // 4}" for i in range(40)]
    train, val, test = module(texts(groups=groups), seed=3).split(texts(groups=groups))
    assert sorted([*train.tolist(), *val.tolist(), *test.tolist()]) == list(range(40))
    kinds = [{groups[i] for i in part.tolist()} for part in (train, val, test)]
    assert sum(map(len, kinds)) == len(set.union(*kinds)) == 10
    assert len(test) == 8
    assert len(val) == 4  # 10% of 32, and the rest of that film


def test_part_of_the_training_texts_is_drawn_from_all_of_them():
    data = module(train_size=10)
    train, _, _ = data.split(texts())
    assert len(train) == 10
    assert max(train.tolist()) > 20


def test_the_vocabulary_is_learned_from_training_texts_alone():
    given = Texts([GOOD] * 10 + ["zebra"], [1] * 10 + [0], ["bad", "good"])
    data = module(given, test_size=1, val_size=0, seed=next(s for s in range(99) if _tests_the_last(given, s)))
    data.setup()
    assert not any("z" in name for name in data.token_names)
    assert [data.token_names[i] for i in data.test_dataset[0]["input_ids"]][:3] == ["[CLS]", "[UNK]", "[SEP]"]


def _tests_the_last(given, seed):
    return module(test_size=1, val_size=0, seed=seed).split(given)[2].tolist() == [10]


def test_long_texts_are_cut_where_asked():
    data = module(max_length=5, pad_to="max_length")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == (4, 5)
    names = [data.token_names[i] for i in batch["input_ids"][0]]
    assert names[0] == "[CLS]"
    assert "[SEP]" in names  # texts are cut, and the mark of their end is not


def test_a_run_saves_its_tokenizer_and_transformers_reads_it(tmp_path):
    from transformers import AutoTokenizer

    data = module()
    fit(tmp_path, Net(), data)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer(GOOD)["input_ids"] == data.tokenizer.encode(GOOD).ids
    assert tokenizer.pad_token == "[PAD]"
    again = module(tokenizer=tmp_path / "tokenizer")
    again.setup("fit")
    assert again.token_names == data.token_names
    assert (again.padding, again.vocab_size) == (data.padding, data.vocab_size)


def test_a_text_longer_than_the_positions_is_refused_before_the_first_step(tmp_path):
    network = Net(positions=8)
    with pytest.raises(ValueError, match="has 8 positions, but the longest text has 9 tokens: set max_length=8"):
        fit(tmp_path, network, module())
    assert not hasattr(network, "has_begun")
    fit(tmp_path, network, module(max_length=8))


def test_more_ids_than_the_embedding_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"embedding has 10 rows, .* set vocab_size of the network to"):
        fit(tmp_path, Net(ids=10, positions=20), module())


class Spelled(Net):
    def __init__(self):
        super().__init__()
        self.words = SpelledEmbedding(60, 4, letters=99)  # as many groups as it likes: ids are those of the whole


def test_a_network_that_asks_for_it_is_told_how_tokens_are_written_before_the_first_step(tmp_path):
    network, data = Spelled(), module()
    fit(tmp_path, network, data)
    expected = SpelledEmbedding(60, 4, letters=99)
    expected.spell(data.token_names)
    assert expected.spelling.any()
    assert torch.equal(network.words.spelling, expected.spelling)


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path):
    run = fit(tmp_path, Net(), module())
    run.save_checkpoint(tmp_path / "one.ckpt")
    other = module(Texts(["some other words"] * 40, [1, 0] * 20, ["bad", "good"]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers|.*have no `validation_step`")
        with pytest.raises(ValueError, match="trained with another vocabulary than the tokenizer has: set tokenizer"):
            trainer(tmp_path).fit(Net(), other, ckpt_path=tmp_path / "one.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"vocab_size": 5}, "vocab_size expected an integer of at least 6"),
        ({"max_length": 2}, "max_length expected an integer of at least 3"),
        ({"pad_to": "max_length"}, "max_length expected a number of tokens, with pad_to='max_length'"),
        ({"pad_to": "longst"}, "pad_to expected .* Did you mean 'longest'"),
        ({"lowercase": "yes"}, "lowercase expected True or False"),
    ],
)
def test_arguments_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        TextDataModule(**options)


def test_sizes_that_leave_nothing_to_train_on():
    with pytest.raises(ValueError, match="test_size expected to leave some of the 40 texts to train on"):
        module(test_size=1.0).setup("fit")
    with pytest.raises(ValueError, match="train_size expected to leave texts to train on"):
        module(val_size=1.0).setup("fit")


def test_no_texts():
    with pytest.raises(MisconfigurationException, match="TextDataModule has no texts"):
        TextDataModule().setup("fit")


def test_a_tokenizer_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match="tokenizer expected the folder of a tokenizer"):
        module(tokenizer=str(tmp_path)).setup("fit")


def test_a_tokenizer_without_padding(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer expected one with a token for padding"):
        module(tokenizer=str(tmp_path)).setup("fit")


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="texts expected words in every text, but row 1 is empty: drop the row"):
        Texts([GOOD, " \n"], [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="labels expected one for each of 1 texts"):
        Texts([GOOD], [0, 1], ["a", "b"])
