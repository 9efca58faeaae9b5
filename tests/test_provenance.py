from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from made_study import make_brain

from harness.backbones.backbone import encoder_hash
from harness.backbones.timm_backbone import load_timm
from harness.brains.brain import Brain
from harness.config.brain import SimulatedConfig
from harness.runs import (
    provenance,
    subjects,
)
from harness.runs.inputs import Inputs
from harness.runs.provenance import (
    PACKAGES,
    code_version,
    describe_run,
)
from harness.runs.subjects import (
    Brains,
    list_subjects,
)
from tasks.load import load_task


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Inputs, Brain]:
    """Make small inputs, and return them with their brain."""
    brain = replace(make_brain(), fingerprints={"a.npy": "12"})
    monkeypatch.setattr(subjects, "load_brain", lambda config: brain)
    task, probe = (load_task(name, 2, 2) for name in ("shapes", "counts"))
    brains = Brains(list_subjects(SimulatedConfig(), folder))
    return Inputs((task,), (probe,), load_timm("palimpsest_mini", None, 0), brains), brain


def test_a_run_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, brain = make_inputs(tmp_path, monkeypatch)
    found = json.loads(json.dumps(describe_run(inputs)))
    expected = {
        "code_version",
        "commit",
        "packages",
        "python",
        "fingerprints",
        "parameters",
        "tasks",
        "machine",
    }
    assert found.keys() == expected
    assert found["parameters"] == sum(weight.numel() for weight in inputs.backbone.encoder.parameters())
    assert found["fingerprints"] == {
        "task": inputs.tasks[0].fingerprint,
        "pretrained_encoder": encoder_hash(inputs.backbone),
        "brain": brain.fingerprint,
        "brain_description": inputs.brains.fingerprint()["brain_description"],
        "brain_files": {"a.npy": "12"},
    }
    assert found["tasks"].keys() == {"shapes", "counts"}
    assert set(found["packages"]) == set(PACKAGES)
    assert "not installed" not in found["packages"].values()
    assert found["machine"]["threads"] >= 1


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_version() == commit[:12] and provenance.commit() == commit
    (tmp_path / "file").write_text("two")
    assert code_version() == f"{commit[:12]}-dirty"


def test_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version().startswith("palimpsest ")


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_version().startswith("palimpsest ")


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
    packages = describe_run(make_inputs(tmp_path, monkeypatch)[0])["packages"]
    assert packages["no-such-package"] == "not installed" != packages["numpy"]
