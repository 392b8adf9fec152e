"""tiny-canvas's own byte-pair tokenizer, in CLIP's manner, learned from the world's words.

The merges are learned here, not by the tokenizers library, because that breaks ties differently on
every run, and a vocabulary that changes would make trained embeddings worthless.
"""

from collections import Counter
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from ...worlds.tiny_canvas import DIMENSIONS, NOISE_CAPTION

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_END = "</w>"


def train_tokenizer(max_length: int) -> CLIPTokenizer:
    """Learn the vocabulary; always the same for the same world.

    Every byte is in it, in the middle and at the end of a word, so that words from outside the
    world are spelled out and never become the end-of-text token.
    """
    phrases = [phrase for values in DIMENSIONS.values() for each in values.values() for phrase in each]
    words = Counter(word for phrase in [*phrases, NOISE_CAPTION, "something", "a an"] for word in phrase.split())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(words)
    tokens = [BOS, EOS, *alphabet, *(letter + _END for letter in alphabet), *("".join(pair) for pair in merges)]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def _merges(words: Counter[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one token (Sennrich et al. 2016); ties by the alphabet."""
    spelled = {word: (*word[:-1], word[-1] + _END) for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merged(parts, best) for word, parts in spelled.items()}


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return tuple(out)
