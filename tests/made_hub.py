"""A hub on this machine: what huggingface_hub asks when a repository is made and a folder is sent to it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

TOKEN = "made-token"
COMMIT = "1" * 40


class Hub:
    """What was asked, and the files of each repository.

    Attributes
    ----------
    files : dict of repository to dict of name to bytes
    private : dict of repository to bool
    refuses : dict of path's start to (status, message)
        Status 0 closes the connection.
    messages : list of str
        Of the commits.
    tokens : set of str
        Headers that requests had.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.refuses: dict[str, tuple[int, str]] = {}
        self.messages: list[str] = []
        self.tokens: set[str | None] = set()

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        for start, (status, message) in self.refuses.items():
            if path.startswith(start):
                return status, {"error": message, "errors": [{"message": message}]}
        parts = path.partition("?")[0].split("/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.files:
                return 409, {"error": "exists", "url": f"{constants.ENDPOINT}/{name}"}
            self.files[name] = {".gitattributes": b""}
            self.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return 200, {"url": f"{constants.ENDPOINT}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if path == "/api/whoami-v2":
            return 200, {"name": "somebody", "type": "user", "orgs": []}
        name = "/".join(parts[3:5])
        if name not in self.files:
            return 404, {"error": "Repository not found"}
        if "preupload" in parts:
            asked = json.loads(body)["files"]
            # small files travel inside the commit
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            return 200, {"files": modes}
        if "commit" in parts:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.messages.append(line["value"]["summary"])
                else:
                    content = base64.b64decode(line["value"]["content"])
                    self.files[name][line["value"]["path"]] = content
            url = f"{constants.ENDPOINT}/{name}/commit/{COMMIT}"
            return 200, {"commitUrl": url, "commitOid": COMMIT, "success": True}
        if "tree" in parts:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": COMMIT}
                for path, content in self.files[name].items()
            ]
            return 200, entries
        siblings = [{"rfilename": path} for path in self.files[name]]
        return 200, {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}


@contextmanager
def serve_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a hub and let huggingface_hub talk to it, with a token."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(self.read_chunks())
            if self.path != "/api/agent-harnesses":  # which huggingface_hub asks once, for its user agent
                hub.tokens.add(self.headers.get("Authorization"))
            status, content = hub.answer(self.path, body)
            if status == 0:
                self.close_connection = True
                return
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status >= 400:
                self.send_header("X-Error-Message", content["error"])
            self.end_headers()
            self.wfile.write(data)

        def read_chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()

        do_GET = do_POST = do_HEAD = reply

        def log_message(self, *arguments: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        try:
            yield hub
        finally:
            server.shutdown()


def cache_weights(cache: Path, repository: str, state: dict[str, Tensor]) -> None:
    """Lay out weights as huggingface_hub keeps a download."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    save_file(state, snapshot / "model.safetensors")
