from functools import partial

import numpy as np
import pytest

from lit_xai.network.token_names import TokenNames
from lit_xai.render.pieces import pieces_of


def words_of_text(names, ids):
    pieces = pieces_of(np.array(ids), np.zeros(len(ids)), TokenNames(names))
    words = []
    for piece in pieces:
        words += [piece.words] if piece.begins_word else [words.pop() + piece.words]
    return words


@pytest.fixture(scope="module")
def trained():
    """Tokenizers of all conventions, trained by their own library: a witness of how names are to be read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = ["unbelievable happiness in a café", "a naïve, unhappy film", "believing in cafés"] * 5
    kinds = {
        "WordPiece": (
            models.WordPiece(unk_token="[UNK]"),
            pre_tokenizers.BertPreTokenizer(),
            trainers.WordPieceTrainer,
            decoders.WordPiece(),
        ),
        "ByteLevel": (
            models.BPE(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            partial(trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
            decoders.ByteLevel(),
        ),
        "Metaspace": (
            models.BPE(unk_token="[UNK]"),
            pre_tokenizers.Metaspace(),
            trainers.BpeTrainer,
            decoders.Metaspace(),
        ),
    }
    made = {}
    for name, (model, split, trainer, decoder) in kinds.items():
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer, tokenizer.decoder = split, decoder
        special = ["[PAD]", "[UNK]"]
        tokenizer.train_from_iterator(
            texts, trainer(vocab_size=300 if name == "ByteLevel" else 45, special_tokens=special, show_progress=False)
        )
        made[name] = tokenizer
    return made


@pytest.mark.parametrize("kind", ["WordPiece", "ByteLevel", "Metaspace"])
@pytest.mark.parametrize("text", ["unbelievable café film", "a believing naïve film", "in happiness"])
def test_pieces_of_a_word_stand_together_as_their_tokenizer_joins_them(trained, kind, text):
    tokenizer = trained[kind]
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    ids = tokenizer.encode(text).ids
    words = [word.replace("␣", "") for word in words_of_text(names, ids)]
    assert words == tokenizer.decode(ids).split() == text.split()


def test_a_letter_that_is_cut_in_two_is_a_replacement_character():
    assert words_of_text(["Ġna", "Ã", "¯", "ve"], [0, 1, 2, 3]) == ["na��ve"]


def test_without_a_convention_every_token_is_a_word():
    assert words_of_text(["so", "good", "."], [0, 1, 2]) == ["so", "good", "."]


def test_ids_without_names_are_numbers():
    assert words_of_text(None, [7, 12]) == ["7", "12"]
    assert words_of_text(["[PAD]", "a", None], [1, 2, 99, -100]) == ["a", "2", "99", "-100"]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 0, 0, 0], ["a", "b", "3 x [PAD]"]),
        ([0, 0, 0, 0, 1, 2], ["4 x [PAD]", "a", "b"]),
        ([1, 0, 0], ["a", "[PAD]", "[PAD]"]),
        ([0] * 5, ["5 x [PAD]"]),
        ([0, 0, 0, 1, 0, 0, 0], ["3 x [PAD]", "a", "3 x [PAD]"]),
        ([1], ["a"]),
    ],
)
def test_padding_at_the_ends_is_one_piece(ids, words):
    names = TokenNames(["[PAD]", "a", "b"])
    shares = np.random.default_rng(0).normal(size=len(ids))
    pieces = pieces_of(np.array(ids), shares, names)
    assert [piece.words for piece in pieces] == words
    assert [piece.first for piece in pieces] == np.cumsum([0, *(piece.count for piece in pieces)])[:-1].tolist()
    for piece in pieces:
        assert piece.share == pytest.approx(shares[piece.first : piece.first + piece.count].sum())
        assert piece.is_special == ("[PAD]" in piece.words)


@pytest.mark.parametrize(
    "name", ["[CLS]", "[unused]", "<s>", "</s>", "<|endoftext|>", "<mask>", "<", "[", "[a]", "a<b>c"]
)
def test_special_tokens_are_told_by_their_names(name):
    special = {"[CLS]", "<s>", "</s>", "<|endoftext|>", "<mask>"}
    assert TokenNames([name]).is_special(0) == (name in special)


def test_a_piece_after_a_special_token_begins_a_word():
    assert words_of_text(["[CLS]", "##ing", "Ġ"], [0, 1]) == ["[CLS]", "ing"]


@pytest.mark.parametrize(("name", "shown"), [("\n", "↵"), ("\t", "⇥"), ("", "␣"), (" ", "␣"), ("a\x00b", "a·b")])
def test_what_cannot_be_seen_is_shown(name, shown):
    assert words_of_text([name], [0]) == [shown]
