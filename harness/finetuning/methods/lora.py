"""LoRA (Hu et al. 2022) with peft, for timm's and open_clip's encoders."""

from __future__ import annotations

import re

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from torch import nn

from harness.backbones import Backbone
from harness.config import LoraConfig
from harness.finetuning.methods.attention_adapter import AttentionAdapter
from harness.finetuning.methods.opening import (
    Added,
    Opening,
)
from harness.storage import InputError

# attention and MLP of timm's and open_clip's blocks; open_clip's attention modules are targets as a whole
LORA_TARGETS = r".*blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])|.*resblocks\.\d+\.(attn|mlp\.c_fc|mlp\.c_proj)"


def add_adapters(backbone: Backbone, method: LoraConfig, seed: int) -> PeftModel:
    """Put adapters into a backbone's encoder; an `InputError` if `method.targets` matches no module."""
    settings = PeftLoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # any number works
        lora_dropout=method.dropout,
        target_modules=method.targets or LORA_TARGETS,
    )
    settings._register_custom_module({nn.MultiheadAttention: AttentionAdapter})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(backbone.encoder, settings)
        except (ValueError, re.error) as error:
            raise InputError(f"method.targets: {' '.join(str(error).split())[:200]}") from None
    encoder = adapted.base_model.model
    assert isinstance(encoder, nn.Module)
    backbone.encoder = encoder
    return adapted


def open_adapters(opening: Opening) -> Added:
    """Put trainable adapters into the encoder, whose own weights stay fixed."""
    assert isinstance(opening.method, LoraConfig)
    return Added(adapted=add_adapters(opening.backbone, opening.method, opening.seed))
