from collections import Counter
from itertools import pairwise

import pytest

from lit_xai.data.wordpiece import SPECIAL, learn_pieces, learn_wordpiece

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3, "aaaa": 4, "a": 1, "slow": 2}


def by_counting_anew(words, size):
    """Byte-pair encoding in a few lines: every pair is counted again before each join."""
    pieces = {word: [word[0], *(f"##{one}" for one in word[1:])] for word in words}
    known = sorted({one for parts in pieces.values() for one in parts}, key=lambda one: (one.startswith("##"), one))
    while len(known) < size:
        counts = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        joined = best[0] + best[1].removeprefix("##")
        known += [joined] if joined not in known else []
        for word, parts in pieces.items():
            merged = []
            for part in parts:
                if merged and (merged[-1], part) == best:
                    merged[-1] = joined
                else:
                    merged.append(part)
            pieces[word] = merged
    return known[:size]


@pytest.mark.parametrize("size", [1, 12, 20, 26, 99])
def test_the_most_frequent_pair_is_joined_each_time(size):
    assert learn_pieces(WORDS, size) == by_counting_anew(WORDS, size)


def test_the_order_of_words_changes_nothing():
    assert learn_pieces(dict(reversed(WORDS.items())), 24) == learn_pieces(WORDS, 24)


def test_pieces_are_those_of_the_librarys_own_trainer():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = [" ".join([word] * n) for word, n in {"low": 9, "lower": 7, "newest": 6, "widest": 4}.items()]
    other = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    other.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(SPECIAL)
    other.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    )
    # All pairs are joined in the end, whatever the order.
    assert set(learn_wordpiece(texts, 60).get_vocab()) >= {"low", "lower", "newest", "widest"} <= set(other.get_vocab())


def test_texts_come_back_whole():
    tokenizer = learn_wordpiece(["A café, unbelievably good!", "good films"], 200)
    encoded = tokenizer.encode("unbelievably GOOD café films")
    assert tokenizer.decode(encoded.ids) == "unbelievably good cafe films"
    assert encoded.tokens[0] == "[CLS]"
    assert encoded.tokens[-1] == "[SEP]"
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3, 4]


def test_case_is_kept_where_asked():
    tokenizer = learn_wordpiece(["Good good"] * 3, 60, lowercase=False)
    assert tokenizer.encode("Good good").tokens[1:3] == ["Good", "good"]


def test_letters_that_are_not_known_are_one_token():
    assert learn_wordpiece(["good"], 60).encode("好").tokens == ["[CLS]", "[UNK]", "[SEP]"]
