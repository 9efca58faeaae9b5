"""Files of grafts: what was measured on each, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.runs import graft_folder
from harness.storage import (
    InputError,
    read_record,
    write_record,
)

SUMMARY = "summary"


@dataclass(frozen=True)
class Measured:
    """What was measured on one graft.

    Attributes
    ----------
    units : tuple of str
        Units with their pretrained weights.
    probe : dict of task to dict of measure to float
        Scores of probes.
    task : dict of task to dict of measure to float
        Scores of the fine-tuned heads.
    images : dict of task to dict
        What probes and heads got right, image by image, as in a probes file.
    r2 : dict of subject to float
        R² of step 0's frozen reading; ``all`` for a single subject. Empty where no voxel is predicted.
    multi_label : tuple of str
        Tasks and probes whose main measure is AUROC.
    """

    units: tuple[str, ...]
    probe: dict[str, dict[str, float]]
    task: dict[str, dict[str, float]]
    images: dict[str, Any]
    r2: dict[str, float] = field(default_factory=dict)
    multi_label: tuple[str, ...] = ()


class GraftFiles:
    """The grafts of a run on disk, each whole or absent.

    Parameters
    ----------
    run : Path
    units : sequence of str
        All units, in the order of the network.
    of : str
        Hash of the weights that the grafts are made from.
    """

    def __init__(self, run: Path, units: Sequence[str], of: str) -> None:
        self._run, self._units, self._of = run, tuple(units), of

    def path(self, chosen: Collection[str]) -> Path:
        """File of a graft: ``graft/sets/0000005.json``; the name's bits are the units, the first one is 1."""
        return graft_folder(self._run) / "sets" / f"{self._number(chosen):07x}.json"

    def has(self, chosen: Collection[str]) -> bool:
        """Whether a graft has been measured."""
        return self.path(chosen).exists()

    def write(self, measured: Measured) -> None:
        """Write what was measured on a graft, its units in the order of the network."""
        path = self.path(measured.units)
        units = [unit for unit in self._units if unit in measured.units]
        write_record(path, {"of": self._of, **asdict(measured), "units": units}, self._place(path))

    def read(self, chosen: Collection[str]) -> Measured:
        """Read what was measured on a graft.

        Raises
        ------
        InputError
            If the file is missing, damaged, exchanged, or of other weights.
        """
        path = self.path(chosen)
        content = read_record(path, self._place(path))
        found = content.pop("of", None)
        if found != self._of:
            raise InputError(
                f"{path}: found a graft of other weights ({str(found)[:8]}), expected {self._of[:8]}; "
                f"delete {graft_folder(self._run)} to graft anew"
            )
        try:
            measured = Measured(**content)
        except TypeError as error:
            raise InputError(f"{path}: not a graft as palimpsest graft writes it ({error})") from None
        return Measured(
            **{**vars(measured), "units": tuple(measured.units), "multi_label": tuple(measured.multi_label)}
        )

    def _number(self, chosen: Collection[str]) -> int:
        return sum(1 << place for place, unit in enumerate(self._units) if unit in chosen)

    def _place(self, path: Path) -> str:
        return f"graft {path.stem} of {self._run.resolve().name}"


def write_summary(run: Path, content: dict[str, Any]) -> None:
    """Write what follows from all grafts: ``graft/summary.json``."""
    write_record(graft_folder(run) / f"{SUMMARY}.json", content, f"grafts of {run.resolve().name}")


def read_summary(run: Path) -> dict[str, Any] | None:
    """Read what follows from all grafts; None if a run was not grafted.

    Raises
    ------
    InputError
        If the file is damaged or exchanged.
    """
    path = graft_folder(run) / f"{SUMMARY}.json"
    return read_record(path, f"grafts of {run.resolve().name}") if path.exists() else None
