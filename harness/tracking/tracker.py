"""From snapshots to layer tokens, mappings, probes and results; finished work is skipped.

The work is cut into items, one folder or file each: a mapping and the probes of every snapshot, and the
refits of step 0 that make the noise floor; with several subjects, mappings and refits of each. Processes
share the items. A family that fits all snapshots together has one fit per subject instead, before the items.
The main process derives the rows of ``results.jsonl`` from the files on disk: those of a snapshot when its
work is done, and in the end all that are missing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from harness.backbones import Backbone
from harness.config import Config
from harness.finetuning import (
    TunedModel,
    read_snapshot,
    tune,
)
from harness.mappings import (
    FAMILIES,
    FitData,
    FitOptions,
    Member,
    save_mapping,
)
from harness.runs import (
    Inputs,
    Subject,
    list_snapshots,
    probes_file,
    reference_file,
    snapshot_folder,
    start_folder,
    write_probes,
)
from harness.storage import InputError
from harness.tracking.evidence import EvidenceFiles
from harness.tracking.fitter import (
    Fitter,
    prepare_split,
)
from harness.tracking.probing import LayerFeatures, Prober
from harness.tracking.results import LiveRows, write_results
from harness.tracking.shared_start import SharedStart
from harness.tracking.work_items import (
    WorkItem,
    plan_work,
)


def track(config: Config, run: Path, inputs: Inputs, accelerator: Accelerator) -> None:
    """Track all snapshots of a run and write its results; parameters and errors as for `measure`."""
    rows = LiveRows(config, run, inputs.brains)
    steps = measure(config, run, inputs, accelerator, rows)
    if accelerator.is_main_process:
        write_results(config, run, inputs, steps, rows.logged)
    accelerator.wait_for_everyone()


def fit_start(config: Config, run: Path, inputs: Inputs, accelerator: Accelerator) -> None:
    """Fit the mapping of step 0 of every subject that lacks one, before there is a snapshot."""
    subjects = inputs.brains.subjects
    if accelerator.is_main_process:
        for subject in subjects:
            prepare_split(config, subject, inputs.brains)
    accelerator.wait_for_everyone()
    unfitted = [subject for subject in subjects if not WorkItem(subject, 0).mapping.exists()]
    own = unfitted[accelerator.process_index :: accelerator.num_processes]
    if own:
        tracker = _Tracker(config, run, inputs, accelerator)
        for subject in own:
            tracker.fit_start(subject)
    accelerator.wait_for_everyone()


def measure(
    config: Config,
    run: Path,
    inputs: Inputs,
    accelerator: Accelerator,
    report: Callable[[Sequence[int], Sequence[int]], None] | None = None,
) -> list[int]:
    """Fit mappings to all snapshots in a folder and probe them; returns their steps.

    Parameters
    ----------
    config : Config
    run : Path
        The folder that holds the snapshots.
    inputs : Inputs
        The folders of its subjects are inside `run`.
    accelerator : Accelerator
        Its processes share the work.
    report : function of all steps and of those that are done, or None
        Called by the main process whenever it has finished a work item.

    Raises
    ------
    InputError
        Where there is no snapshot, or one does not fit the backbone.
    """
    steps = list_snapshots(run)
    if not steps:
        raise InputError(f"{run / 'snapshots'}: found no snapshot, expected the folder of a fine-tuned run")
    brains = inputs.brains
    tracker = _Tracker(config, run, inputs, accelerator)
    missing = [item for item in plan_work(config, brains.subjects, steps) if not tracker.is_done(item)]
    if accelerator.is_main_process:
        for subject in brains.subjects:
            prepare_split(config, subject, brains)
    accelerator.wait_for_everyone()
    process, n_processes = accelerator.process_index, accelerator.num_processes
    unfitted = [subject for subject in brains.subjects if any(item.subject == subject for item in missing)]
    for subject in unfitted[process::n_processes]:
        tracker.prepare(subject)
        tracker.fit_together(subject, steps)
    accelerator.wait_for_everyone()
    # sorted by subject and step, so that a process computes the tokens of a snapshot once for all its refits
    place_of = {subject: place for place, subject in enumerate(brains.subjects)}
    own = sorted(missing[process::n_processes], key=lambda item: (place_of[item.subject], item.step))
    for place, item in enumerate(own, 1):
        tracker.track(item, f"{place}/{len(own)}")
        if report is not None and accelerator.is_main_process:
            report(steps, tracker.find_done(steps))
    accelerator.wait_for_everyone()
    return steps


class _Tracker:
    """Does work items one after the other; holds the tokens of one snapshot and subject at a time."""

    def __init__(self, config: Config, run: Path, inputs: Inputs, accelerator: Accelerator) -> None:
        self._config, self._run, self._brains = config, run, inputs.brains
        self._device, quiet = accelerator.device, not accelerator.is_main_process
        # before the method adds to its weights
        self._shared = SharedStart(config, inputs.backbone, inputs.brains, self._device)
        self._tasks, self._probes = inputs.tasks, inputs.probes
        widths = [task.n_classes for task in inputs.tasks]
        self._model = tune(inputs.backbone, widths, config.method, config.seed, inputs.tasks)
        self._prober = Prober(inputs, config, self._device, quiet)
        self._fitter = Fitter(config, run, inputs.brains, self._device, quiet)
        self._step: int | None = None
        self._backbone = inputs.backbone

    def is_done(self, item: WorkItem) -> bool:
        """Whether everything of an item is on disk."""
        lacks = self._lacks_reference(item) or self._lacks_probes(item) or self._lacks_evidence(item)
        return item.mapping.exists() and not lacks

    def find_done(self, steps: Sequence[int]) -> list[int]:
        """Find the snapshots with all of their items on disk, by whichever process."""
        missing = {
            item.step
            for item in plan_work(self._config, self._brains.subjects, steps)
            if not self.is_done(item)
        }
        return [step for step in steps if step not in missing]

    def track(self, item: WorkItem, label: str) -> None:
        """Do whatever is missing of an item."""
        self._open(item.step)
        name = f"tracking {label}: {_name(item.subject)}step {item.step}"
        name += f", refit {item.refit}" if item.refit else ""
        if not item.mapping.exists():
            self._shared.make_mapping(item, partial(self._fitter.fit, item, name))
        if self._lacks_reference(item):
            self._fitter.make_reference(item, name)
        if self._lacks_evidence(item):
            self._evidence(item.subject).measure(item.step, self._fitter.see(item.subject, name))
        if self._lacks_probes(item):
            probe = self._prober.probe if item.step else self._probe_start
            means = self._fitter.layer_means
            write_probes(self._run, item.step, probe(self._model, self._backbone, name, means))

    def _probe_start(
        self,
        model: TunedModel,
        backbone: Backbone,
        name: str,
        means: LayerFeatures | None,
    ) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "start"
            make = partial(self._prober.write_start, backbone, name, folder, means)
            self._shared.make_probes(self._tasks, self._probes, folder, make)
            return self._prober.read_start(folder, model)

    def prepare(self, subject: Subject) -> None:
        """Make what a subject's work items share, unless it exists.

        That is the evidence of step 0 with its controls and, with warm starts, the mapping to start from.
        """
        evidence = self._evidence(subject)
        if not evidence.has(0):
            self._open(0)
            name = f"tracking: {_name(subject)}step 0"

            def make_controls() -> None:
                data = self._fitter.see(subject, name)
                label = self._fitter.label(f"{name}, controls")
                evidence.make_controls(data, self._brains.load(subject), label)

            self._shared.make_controls(subject, evidence.controls, make_controls)
        if self._fitter.lacks_start(subject):
            self._open(0)
            self._make_start(subject)

    def _make_start(self, subject: Subject) -> None:
        """Make the mapping that warm starts start from, if they do and it is missing; step 0 is open."""
        if self._fitter.lacks_start(subject):
            item = self._fitter.start_item(subject)
            make = partial(self._fitter.make_start, item, f"tracking: {_name(subject)}step 0")
            self._shared.make_start(item, start_folder(subject.folder), make)

    def fit_start(self, subject: Subject) -> None:
        """Fit a subject's mapping of step 0 to the pretrained backbone, which needs no snapshot."""
        self._show(self._model.merged_backbone(), 0)
        self._make_start(subject)
        item, name = WorkItem(subject, 0), f"before training: {_name(subject)}step 0"
        self._shared.make_mapping(item, partial(self._fitter.fit, item, name))

    def fit_together(self, subject: Subject, steps: Sequence[int]) -> None:
        """Fit a subject's missing mappings in one fit, if the family fits all snapshots together."""
        config = self._config.mapping
        fit, items = (
            FAMILIES[config.family].load_fit_together(),
            plan_work(self._config, [subject], steps),
        )
        if fit is None or all(item.mapping.exists() for item in items):
            return
        # step 0 first, then its refits, then the snapshots in order
        items.sort(key=lambda item: (item.step, item.refit))
        members: list[Member] = []
        data: FitData | None = None
        for item in items:
            self._open(item.step)
            if item.refit == 0:
                data = self._fitter.see(subject, f"tracking: {_name(subject)}step {item.step}")
                # the next snapshot's tokens are stored beside these, not instead of them
                self._fitter.forget()
            assert data is not None
            later = item.step > 0 and items[len(members) - 1].step > 0
            members.append(Member(data, len(members) - 1 if later else None))
        options = FitOptions(
            items[0].seed(self._config),
            config.bootstrap,
            self._device,
            self._fitter.label(f"tracking: {_name(subject)}all steps, mapping"),
        )
        for item, mapping in zip(items, fit(members, config, options), strict=True):
            save_mapping(mapping, item.mapping)

    def _lacks_probes(self, item: WorkItem) -> bool:
        # probes belong to no subject: the first subject's items include them
        probing = item.refit == 0 and item.subject == self._brains.subjects[0]
        return probing and not probes_file(self._run, item.step).exists()

    def _lacks_reference(self, item: WorkItem) -> bool:
        return item.refit == 0 and not reference_file(item.subject.folder, item.step).exists()

    def _lacks_evidence(self, item: WorkItem) -> bool:
        return item.refit == 0 and not self._evidence(item.subject).has(item.step)

    def _evidence(self, subject: Subject) -> EvidenceFiles:
        return EvidenceFiles(subject, self._config.evidence, self._config.seed)

    def _open(self, step: int) -> None:
        if self._step != step:
            read_snapshot(snapshot_folder(self._run, step), self._model, self._shared.pretrained_hash)
            self._show(self._model.merged_backbone(), step)

    def _show(self, backbone: Backbone, step: int) -> None:
        self._step, self._backbone = step, backbone
        self._fitter.open(backbone)
        if step == 0:
            self._shared.open(backbone)


def _name(subject: Subject) -> str:
    return "" if subject.label is None else f"{subject.label}, "
