"""tiny-canvas's own byte-pair tokenizer, in CLIP's manner, learned from the world's prompts."""

import json

from tokenizers import pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from .world import NOISE_CAPTION, scenes

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(max_length: int) -> CLIPTokenizer:
    """Learn the merges; the same for the same world.

    Every byte is in the vocabulary, in the middle and at the end of a word, so that words from
    outside the world are spelled out and never become the end-of-text token.
    """
    blank = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=2 * len(alphabet) + 700,
        special_tokens=[BOS, EOS],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    corpus = ["something", NOISE_CAPTION, *(phrase for scene in scenes() for phrase in list(scene.phrases())[:8])]
    corpus += [phrase for scene in scenes() for phrase in list(scene.phrases())[::7]]
    blank.train_from_iterator(corpus, trainer)
    learned = json.loads(blank.to_str())["model"]
    vocab: dict[str, int] = learned["vocab"]
    for character in alphabet:
        vocab.setdefault(f"{character}</w>", len(vocab))
    merges = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)




