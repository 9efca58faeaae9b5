from __future__ import annotations

import open_clip
import timm
import torch

from harness.backbones.mini import (
    MEAN,
    MODEL_NAME,
    STD,
)
from harness.backbones.mini_clip import (
    CONTEXT_LENGTH,
    build_tokenizer,
    register_clip_config,
    tokenize,
)
from harness.backbones.timm_backbone import load_timm
from tasks.shapes import (
    sample_scenes,
    vocabulary,
)


def test_the_tokenizer_knows_every_word_of_the_world() -> None:
    tokenizer = build_tokenizer()
    captions = [scene.caption for scene in sample_scenes(0, range(200))]
    ids = tokenize(tokenizer, captions)
    assert ids.shape == (200, CONTEXT_LENGTH)
    assert not (ids == 1).any()  # <unknown>
    said = [text.replace(" <pad>", "") for text in tokenizer.decode_batch(ids.tolist())]
    assert said == [f"<start> {caption} <end>" for caption in captions]


def test_texts_start_end_and_are_padded() -> None:
    tokenizer = build_tokenizer()
    words = vocabulary()
    (ids,) = tokenize(tokenizer, ["a red circle"]).tolist()
    expected = [2, *(3 + words.index(word) for word in ("a", "red", "circle")), len(words) + 3]
    assert ids == expected + [0] * (CONTEXT_LENGTH - len(expected))
    assert tokenize(tokenizer, ["a zebra"])[0, 2] == 1


def test_the_end_of_text_is_where_the_text_tower_pools() -> None:
    # the highest id occurs exactly once, even if the text is cut off
    tokenizer = build_tokenizer()
    ids = tokenize(tokenizer, ["a circle", "a red " * 30, ""])
    assert (ids == tokenizer.get_vocab_size() - 1).sum(dim=1).tolist() == [1, 1, 1]
    assert ids.max() == tokenizer.get_vocab_size() - 1
    assert ids.argmax(dim=1).tolist() == [3, CONTEXT_LENGTH - 1, 1]


def test_the_text_tower_fits_the_tokenizer() -> None:
    register_clip_config()
    register_clip_config()
    settings = open_clip.get_model_config(f"{MODEL_NAME}_clip")
    assert settings["text_cfg"]["vocab_size"] >= build_tokenizer().get_vocab_size()
    assert settings["text_cfg"]["context_length"] == CONTEXT_LENGTH


def test_the_network_is_small_and_has_no_batch_statistics() -> None:
    network = timm.create_model(MODEL_NAME, num_classes=5)
    assert 1e6 < sum(parameter.numel() for parameter in network.parameters()) < 3e6
    assert list(network.buffers()) == []
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    # no image affects another's output, even in training mode
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network.train()
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)


def test_timm_knows_its_preprocessing() -> None:
    preprocessing = load_timm(MODEL_NAME, None, 0).preprocessing
    assert (preprocessing.size, preprocessing.mean, preprocessing.std) == (64, MEAN, STD)
