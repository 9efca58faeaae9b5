"""The mini architecture: one small ViT, registered with timm and, with a text tower, with open_clip.

Both mini backbones and the untrained control are this network; they differ in objective alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Int
from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.norm import GroupNorm1
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from tasks.shapes import IMAGE_SIZE, vocabulary

MODEL_NAME = "palimpsest_mini"
CONTEXT_LENGTH = 20
# half grey, half range: the world's own statistics are near these
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
# open_clip keeps the preprocessing outside the model's configuration, and would take OpenAI's
CLIP_OPTIONS = {"force_preprocess_cfg": {"mean": MEAN, "std": STD}}


@register_model
def palimpsest_mini(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT of 8 blocks, width 128, patch 8 on 64×64, with a convolutional stem (Xiao et al. 2021).

    The stem has no batch statistics, so that a frozen backbone stays bit for bit the same in training
    mode and data-parallel runs agree with single ones.
    """
    if pretrained:
        raise RuntimeError(f"{MODEL_NAME} has no hub weights; give weights= a local safetensors file")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(name, None)
    stem = ConvStem(channels=(32, 64, 128), norm_layer=GroupNorm1, act_layer=nn.GELU)
    model: Any = VisionTransformer(
        img_size=IMAGE_SIZE,
        embed_layer=partial(HybridEmbed, backbone=stem, proj=False),
        patch_size=1,
        embed_dim=128,
        depth=8,
        num_heads=4,
        **kwargs,
    )
    model.default_cfg = model.pretrained_cfg = {
        "architecture": MODEL_NAME,
        "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": model.num_classes,
        "classifier": "head",
    }
    return model


def register_clip_config() -> None:
    """Tell open_clip of the mini model with its text tower; calling it again changes nothing."""
    if f"{MODEL_NAME}_clip" not in open_clip.list_models():
        open_clip.add_model_config(Path(__file__).parent / "open_clip_configs")


def build_tokenizer() -> Tokenizer:
    """Tokenizer of the captions: one token a word, padded to the context length.

    open_clip's text tower pools at the highest token id, so the end of text is the last of the vocabulary.
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
    """Token ids of texts."""
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])
