"""An MLflow server behind a proxy that fails: used by `soak.py`."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# share of requests that fail in this way
SERVER_FAULTS = {
    "closes": 0.5,
    "closes, always": 1.0,
    "hangs": 0.1,
    "hangs, always": 1.0,
    "a byte a second": 0.1,
    "a byte a second, always": 1.0,
    "500": 0.5,
    "500, always": 1.0,
    "loses answers": 0.3,
    "loses answers, always": 1.0,
}


def find_port() -> int:
    """Return a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(database: Path) -> Iterator[int]:
    """Run a real MLflow server on a SQLite store; yields its port."""
    port = find_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--workers", "1"]
    command += ["--artifacts-destination", f"{database}-artifacts"]
    with Path(f"{database}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None, Path(f"{database}.log").read_text("utf-8")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@contextmanager
def failing(fault: str, target: int, seed: int) -> Iterator[int]:
    """Run a proxy in a process of its own that fails as `fault` says; yields its port."""
    port = find_port()
    process = os.fork()
    if process == 0:
        try:
            _serve(port, target, fault.removesuffix(", always"), SERVER_FAULTS[fault], random.Random(seed))
        finally:
            os._exit(1)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)


def _serve(port: int, target: int, fault: str, share: float, draw: random.Random) -> None:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                fails = draw.random() < share
            self.close_connection = True
            if fails and fault in ("closes", "hangs"):
                time.sleep(10_000 if fault == "hangs" else 0)
                return
            if fails and fault == "500":
                self._answer(500, [("Content-Type", "text/html")], b"<html>Internal Server Error</html>", 0)
                return
            connection = http.client.HTTPConnection("127.0.0.1", target, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body, headers | {"Host": f"127.0.0.1:{target}"})
            answer = connection.getresponse()
            content = answer.read()
            if fails and fault == "loses answers":
                return
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() == "content-type"]
            self._answer(answer.status, kept, content, 1.0 if fails else 0.0)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, pause: float) -> None:
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(len(content))), ("Connection", "close")]:
                self.send_header(name, value)
            self.end_headers()
            if not pause:
                self.wfile.write(content)
                return
            for place in range(len(content)):
                self.wfile.write(content[place : place + 1])
                self.wfile.flush()
                time.sleep(pause)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
