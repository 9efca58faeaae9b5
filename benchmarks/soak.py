"""What a run, its files and its inputs survive: kill storms, a broken MLflow server, damaged files.

    python benchmarks/soak.py --work FOLDER --output benchmarks/results/soak

Tiny runs are killed at random moments, at changes of files and at SQL statements, and resumed; they talk to
an MLflow server behind a proxy that closes, hangs, trickles, fails and loses answers; files of finished runs
and inputs are damaged, and read by the commands that read them. Every fault has one outcome:

- bit-identical: the results are those of an undisturbed run;
- one line: the command ends in one line that names the file or setting;
- clean: it ends with results and a word about the fault (or, for an input, with another fingerprint);
- one line, no file: as above, but the line does not say where; traceback; silent: other results without a
  word; hang. None of these may happen.

All is drawn from the seed. Finished faults stand in FOLDER/faults.jsonl: a rerun goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import zlib
from pathlib import Path
from typing import Any

from machine import describe_machine, write_figures
from soak_damage import DamagedInputs, DamagedRuns, judge
from soak_process import (
    Ended,
    KillAt,
    compare,
    dispatching,
    import_everything,
    read_results,
    read_store,
    run_forked,
)
from soak_server import SERVER_FAULTS, failing, serving
from tiny_study import SMALL

from harness.tracking.store.connection import connect

SHORT = [
    *SMALL,
    "finetune.max_steps=3",
    "finetune.epochs=1",
    "finetune.batch_size=4",
    "snapshots.ratio=4",
    "snapshots.resume_every=1",
    "brain.n_stimuli=20",
]
OUTCOMES = ("bit-identical", "one line", "clean", "one line, no file", "traceback", "silent", "hang")
ALLOWED = OUTCOMES[:3]
LIMIT = 240.0  # seconds
SERVER_LIMIT = 480.0  # seconds; the end of a run waits for its store, but not forever
KILLS_PER_STORM = 5
Fault = dict[str, Any]


class Soak:
    """The folder of a soak: an undisturbed run to compare with, and the faults so far.

    Parameters
    ----------
    work : Path
    seed : int
    """

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work.resolve(), seed
        self.work.mkdir(parents=True, exist_ok=True)
        self.record = self.work / "faults.jsonl"
        lines = self.record.read_text("utf-8").splitlines() if self.record.exists() else []
        self.faults: list[Fault] = [json.loads(line) for line in lines]
        self._done = {fault["name"] for fault in self.faults}
        self.cache, self.runs = self.work / "cache", self.work / "runs"
        for name, value in {
            "PALIMPSEST_CACHE": str(self.cache),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "Agg",
        }.items():
            os.environ[name] = value
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        import_everything()

    def add(self, name: str, kind: str, outcome: str, detail: str = "", n: int = 1) -> None:
        """Keep the outcome of a fault."""
        fault = {"name": name, "kind": kind, "outcome": outcome, "detail": detail[:500], "n": n}
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fault) + "\n")
        self.faults.append(fault)
        self._done.add(name)
        if outcome not in ALLOWED:
            print(f"{name}: {outcome}: {detail[:300]}", flush=True)

    def is_done(self, name: str) -> bool:
        """Whether an earlier call has tried this fault."""
        return name in self._done

    def draw(self, name: str) -> random.Random:
        """Return the randomness of a fault."""
        return random.Random(zlib.crc32(f"{self.seed} {name}".encode()))

    def finetune(self, **options: Any) -> Ended:
        """Run the tiny run, or resume it."""
        work = dispatching(["finetune", *SHORT, f"runs_dir={self.runs}"])
        return run_forked(work, self.work / "output", options.pop("limit", LIMIT), **options)

    def expect(self) -> dict[str, Any]:
        """Run without disturbance; return its results, seconds, changes of files and SQL statements."""
        known = self.work / "expected.json"
        if not known.exists():
            found: dict[str, Any] = {}
            for kind in ("warm", "files", "sql"):  # the first makes the brain
                self.begin()
                ended = self.finetune(trigger=KillAt(kind, None, self.work))
                assert ended.status == 0, ended.err
                found |= {kind: int((self.work / "output/counts").read_text()), "seconds": ended.seconds}
            shutil.copytree(self.runs, self.work / "undisturbed", dirs_exist_ok=True)
            connect(f"sqlite:///{self.work}/empty.db")
            found |= {"results": self.read(), "words": ended.words}
            known.write_text(json.dumps(found), encoding="utf-8")
        return json.loads(known.read_text("utf-8"))

    def begin(self) -> None:
        """Forget the run and what runs share, but keep the brain."""
        for path in [self.runs, *self.cache.glob("*")]:
            if path.name != "brains":
                shutil.rmtree(path, ignore_errors=True)

    def read(self) -> dict[str, str]:
        """Return everything that a finished run has left: files, rows, and MLflow's rows."""
        folders = (self.runs, self.runs / "default", self.runs / ".trained", *self.cache.glob("*"))
        names = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]
        left = {f"left over {name}": "" for name in names if ".partial" in name or ".broken" in name}
        return read_results(self.find_run()) | read_store(self.runs / "mlflow.db") | left

    def find_run(self) -> Path:
        """Return the folder of the tiny run."""
        (run,) = (self.runs / "default").glob("mini_*")
        return run


KILLS = {
    "random moment": (signal.SIGKILL, ""),
    "files": (signal.SIGKILL, ""),
    "sql": (signal.SIGKILL, ""),
    "SIGTERM": (signal.SIGTERM, "terminated"),
    "SIGINT": (signal.SIGINT, "interrupted"),
}
KIND = {kind: kind if kind.startswith("SIG") else f"kill -9: {kind}" for kind in KILLS}


def storm(soak: Soak, kind: str, number: int, n_kills: int) -> None:
    """Kill one run up to `n_kills` times, then let it end and compare it."""
    name = f"{kind} {number}"
    if soak.is_done(name):
        return
    expected, draw, killed = soak.expect(), soak.draw(name), 0
    soak.begin()
    number_sent, word = KILLS[kind]
    for place in range(n_kills):
        options: dict[str, Any] = {}
        # half of them early, where files and the store are made
        share = draw.random() if draw.random() < 0.5 else 10 ** (-3 * draw.random())
        if kind in ("files", "sql"):
            options["trigger"] = KillAt(kind, max(1, round(share * expected[kind] / (1 + place))), soak.work)
        else:
            # at once a fork has no handler of signals yet
            options["at"] = 0.5 + share * expected["seconds"] / (1 + place / 2)
            options["with_signal"] = number_sent
        ended = soak.finetune(**options)
        if ended.status == 0:
            break  # it was faster
        killed += 1
        wrong = ended.words[-1:] != [word] if word else "Traceback" in ended.err
        if ended.status != 128 + number_sent or wrong:
            fault = "hang" if ended.status is None else "traceback"
            soak.add(name, KIND[kind], fault, f"ended with {ended.status}: {ended.err[-300:]}", killed)
            return
    ended = soak.finetune()
    outcome, detail = "bit-identical", ""
    if ended.status is None:
        outcome = "hang"
    elif ended.status:
        outcome, detail = "traceback" if "Traceback" in ended.err else "one line, no file", ended.err[-400:]
    elif different := compare(expected["results"], soak.read()):
        outcome, detail = "silent", f"{len(different)} differ: {', '.join(different[:6])}"
        shutil.copytree(soak.runs, soak.work / name.replace(" ", "-"), dirs_exist_ok=True)
    soak.add(name, KIND[kind], outcome, detail, max(killed, 1))


def print_table(faults: list[Fault]) -> dict[str, dict[str, int]]:
    """Print one row per kind of fault, and return the counts."""
    counts: dict[str, dict[str, int]] = {}
    for fault in faults:
        row = counts.setdefault(fault["kind"], dict.fromkeys(OUTCOMES, 0))
        row[fault["outcome"]] += fault["n"]
    width = max([len(kind) for kind in counts], default=5)
    print(" ".join([f"{'fault':{width}}", *(f"{outcome:>{len(outcome)}}" for outcome in OUTCOMES)]))
    for kind, row in counts.items():
        print(" ".join([f"{kind:{width}}", *(f"{row[outcome]:{len(outcome)}}" for outcome in OUTCOMES)]))
    return counts


def break_server(soak: Soak, fault: str) -> None:
    """Let the tiny run log to a server that fails, then forward what is missing to one that does not."""
    name = f"server {fault}"
    if soak.is_done(name):
        return
    known = soak.expect()
    expected = known["results"]
    soak.begin()
    (whole,) = (soak.work / "undisturbed/default").glob("mini_*")
    of_run = read_results(whole)
    database = soak.work / "server.db"
    shutil.copyfile(soak.work / "empty.db", database)
    with serving(database) as port:
        with failing(fault, port, soak.seed) as proxy:
            uri = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy}"}
            ended = soak.finetune(environment=uri, limit=SERVER_LIMIT)
        outcome, detail = judge(
            ended, [], lambda: compare(of_run, read_results(soak.find_run())), known["words"]
        )
        if outcome == "bit-identical" and any(word not in known["words"] for word in ended.words):
            outcome = "clean"
        if ended.status == 0 and outcome != "silent":
            work = dispatching(["forward", str(soak.find_run())])
            uri = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
            sent = run_forked(work, soak.work / "output", LIMIT, environment=uri)
            found = read_results(soak.find_run()) | read_store(database)
            if different := compare(expected, found):
                outcome, detail = "silent", f"after forward ({sent.status}): {', '.join(different[:5])}"
    soak.add(name, f"MLflow server: {fault}", outcome, f"{ended.seconds:.0f} s, {detail}")


def damage_runs(soak: Soak, n: int, n_commands: int) -> None:
    """Damage `n` files of finished runs."""
    soak.expect()
    runs = DamagedRuns(soak.work / "undisturbed", soak.runs, SHORT)
    names = [name for number in range(n) if not soak.is_done(name := f"run file {number}")]
    if names:
        runs.find_expected()
    for name in names:
        found = runs.damage_one(soak.draw(name), n_commands)
        for kind, outcome, detail in found or [("run file: unchanged", "bit-identical", "")]:
            soak.add(name, kind, outcome, detail)


def damage_inputs(soak: Soak, n: int) -> None:
    """Damage `n` files of inputs."""
    names = [name for number in range(n) if not soak.is_done(name := f"input {number}")]
    if not names:
        return
    inputs = DamagedInputs(soak.work / "inputs")
    for name in names:
        for kind, outcome, detail in inputs.damage_one(soak.draw(name)) or [
            ("input: unchanged", "bit-identical", "")
        ]:
            soak.add(name, kind, outcome, detail)


def main() -> None:
    """Run what is missing, print the table, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="of each kind")
    parser.add_argument("--mutations", type=int, default=500, help="of run files, and as many of inputs")
    parser.add_argument("--commands", type=int, default=2, help="run on each damaged run, of six")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and finished faults")
    parser.add_argument("--output", type=Path, help="file of the table, without suffix")
    arguments = parser.parse_args()
    soak = Soak(arguments.work, arguments.seed)
    for number in range(-(-arguments.kills // KILLS_PER_STORM)):
        for kind in KILLS:
            storm(soak, kind, number, KILLS_PER_STORM)
    for fault in SERVER_FAULTS if arguments.kills else ():
        break_server(soak, fault)
    damage_inputs(soak, arguments.mutations)
    damage_runs(soak, arguments.mutations, arguments.commands)
    counts = print_table(soak.faults)
    if arguments.output is not None:
        settings = {"seed": arguments.seed, "machine": describe_machine()}
        write_figures({**settings, "faults": counts}, arguments.output.with_suffix(".json"))


if __name__ == "__main__":
    main()
