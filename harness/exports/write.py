"""From the folder of a run to files of its maps.

    palimpsest export runs/<study>/<run> --format gifti

Files go to ``exports/step-…/<format>/`` in the run's folder, or in a subject's (``--subject``).
"""

from __future__ import annotations

from pathlib import Path

from harness.brains import (
    Brain,
    load_brain,
    locate_voxels,
)
from harness.exports.export import Export
from harness.exports.formats import (
    FORMATS,
    load_writer,
)
from harness.exports.voxel_maps import list_maps
from harness.mappings import (
    Mapping,
    load_mapping,
    load_split,
)
from harness.measures import (
    Verdict,
    read_verdict,
)
from harness.runs import (
    Subject,
    choose_step,
    choose_subject,
    export_folder,
    list_subjects,
    mapping_folder,
    read_run_config,
    read_values,
    split_file,
    step_0_folders,
)
from harness.storage import (
    InputError,
    unknown_name,
    write_atomically,
    write_json,
)


def write_export(
    run: Path,
    form: str,
    step: int | None = None,
    subject: str | None = None,
    output: Path | None = None,
    pycortex_subject: str | None = None,
    pycortex_transform: str | None = None,
) -> list[Path]:
    """Write every voxelwise map of a snapshot in one format; returns the files written.

    Parameters
    ----------
    run : Path
        Folder of a tracked run.
    form : str
        One of `FORMATS`.
    step : int, optional
        Step of the snapshot; by default the last.
    subject : str, optional
        Label of one of several subjects; by default the first.
    output : Path, optional
        Folder for the files, beside what is there; by default ``exports/step-…/<form>`` in the run's folder.
    pycortex_subject, pycortex_transform : str, optional
        Names in your pycortex database, for the format ``pycortex``.

    Returns
    -------
    list of Path
        Last ``maps.json``: run, step, layers, and the unit and meaning of every map.

    Raises
    ------
    InputError
        For an unknown run, subject, step or format, or a brain that the format cannot hold.
    """
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    if form != "pycortex" and (pycortex_subject or pycortex_transform):
        raise InputError(
            f"--pycortex-subject, --pycortex-transform: found --format {form}, expected pycortex"
        )
    config = read_run_config(run)
    chosen = choose_subject(list_subjects(config.brain, run), subject)
    step = choose_step(run, chosen, step)
    mapping = load_mapping(mapping_folder(chosen.folder, step))
    whole = load_brain(chosen.brain)
    if len(mapping.r2) != whole.n_voxels:
        raise InputError(
            f"{mapping_folder(chosen.folder, step)}: found {len(mapping.r2)} voxels, expected "
            f"{whole.n_voxels}, as brain {whole.name} has"
        )
    brain = whole.score_on(load_split(split_file(chosen.folder), whole.stimulus_ids).held_out)
    maps = list_maps(mapping, _load_start(chosen.folder, step), brain, _read_verdict(run, chosen, step))
    export = Export(
        brain=brain,
        places=locate_voxels(chosen.brain, whole),
        layers=mapping.layers,
        maps=maps,
        about={
            "run": run.resolve().name,
            "subject": chosen.label,
            "step": step,
            "backbone": config.backbone.name,
            "task": config.task.name,
            "method": config.method.name,
            "mapping": mapping.family,
            "brain": brain.name,
            "fingerprint": brain.fingerprint,
            "layers": {str(number): name for number, name in enumerate(mapping.layers, 1)},
            "maps": {each.name: {"unit": each.unit, "meaning": each.meaning} for each in maps},
        },
        pycortex_subject=pycortex_subject,
        pycortex_transform=pycortex_transform,
    )
    export.about["places"] = _describe_places(brain, export)
    files = load_writer(form)(export)
    folder = export_folder(chosen.folder, step, form) if output is None else output
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder}: found a file, expected a folder")
    for name, content in files.items():
        with write_atomically(folder / name) as temporary:
            temporary.write_bytes(content)
    write_json(folder / "maps.json", export.about)
    return [*(folder / name for name in files), folder / "maps.json"]


def _describe_places(brain: Brain, export: Export) -> dict[str, object]:
    mesh, volume = export.places.mesh, export.places.volume
    return {
        "n_voxels": brain.n_voxels,
        "mesh": None if mesh is None else mesh.name,
        "n_vertices": None if mesh is None else list(mesh.n_vertices),
        "volume": None if volume is None else list(volume.shape),
    }


def _load_start(subject: Path, step: int) -> list[Mapping]:
    """All fits of step 0; none for step 0 itself."""
    if step == 0:
        return []
    return [load_mapping(folder) for folder in step_0_folders(subject)]


def _read_verdict(run: Path, subject: Subject, step: int) -> Verdict | None:
    rows = read_values(run, step)
    return read_verdict(rows, subject.label) if rows else None
