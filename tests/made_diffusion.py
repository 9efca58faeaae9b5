"""A very small Stable Diffusion model in diffusers' format, named and laid out as on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
# a word is spelt in letters, but for cat, which is merged
VOCABULARY = [
    "<|startoftext|>",
    "<|endoftext|>",
    *LETTERS,
    *(f"{one}</w>" for one in LETTERS),
    "ca",
    "cat</w>",
]
CONTEXT = 8  # tokens of a prompt
TEXT_WIDTH = 16
WIDTHS = (16, 24, 32)
SIZE = 32  # pixels; the image encoder halves it
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_tiny_diffusion(folder: Path, seed: int = 0) -> Path:
    """Write a model with random weights; return its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=SIZE // 2,
            block_out_channels=WIDTHS,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=2,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            norm_num_groups=4,
            latent_channels=4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(VOCABULARY),
                hidden_size=TEXT_WIDTH,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=CONTEXT,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    PNDMScheduler(**schedule, skip_prk_steps=True, steps_offset=1).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    write_tokenizer(folder / "tokenizer")
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write the files of CLIP's tokenizer as on the hub, with a vocabulary of letters."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    special = {"bos_token": VOCABULARY[0], "eos_token": VOCABULARY[1], "unk_token": VOCABULARY[1]}
    special["pad_token"] = VOCABULARY[1]
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special))


def rename_as_published(folder: Path) -> None:
    """Rename the weights as in Stable Diffusion 1.5 on the hub, which is older than today's names."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, name in old.items():
        tensors = {
            key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): tensors[key] for key in tensors
        }
    assert any("query" in key for key in tensors)
    save_file(tensors, file, {"format": "pt"})
    file = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{key.removeprefix('text_model.')}": part for key, part in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
    save_file(tensors, file, {"format": "pt"})
