"""The mini architecture with a text tower, registered with open_clip, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from harness.backbones.mini import (
    MEAN,
    MODEL_NAME,
    STD,
)
from tasks import vocabulary

CLIP_NAME = f"{MODEL_NAME}_clip"
CONTEXT_LENGTH = 20
# open_clip keeps preprocessing outside the model's configuration; its default is OpenAI's
CLIP_OPTIONS = {"force_preprocess_cfg": {"mean": MEAN, "std": STD}}


def register_clip_config() -> None:
    """Register the mini model with its text tower in open_clip; calling it again changes nothing."""
    if CLIP_NAME not in open_clip.list_models():
        open_clip.add_model_config(Path(__file__).parent / "open_clip_configs")


def build_tokenizer() -> Tokenizer:
    """Build the captions' tokenizer: one token per word, padded to the context length.

    open_clip's text tower pools at the highest token id, so the end token is the last of the vocabulary.
    """
    words = ["<pad>", "<unknown>", "<start>", *vocabulary(), "<end>"]
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", len(words) - 1)]
    )
    tokenizer.enable_padding(length=CONTEXT_LENGTH, pad_id=0, pad_token="<pad>")
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> Int[Tensor, "n_texts context"]:
    """Return the token ids of texts."""
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])
