"""The hub: online, offline, and from the cache."""

from __future__ import annotations

import socket
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import open_clip
import pytest
import timm
import torch
from huggingface_hub import constants, is_offline_mode
from made_backbones import add_tiny_clip, configuration
from safetensors.torch import save_file

from harness.backbones.clip_backbone import load_clip
from harness.backbones.load import load_backbone
from harness.backbones.timm_backbone import load_timm
from harness.storage import hub
from harness.storage.errors import InputError
from harness.storage.hub import (
    answers,
    explain_hub_errors,
    hub_answers,
)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("library", "model", "weights"), [("timm", "test_vit", "r160_in1k"), ("open_clip", "ViT-B-32", "openai")]
)
def test_offline_and_not_in_the_cache(empty_cache: Path, library: str, model: str, weights: str) -> None:
    assert not hub_answers()  # conftest.py says so
    with pytest.raises(InputError, match=f"{model}.*does not answer and the cache .* has no copy") as error:
        load_backbone(configuration(library, model, weights))
    assert str(empty_cache) in str(error.value) and "\n" not in str(error.value)


def test_a_hub_that_does_not_answer_is_found_out_at_once(empty_cache: Path, closed_port: None) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match="does not answer"):
        load_timm("test_vit", "r160_in1k", 0)
    assert time.perf_counter() - start < 20  # 48 s without the probe, on an idle machine
    assert constants.HF_HUB_OFFLINE is False  # as before


def test_a_hub_that_answers_is_seen(closed_port: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert not hub_answers()
        with monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", f"http://{address}")
            assert hub_answers()
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert not hub_answers()
        # behind a proxy the hub itself need not be reachable
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
        for proxy in (f"http://{address}", address):
            monkeypatch.setenv("http_proxy", proxy)
            assert hub_answers()


@pytest.mark.parametrize("answers", [True, False])
def test_requests_are_held_back_only_while_a_silent_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("harness.storage.hub.hub_answers", lambda: answers)
    with explain_hub_errors("model"):
        assert is_offline_mode() is not answers  # what huggingface_hub checks before every request
    assert not is_offline_mode()


def test_errors_are_not_blamed_on_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.storage.hub.hub_answers", lambda: True)
    with pytest.raises(KeyError), explain_hub_errors("model"):
        raise KeyError("a bug")


def test_weights_in_the_cache_need_no_hub(empty_cache: Path) -> None:
    folder = empty_cache / "models--timm--test_vit.r160_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    trained = timm.create_model("test_vit")
    save_file(trained.state_dict(), snapshot / "model.safetensors")
    before = torch.get_rng_state()
    loaded = load_timm("test_vit", "r160_in1k", 0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(loaded.encoder.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)
    assert loaded.encoder(torch.zeros(1, 3, 160, 160)).shape == (1, 64)  # no classifier


def test_openais_weights_get_the_gelu_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(
        model: str, pretrained: str, force_quick_gelu: bool = False, force_preprocess_cfg: object = None
    ) -> None:
        asked.append((pretrained, force_quick_gelu))
        raise InputError("far enough")

    monkeypatch.setattr(open_clip, "create_model", create)
    monkeypatch.setattr("harness.storage.hub.hub_answers", lambda: True)
    for tag in ("openai", "laion2b_s34b_b79k"):
        with pytest.raises(InputError, match="far enough"):
            load_clip("ViT-B-32", tag, 0)
    assert asked == [("openai", True), ("laion2b_s34b_b79k", False)]


@pytest.mark.parametrize(
    ("library", "model", "weights"), [("timm", "test_vit", "r160_in1k"), ("open_clip", "ViT-B-32", "openai")]
)
def test_a_hub_that_refuses_is_quoted(
    empty_cache: Path,
    closed_port: None,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    model: str,
    weights: str,
) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(InputError, match=f"{model}.*answers .*404.*local safetensors file") as error:
            load_backbone(configuration(library, model, weights))
        server.shutdown()
    assert "\n" not in str(error.value)


def test_a_name_that_is_looked_up_for_ever(closed_port: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # the system's name look-up has no timeout
    done = threading.Event()

    def look_up(*arguments: object, **options: object) -> list[object]:
        done.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.05)
    assert not answers("http://hub.invalid")
    assert not done.is_set()
    done.set()


def test_weights_that_are_not_at_the_hub(
    closed_port: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # weights at an address of their own, as a few of timm's: unreachable, cached, refused
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    model, tag = "legacy_seresnet18", "in1k"
    with monkeypatch.context() as patch:
        patch.setattr(hub, "answers", lambda url: False)
        with pytest.raises(
            InputError, match=r"legacy_seresnet18.in1k: github.com does not answer.*checkpoint=P"
        ):
            load_timm(model, tag, 0)
    asked = []

    def refuse(url: str, *arguments: object, **options: object) -> None:
        asked.append(url)
        raise HTTPError(url, 404, "Not Found", Message(), None)

    with monkeypatch.context() as patch:
        patch.setattr(hub, "answers", lambda url: True)
        patch.setattr(torch.hub, "download_url_to_file", refuse)
        with pytest.raises(InputError, match=r"github.com answers 'HTTP Error 404: Not Found'"):
            load_timm(model, tag, 0)
    trained = timm.create_model(model)
    cached = tmp_path / "hub" / "checkpoints" / Path(asked[0]).name
    cached.parent.mkdir(parents=True, exist_ok=True)
    torch.save(trained.state_dict(), cached)
    monkeypatch.setattr(hub, "answers", lambda url: False)
    loaded = load_timm(model, tag, 0)
    assert torch.equal(loaded.encoder.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)


def test_a_tokenizer_that_is_only_at_the_hub(empty_cache: Path, tmp_path: Path) -> None:
    vision = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 64, "head_width": 32}
    name = add_tiny_clip(tmp_path, "palimpsest_hub_tokenizer", vision, tokenizer="timm/ViT-B-16-SigLIP")
    with pytest.raises(InputError, match=f"tokenizer of {name}: the hub .*backbone.text=false") as error:
        load_clip(name, None, 0)
    assert "\n" not in str(error.value)
    assert load_clip(name, None, 0, text=False).text is None
