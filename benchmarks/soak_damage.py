"""Damaged files of finished runs and of inputs, and what commands make of them: used by `soak.py`."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from soak_process import Ended, dispatching, read_results, run_forked

from harness.config import load_config, to_yaml
from harness.storage import content_hash

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

LIMIT = 120.0  # seconds
TEXT = (".json", ".jsonl", ".yaml", ".csv", ".ctab")
BYTES = ("bit flip", "truncated", "emptied", "deleted", "swapped")
LINES = ("line doubled", "line removed", "NaN for a number", "text for a number", "another number")
NUMBER = re.compile(rb"(?<=[ :,\[\n])-?\d+(\.\d+)?(e-?\d+)?(?=[,\n\]} ])")
RUN_COMMANDS = {
    "report": ["report", "{study}"],
    "query": ["query", "rewiring", "--runs-dir", "{runs}", "--format", "csv"],
    "export": ["export", "{run}", "--format", "csv"],
    "huggingface": ["export", "{run}", "--format", "huggingface"],
    "track": ["track", "{run}"],
    "finetune": ["finetune"],
}


def damage(path: Path, kind: str, draw: random.Random, others: list[Path]) -> bool:
    """Damage a file; returns whether that changed it.

    Parameters
    ----------
    path : Path
    kind : str
    draw : random.Random
    others : list of Path
        Files to swap it with.
    """
    before = path.read_bytes()
    if kind == "deleted":
        path.unlink()
        return True
    after = bytearray(before)
    if kind == "bit flip" and before:
        after[draw.randrange(len(after))] ^= 1 << draw.randrange(8)
    elif kind == "truncated":
        del after[draw.randrange(max(1, len(after))) :]
    elif kind == "emptied":
        after.clear()
    elif kind == "swapped":
        alike = [other for other in others if other != path and other.suffix == path.suffix]
        if alike:
            other = draw.choice(alike)
            after = bytearray(other.read_bytes())
            other.write_bytes(before)
    elif kind.startswith("line"):
        lines = before.splitlines(keepends=True)
        place = draw.randrange(max(1, len(lines)))
        lines[place : place + 1] = lines[place : place + 1] * 2 * (kind == "line doubled")
        after = bytearray(b"".join(lines))
    elif found := list(NUMBER.finditer(before)):
        number = draw.choice(found)
        other = {"NaN for a number": b"NaN", "text for a number": b'"text"'}.get(
            kind, b"7" + number[0].lstrip(b"-")
        )
        after[number.start() : number.end()] = other
    path.write_bytes(after)
    return bytes(after) != before


def judge(
    ended: Ended, names: list[str], find_different: Callable[[], list[str]], usual: Collection[str] = ()
) -> tuple[str, str]:
    """Return the outcome of a command on damaged files, and a detail.

    Parameters
    ----------
    ended : Ended
    names : list of str
        One of these is in a line that says where the damage is.
    find_different : function
        Lists results that differ from those of the whole files.
    usual : collection of str
        Lines that are said without damage, too.
    """
    if ended.status is None:
        return "hang", ended.err[-300:]
    if "Traceback" in ended.err or ended.status not in (0, 2):
        return "traceback", f"{ended.status}: {ended.err[-300:]}"
    if ended.status == 2:
        said = (
            ended.words[-1:]
            if len([word for word in ended.words if not word.startswith("warning")]) == 1
            else []
        )
        known = said and any(name in said[0] for name in names)
        return "one line" if known else "one line, no file", " / ".join(ended.words[-3:])
    different = find_different()
    if not different:
        return "bit-identical", ""
    told = [word for word in ended.words if word not in usual] or re.findall(
        r".*(?:has changed|warning|missing|not used|no contrast).*", ended.out
    )
    return "clean" if told else "silent", f"{'; '.join(told[:1])} {', '.join(different[:4])}"


class DamagedRuns:
    """A finished run, whose files are damaged and then read by commands.

    Parameters
    ----------
    whole : Path
        Its ``runs_dir``, undamaged.
    runs : Path
        The ``runs_dir`` that it was made in, where damaged copies lie.
    settings : list of str
        Of the run.
    """

    def __init__(self, whole: Path, runs: Path, settings: list[str]) -> None:
        self.whole, self.runs, self.output = whole, runs, runs.parent / "output"
        self.commands = {name: list(command) for name, command in RUN_COMMANDS.items()}
        self.commands["finetune"] += [*settings, f"runs_dir={runs}"]
        self.expected: dict[str, dict[str, str]] = {}
        self.usual: set[str] = set()

    def begin(self) -> Path:
        """Restore the whole run; return its folder."""
        shutil.rmtree(self.runs, ignore_errors=True)
        shutil.copytree(self.whole, self.runs)
        (run,) = (self.runs / "default").glob("mini_*")
        return run

    def run_command(self, name: str, run: Path) -> tuple[Ended, dict[str, str]]:
        """Run a command; return how it ended and what it has made."""
        places = {"study": run.parent, "run": run, "runs": self.runs}
        arguments = [
            part.format(**places) if "{" in part and "=" not in part else part for part in self.commands[name]
        ]
        ended = run_forked(dispatching(arguments), self.output, LIMIT)
        made = {"out": ended.out}
        if name == "report" and (page := run.parent / "report.html").exists():
            made["page"] = page.read_text("utf-8")
        if name in ("export", "huggingface"):
            files = [path for path in (run / "exports").rglob("*") if path.is_file()]
            made |= {path.name: content_hash(path.read_bytes()) for path in files}
        if ended.status == 0 and name in ("track", "finetune"):
            made |= read_results(run)
        return ended, made

    def find_expected(self) -> None:
        """Run every command on the whole run."""
        for name in self.commands:
            ended, self.expected[name] = self.run_command(name, self.begin())
            assert ended.status == 0, f"{name}: {ended.err}"
            self.usual |= set(ended.words)

    def damage_one(self, draw: random.Random, n_commands: int) -> list[tuple[str, str, str]]:
        """Damage a file, run some of the commands; return the kind, outcome and detail of each."""
        run = self.begin()
        files = [
            path
            for path in sorted(run.rglob("*"))
            if path.is_file() and path.name not in (".lock", "sent.json")
        ]
        path = draw.choice([*files, *[file for file in files if file.suffix in TEXT], run / "results.jsonl"])
        kind = draw.choice((*BYTES, *LINES) if path.suffix in TEXT else BYTES)
        if path.suffix == ".yaml" and draw.random() < 0.5:
            kind = "another number"
        if not damage(path, kind, draw, files):
            return []
        place, found = path.relative_to(run).as_posix(), []
        damaged = self.runs.with_name("damaged")
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(self.runs, damaged)
        for name in draw.sample(sorted(self.commands), n_commands):
            shutil.rmtree(self.runs)
            shutil.copytree(damaged, self.runs)
            ended, made = self.run_command(name, run)
            own = {place, f"left over {place}"}
            if kind == "swapped":  # also the other file
                own |= {key for key in made if key.endswith(path.suffix)}

            def find_different(
                name: str = name, made: dict[str, str] = made, own: set[str] = own
            ) -> list[str]:
                before = self.expected[name]
                return [
                    key
                    for key in before.keys() | made.keys()
                    if before.get(key) != made.get(key) and key not in own
                ]

            names = [path.name, f"/{path.parent.name}:", str(run)]
            outcome, detail = judge(ended, names, find_different, self.usual)
            found.append((f"run file: {kind}", outcome, f"{name}, {place}: {detail}"))
        shutil.rmtree(damaged)
        return found


@dataclass(frozen=True)
class Source:
    """A kind of input: how it is written, and read; reading returns its fingerprint and its content."""

    write: Callable[[Path], object]
    read: Callable[[Path], tuple[str, str]]


def _read_task(**settings: Any) -> tuple[str, str]:
    from tasks import load_task

    task = load_task(**settings)
    rows = [[np.asarray(row["image"]), row["label"]] for split in (task.train, task.test) for row in split]
    return task.fingerprint, content_hash(rows, list(task.class_names))


def _read_brain(*overrides: str) -> tuple[str, str]:
    from harness.brains import load_brain
    from harness.runs import Brains, list_subjects

    config = load_config(list(overrides)).brain
    brain = load_brain(config)
    prints = Brains(list_subjects(config, Path("none"))).fingerprint()
    prints.pop("brain_files")  # is not compared
    content: list[Any] = [np.asarray(image) for image in brain.stimuli]
    content += [brain.responses, brain.coords, brain.stimulus_ids, brain.hemisphere]
    content += [[roi.name, roi.rank, roi.voxels] for roi in brain.rois]
    content += [
        part
        for part in (brain.noise_ceiling, brain.n_repeats, brain.session, brain.shared)
        if part is not None
    ]
    return content_hash(prints), content_hash(
        [repr(part) if isinstance(part, float) else part for part in content]
    )


def _read_weights(path: Path) -> tuple[str, str]:
    from harness.backbones import encoder_hash, load_backbone

    backbone = load_backbone(
        load_config(["backbone=mini_supervised", f"backbone.checkpoint={path}"]).backbone
    )
    return encoder_hash(backbone), content_hash(dict(backbone.encoder.state_dict()))


def _read_yaml(folder: Path) -> tuple[str, str]:
    os.environ["PALIMPSEST_CONFIGS"] = str(folder)
    text = to_yaml(load_config(["task=own", "brain=own"]))
    return text, text


def _write_images(folder: Path) -> None:
    from made_images import write_folders

    for place, split in enumerate(("train", "test")):
        write_folders(folder / split, {"a": 3, "b": 3}, 1000 * place)


def _write_table(folder: Path) -> None:
    from made_images import write_findings

    write_findings(folder, 16)


def _write_arrays(folder: Path) -> None:
    from made_recordings import make_arrays, write_arrays

    write_arrays(folder, make_arrays(), 8)


def _write_nsd(folder: Path) -> None:
    from made_nsd import write_nsd

    write_nsd(folder, hdf5=(2,))


def _copy_weights(folder: Path) -> None:
    import harness.backbones

    folder.mkdir(parents=True)
    weights = Path(harness.backbones.__path__[0]) / "weights/mini_supervised.safetensors"
    shutil.copyfile(weights, folder / "mini.safetensors")


def _write_pickled(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    _copy_weights(folder)
    state = load_file(folder / "mini.safetensors")
    (folder / "mini.safetensors").unlink()
    torch.save({"state_dict": state, "epoch": 3}, folder / "mini.pth")


def _write_yaml(folder: Path) -> None:
    for group, text in {
        "task": "# mine\nsource: imagefolder\nname: birds\nroot: /data/birds\nn_train: 100\nseed: 3\n",
        "brain": "defaults:\n- simulated\n- _self_\nn_voxels: 500\nn_stimuli: 300\n",
    }.items():
        (folder / group).mkdir(parents=True)
        (folder / group / "own.yaml").write_text(text, encoding="utf-8")


SOURCES = {
    "images of a task": Source(
        _write_images, lambda folder: _read_task(name="t", source="imagefolder", root=str(folder))
    ),
    "table of a task": Source(
        _write_table,
        lambda folder: _read_task(
            name="t",
            source="table",
            table=str(folder / "table.csv"),
            image_column="file",
            label_column="findings",
            multi_label=True,
            separator="|",
            no_label="No Finding",
        ),
    ),
    "arrays of a brain": Source(
        _write_arrays, lambda folder: _read_brain("brain=arrays", f"brain.root={folder}")
    ),
    "NSD: NIfTI, HDF5, MAT": Source(
        _write_nsd,
        lambda folder: _read_brain("brain=nsd", f"brain.root={folder}", "brain.preparation=func1pt8mm"),
    ),
    "safetensors": Source(_copy_weights, lambda folder: _read_weights(folder / "mini.safetensors")),
    "pth": Source(_write_pickled, lambda folder: _read_weights(folder / "mini.pth")),
    "YAML": Source(_write_yaml, _read_yaml),
}
# a line may name the setting instead of the file
SETTINGS = ("task.", "brain.", "task/own", "'own'")


class DamagedInputs:
    """Inputs of every kind, damaged and then read.

    Parameters
    ----------
    work : Path
        For whole inputs and damaged copies.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.expected = {name: self._read(name, self._whole(name)) for name in SOURCES}
        for name, (ended, _) in self.expected.items():
            assert ended.status == 0, f"{name}: {ended.err}"

    def _whole(self, name: str) -> Path:
        folder = self.work / "whole" / name.split(":")[0].replace(" ", "-")
        if not folder.exists():
            SOURCES[name].write(folder)
        return folder

    def _read(self, name: str, folder: Path) -> tuple[Ended, list[str]]:
        found = self.work / "found.json"
        found.unlink(missing_ok=True)

        def work() -> None:
            found.write_text(json.dumps(SOURCES[name].read(folder)), encoding="utf-8")

        ended = run_forked(work, self.work / "output", LIMIT)
        return ended, json.loads(found.read_text("utf-8")) if found.exists() else []

    def damage_one(self, draw: random.Random) -> list[tuple[str, str, str]]:
        """Damage a file of an input and read the input; return the kind, outcome and detail."""
        name = draw.choice(sorted(SOURCES))
        copy = self.work / "input"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._whole(name), copy)
        files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
        path = draw.choice(files)
        kind = draw.choice((*BYTES, *LINES) if path.suffix in TEXT else BYTES)
        if not damage(path, kind, draw, files):
            return []
        ended, found = self._read(name, copy)
        whole = self.expected[name][1]
        # a run that has begun compares fingerprints, so another content with another fingerprint is told
        if ended.status == 0 and found[0] != whole[0]:
            outcome, detail = "clean", " / ".join(ended.words[:2])
        else:
            outcome, detail = judge(
                ended, [path.name, f"{path.parent}", *SETTINGS], lambda: ["content"] * (found[1] != whole[1])
            )
        return [(f"input: {name}", outcome, f"{kind}, {path.relative_to(copy)}: {detail}")]
