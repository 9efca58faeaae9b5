"""What a run's folder says of itself, checked against the folder and against what is there now."""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config import (
    Config,
    read_config,
    to_yaml,
)
from harness.runs.journal import (
    Row,
    read_rows,
)
from harness.runs.layout import (
    list_snapshots,
    probes_file,
)
from harness.storage import (
    InputError,
    read_json,
    read_record,
    write_atomically,
    write_json,
    write_record,
)

log = logging.getLogger(__name__)

WAYS_OUT = "restore it, or delete the run's folder and start anew"


def write_probes(run: Path, step: int, content: Mapping[str, Any]) -> None:
    """Write a snapshot's probes file."""
    path = probes_file(run, step)
    write_record(path, content, path.stem)


def read_probes(run: Path, step: int) -> dict[str, Any]:
    """Read a snapshot's probes file; an `InputError` names one that is missing, damaged or exchanged."""
    path = probes_file(run, step)
    content = read_record(path, path.stem)
    # files of earlier versions have no seal, and neither has what they may be exchanged with
    if "probe" not in content or not {"task", "heads"} & content.keys():
        raise InputError(f"{path}: found no probes of a snapshot, expected probe, and task or heads")
    return content


def begin_record(config: Config, run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write a run's configuration and manifest, or check that it resumes with the same inputs.

    The manifest of a run that resumes stays as it was. Other versions of the code or of packages are added
    under ``resumed``.

    Parameters
    ----------
    config : Config
    run : Path
        The run's folder.
    manifest : mapping
        What `describe_run` says now.

    Returns
    -------
    dict
        The manifest as written.

    Raises
    ------
    InputError
        If a task, probe, backbone, brain or function differs from the one that the run began with.
    """
    path, text = run / "manifest.json", to_yaml(config)
    versions = {name: manifest[name] for name in ("code_version", "packages") if name in manifest}
    own = {"run": run.resolve().name, "config_sha256": hashlib.sha256(text.encode()).hexdigest()}
    whole: dict[str, Any] = {**manifest, **own}
    if path.exists():
        before = read_run_manifest(run)
        _compare(run, before, manifest)
        began = [{name: before.get(name) for name in versions}, *before.get("resumed", [])]
        later = [] if versions in began else [versions]
        # what earlier versions did not record is added
        whole = {**whole, **before, **own, "resumed": [*before.get("resumed", []), *later]}
        if not whole["resumed"]:
            del whole["resumed"]
    settings = run / "config.yaml"
    if not settings.exists() or settings.read_text(encoding="utf-8") != text:
        with write_atomically(settings) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if read_run_manifest(run) != whole:
        write_json(path, whole)
    return whole


def finish_record(run: Path, steps: Sequence[int] | None = None) -> None:
    """Write ``finished.json``: the snapshots' steps, by default those on disk, and the number of rows.

    Warns if there are fewer rows than when the run finished before: those that were logged while fine-tuning
    cannot be derived again.
    """
    path = run / "results.jsonl"
    rows, _ = read_rows(path)
    found = list_snapshots(run) if steps is None else list(steps)
    if len(rows) < (before := _count_finished(run)):
        log.warning(
            "warning: %s: found %d rows, %d when the run finished; what is missing was logged while "
            "fine-tuning (train/…, gradients, stability) or by other commands, and is not derived again",
            path,
            len(rows),
            before,
        )
    write_record(run / "finished.json", {"steps": found, "rows": len(rows)}, run.resolve().name)


def read_finished_rows(run: Path) -> list[Row]:
    """Read the journal of a finished run, none of whose rows may be missing.

    Raises
    ------
    InputError
        If a file is missing or broken, or there are fewer rows than when the run finished.
    """
    path = run / "results.jsonl"
    rows, _ = read_rows(path)
    expected = _count_finished(run)
    if len(rows) < expected:
        raise InputError(
            f"{path}: found {len(rows)} rows, expected at least the {expected} of the finished run; "
            f"palimpsest track {shlex.quote(str(run))} derives them again"
        )
    return rows


def read_values(run: Path, step: int) -> dict[str, float]:
    """Values of a run's rows at one step, by name; empty for an unfinished run without rows.

    Errors as for `read_finished_rows`.
    """
    if not (run / "finished.json").exists() and not (run / "results.jsonl").exists():
        return {}
    return {row["name"]: row["value"] for row in read_finished_rows(run) if row["step"] == step}


def _count_finished(run: Path) -> int:
    """Number of rows when a run finished; 0 if it did not."""
    finished = run / "finished.json"
    if not finished.exists():
        return 0
    content = read_record(finished, run.resolve().name)
    found = content.get("rows", 0)
    if type(found) is not int or "steps" not in content:
        raise InputError(f"{finished}: found rows {found!r}, expected a number, and steps")
    return found


def check_inputs(run: Path, manifest: Mapping[str, Any]) -> None:
    """Check that what `describe_run` says now is what a run began with; errors as for `begin_record`."""
    _compare(run, read_run_manifest(run), manifest)


def read_run_config(run: Path) -> Config:
    """Read the configuration of a run, and check it against the run's manifest.

    Raises
    ------
    InputError
        If it is missing or broken, was edited, or belongs to another run.
    """
    path = run / "config.yaml"
    config = read_config(path)
    expected = read_run_manifest(run).get("config_sha256")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected is not None and found != expected:
        raise InputError(
            f"{path}: differs from the settings that the run began with (hash {found[:8]}, expected "
            f"{str(expected)[:8]}); restore it, or start a run with the new settings"
        )
    return config


def read_run_manifest(run: Path) -> dict[str, Any]:
    """Read the manifest of a run; empty if the run has none yet.

    Raises
    ------
    InputError
        If it is broken, another kind of file, or another run's.
    """
    path = run / "manifest.json"
    if not path.exists():
        return {}
    manifest = read_json(path)
    kinds = {"code_version": str, "python": str, "packages": dict, "fingerprints": dict}
    if (
        not isinstance(manifest, dict)
        or "code_version" not in manifest
        or not all(isinstance(manifest[name], kind) for name, kind in kinds.items() if name in manifest)
    ):
        raise InputError(f"{path}: found no manifest as a run writes it, expected one with code_version")
    name = manifest.get("run")
    if name is not None and name != run.resolve().name:
        raise InputError(f"{run}: found the files of run {name}, expected those of {run.resolve().name}")
    return manifest


def _compare(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = dict(_list_inputs(before)), dict(_list_inputs(now))
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            raise InputError(
                f"{run}: {name} has changed since the run began (fingerprint {new[name][:8]}, was "
                f"{old[name][:8]}): {WAYS_OUT}"
            )


def _list_inputs(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and fingerprint of every input."""
    names = {
        "pretrained_encoder": "the backbone",
        "brain": "the brain",
        "brain_description": "the brain's regions, hemispheres, noise ceiling, repeats or sessions",
    }
    for name, value in manifest.get("fingerprints", {}).items():
        # files of a brain may be stored in another way; its content counts
        if name == "brain_files" or name.split()[0] == "task":
            continue
        parts = value if isinstance(value, dict) else {"": value}
        for part, fingerprint in parts.items():
            yield f"{names.get(name, name)} {part}".rstrip(), str(fingerprint)
    for name, task in manifest.get("tasks", {}).items():
        if isinstance(task, dict) and "fingerprint" in task:
            yield f"task {name}", str(task["fingerprint"])
            for shift, fingerprint in task.get("shifts", {}).items():
                yield f"shift {shift} of task {name}", str(fingerprint)
