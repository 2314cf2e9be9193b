"""The embedded model's tokenizer: CLIP's byte-level BPE, trained on the captions of the embedded world."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from .models import TEXT_LENGTH

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def train_tokenizer(captions: Iterable[str], folder: Path, merges: int = 1500) -> CLIPTokenizer:
    """Train at most `merges` BPE merges on `captions`, write the tokenizer to `folder`, return it read back.

    The vocabulary is laid out as CLIP's: 256 bytes, 256 bytes that end a word, the merges, BOS, EOS. So any text
    tokenises without an unknown token. EOS is also the padding, as in SD 1.x.
    """
    blank = _tokenizer({}, [])._tokenizer  # CLIP's own normaliser and word splitting
    blank.model = BPE(end_of_word_suffix=END_OF_WORD)
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=512 + merges,
        end_of_word_suffix=END_OF_WORD,
        initial_alphabet=alphabet,
        min_frequency=2,
        show_progress=False,
    )
    blank.train_from_iterator(sorted(set(captions)), trainer)
    pairs = [tuple(pair) for pair in json.loads(blank.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(c + END_OF_WORD for c in alphabet), *dict.fromkeys(a + b for a, b in pairs), BOS, EOS]
    tokenizer = _tokenizer({t: i for i, t in enumerate(tokens)}, pairs)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt, for readers that want CLIP's files
    return CLIPTokenizer.from_pretrained(folder)


def _tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    vocab = vocab or {BOS: 0, EOS: 1}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids [n, 77] as the Stable Diffusion pipeline makes them: cut and padded to 77."""
    batch = tokenizer(texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
    return batch.input_ids
