"""A WordPiece vocabulary learned from texts, the same for the same texts on every machine."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from lit_xai.network.packages import require

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first ids, in BERT's order but for the gap of unused ones."""
Pair = tuple[str, str]


def learn_pieces(words: Mapping[str, int], size: int) -> list[str]:
    """Return the pieces of a vocabulary: all letters, then the most frequent pair of pieces, joined, again and again.

    Byte-pair encoding (`Sennrich et al. 2016 <https://arxiv.org/abs/1508.07909>`_) as the package ``tokenizers`` learns
    WordPiece vocabularies; its own trainer breaks ties by the order of a hash table, which differs from run to run.

    Args:
        words: how often each occurs.
        size: pieces in all; fewer where no pair is left.

    Example:
        >>> learn_pieces({"low": 5, "lower": 2}, 8)
        ['l', '##e', '##o', '##r', '##w', '##ow', 'low', '##er']
    """
    pieces = {word: [word[0], *(f"##{letter}" for letter in word[1:])] for word in sorted(words) if word}
    letters = {one for parts in pieces.values() for one in parts}
    known = dict.fromkeys(sorted(letters, key=lambda one: (one.startswith("##"), one)))
    counts, where = Counter[Pair](), defaultdict[Pair, set[str]](set)
    for word, parts in pieces.items():
        for pair in pairwise(parts):
            counts[pair] += words[word]
            where[pair].add(word)
    # Ties go to the pair that comes first in the alphabet.
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    while queue and len(known) < size:
        count, pair = heapq.heappop(queue)
        if counts[pair] != -count:  # an older entry: it has been counted down since
            if counts[pair] > 0:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        known[pair[0] + pair[1].removeprefix("##")] = None
        for changed in _join(pair, pieces, words, counts, where):
            heapq.heappush(queue, (-counts[changed], changed))
    return list(known)[:size]


def _join(
    pair: Pair,
    pieces: dict[str, list[str]],
    words: Mapping[str, int],
    counts: Counter[Pair],
    where: dict[Pair, set[str]],
) -> set[Pair]:
    """Join a pair in every word that has it, and return the pairs that are new or more frequent."""
    changes, joined = defaultdict[Pair, int](int), pair[0] + pair[1].removeprefix("##")
    for word in where.pop(pair):
        parts, count = pieces[word], words[word]
        merged = list[str]()
        for part in parts:
            if merged and (merged[-1], part) == pair:
                merged[-1] = joined
            else:
                merged.append(part)
        pieces[word] = merged
        for one in pairwise(parts):
            changes[one] -= count
        for one in pairwise(merged):
            changes[one] += count
            where[one].add(word)
    for one, change in changes.items():
        counts[one] += change
    where.pop(pair, None)
    return {one for one, change in changes.items() if change > 0}


def learn_wordpiece(texts: Iterable[str], size: int = 8000, lowercase: bool = True) -> Tokenizer:
    """Return a WordPiece tokenizer of texts: BERT's rules for words, ``[CLS]`` before and ``[SEP]`` after each text.

    Args:
        texts: to learn from.
        size: of the vocabulary, special tokens included.
        lowercase: whether letters lose their case, and their accents.

    Example:
        >>> tokenizer = learn_wordpiece(["a good film", "good films"] * 3, size=40)
        >>> tokenizer.encode("Good films").tokens
        ['[CLS]', 'good', 'films', '[SEP]']
    """
    require("A tokenizer that is trained", "tokenizers", extra="text")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    names = [*SPECIAL, *learn_pieces(words, size - len(SPECIAL))]
    tokenizer = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    ids = [(name, names.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
