"""Runs of a study for tests of launchers: scripts that do what they are told, and a listener."""

from __future__ import annotations

from pathlib import Path

from harness.studies.pool import Job, Listener

# a run that does what its first argument says; what is to happen once happens at its first start
ENTRY = """
import json, os, pathlib, signal, sys, time
what, run = sys.argv[1], pathlib.Path(sys.argv[2])
print("working on", what, flush=True)
print("\\x1e" + json.dumps({"label": "fine-tuning", "n": 1, "total": 4}), flush=True)
run.mkdir(parents=True, exist_ok=True)
first = not (run / "begun").exists()
(run / "begun").write_text(json.dumps(dict(os.environ)))
if what == "bad":
    sys.exit("error: seed: found -1, expected 0 or more")
if what == "dies" and first:
    os.kill(os.getpid(), signal.SIGKILL)
if what == "orphaned" and first:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if what == "preempted" and first:
    sys.exit(143)
if what == "warned" and first:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.kill(os.getppid(), signal.SIGUSR2)
    time.sleep(60)
if what == "hopeless":
    os.kill(os.getpid(), signal.SIGKILL)
while what == "waits" and not (run / "go").exists():
    time.sleep(0.02)
(run / "finished.json").write_text("{}")
"""


def make_jobs(*names: str) -> list[Job]:
    folder = Path("runs/tiny").absolute()
    return [
        Job(f"[{place}/{len(names)}] {name}", [name, str(folder / name)], folder / name)
        for place, name in enumerate(names, 1)
    ]


class Heard(Listener):
    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def began(self, job: Job) -> None:
        self.told.append((job.arguments[0], "began"))

    def heard(self, job: Job, label: str, n: int, total: int | None) -> None:
        self.told.append((job.arguments[0], label))

    def printed(self, job: Job, line: str) -> None:
        self.told.append((job.arguments[0], line))
