import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece

from lit_xai.data.tokenizers import load_tokenizer, padding_of, token_names

VOCABULARY = {"[UNK]": 0, "[PAD]": 1, "good": 2, "film": 3}


@pytest.fixture
def folder(tmp_path):
    Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_folder_or_its_file_is_read(folder):
    for source in (folder, str(folder), folder / "tokenizer.json"):
        assert token_names(load_tokenizer(source)) == list(VOCABULARY)


def test_a_folder_in_the_older_form_is_read_by_transformers(tmp_path):
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\n")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    tokenizer = load_tokenizer(tmp_path / "saved")
    assert token_names(tokenizer)[5] == "film"
    assert tokenizer.encode("film").tokens == ["[CLS]", "film", "[SEP]"]


@pytest.mark.parametrize("source", ["", "no-such-name/at-all"])
def test_what_is_no_tokenizer_is_refused_in_one_sentence_without_the_network(source, tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer expected the folder of a tokenizer, but got .* tokenizer.json"):
        load_tokenizer(source or tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer expected the folder of a tokenizer, .* cannot be read"):
        load_tokenizer(tmp_path)


def test_names_are_those_of_added_tokens_too(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["brand"])
    assert token_names(tokenizer)[4] == "brand"


@pytest.mark.parametrize(
    ("vocabulary", "config", "expected"),
    [
        ({"[UNK]": 0, "[PAD]": 1}, None, 1),
        ({"a": 0, "<pad>": 1, "[PAD]": 2}, {"pad_token": "<pad>"}, 1),
        ({"a": 0, "<p>": 1}, {"pad_token": {"content": "<p>"}}, 1),
        ({"a": 0, "</s>": 1}, {}, 1),
        ({"a": 0, "b": 1}, None, None),
    ],
)
def test_padding_is_what_the_folder_says_or_the_usual_name(vocabulary, config, expected, tmp_path):
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert padding_of(tokenizer, tmp_path) == expected


def test_padding_that_the_tokenizer_says_itself():
    tokenizer = Tokenizer(WordPiece({"[PAD]": 0, "x": 1}, unk_token="x"))
    tokenizer.enable_padding(pad_id=1, pad_token="x")
    assert padding_of(tokenizer) == 1
