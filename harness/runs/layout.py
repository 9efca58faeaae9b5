"""The folder of a run: names and places of its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from harness.config import (
    Config,
    config_hash,
    map_hash,
)
from harness.storage import (
    InputError,
    cache_folder,
    hold_lock,
    make_folder,
    remove_leftovers,
    user_path,
)

LOCK = ".lock"


def run_name(config: Config) -> str:
    """``{backbone}-{task}-{method}-seed{seed}-{first 8 digits of the hash}``."""
    parts = (
        config.backbone.name,
        config.task.name,
        config.method.name,
        f"seed{config.seed}",
        config_hash(config)[:8],
    )
    return "-".join(parts)


def run_folder(config: Config) -> Path:
    """Folder of the run: ``{runs_dir}/{study}/{run}``."""
    return user_path(config.runs_dir) / config.study.name / run_name(config)


def map_name(config: Config) -> str:
    """``{backbone}-{brain}-{family}-seed{seed}-{first 8 digits of the hash}`` of a frozen network's map."""
    parts = (
        config.backbone.name,
        config.brain.name,
        config.mapping.family,
        f"seed{config.seed}",
        map_hash(config)[:8],
    )
    return "-".join(parts)


def map_folder(config: Config) -> Path:
    """Folder of a frozen network's mapping: ``{runs_dir}/{study}/maps/{map}``; no run, so reports skip it."""
    return maps_folder(user_path(config.runs_dir) / config.study.name) / map_name(config)


def maps_folder(study: Path) -> Path:
    """Folder of a study's mappings of frozen networks: ``maps``."""
    return study / "maps"


@contextmanager
def hold_run(run: Path) -> Iterator[None]:
    """Lock a run against other processes, and remove what killed ones have left in it and in the cache.

    Raises
    ------
    InputError
        If another process is working on the run.
    """
    make_folder(run)
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(run / LOCK, wait=0))
        except TimeoutError as error:
            raise InputError(f"{run}: another process is working on this run: {error}") from None
        remove_leftovers(run, held=True)
        above = (run.parent, run.parents[1], run.parents[1] / ".trained")
        for folder in (*above, cache_folder(), *cache_folder().glob("*/")):
            remove_leftovers(folder)
        yield


def wait_for_run(run: Path, seconds: float) -> None:
    """Wait until no other process works on a run, or for so long: `hold_run` says who still does."""
    if run.exists():
        with suppress(TimeoutError), hold_lock(run / LOCK, wait=seconds):
            pass


def is_finished(run: Path) -> bool:
    """Whether a run was fine-tuned and tracked, or a frozen network mapped, to the end."""
    return (run / "finished.json").exists()


def subject_folder(run: Path, label: str | None) -> Path:
    """Folder of a subject's split and mappings: ``subjects/subj01``, or the run's if it is the only one."""
    return run if label is None else run / "subjects" / label


def _step_name(step: int) -> str:
    return f"step-{step:06d}"


def snapshot_folder(run: Path, step: int) -> Path:
    """Folder of a snapshot: ``snapshots/step-000128``."""
    return run / "snapshots" / _step_name(step)


def list_snapshots(run: Path) -> list[int]:
    """Steps of a run's complete snapshots, sorted; half-written ones have another name and are ignored."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "snapshots").glob("step-*"))


def split_file(subject: Path) -> Path:
    """File of a subject's split, in its folder: ``split.json``."""
    return subject / "split.json"


def mapping_folder(subject: Path, step: int, refit: int = 0) -> Path:
    """Folder of a snapshot's mapping: ``mappings/step-000128``, or of a refit: ``…-refit-1``.

    `subject` is the subject's folder: the run's if it is the only one.
    """
    return subject / "mappings" / (_step_name(step) + (f"-refit-{refit}" if refit else ""))


def refit_folders(subject: Path) -> list[Path]:
    """Folders of a subject's refits of step 0, which make the noise floor, by number."""
    zero = mapping_folder(subject, 0)
    return sorted(
        zero.parent.glob(f"{zero.name}-refit-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )


def step_0_folders(subject: Path) -> list[Path]:
    """Folders of all fits of a subject's step 0: the mapping, then its refits."""
    return [mapping_folder(subject, 0), *refit_folders(subject)]


def start_folder(subject: Path) -> Path:
    """Folder of the fit that a subject's warm starts start from: ``mappings/start``."""
    return subject / "mappings" / "start"


def controls_folder(subject: Path) -> Path:
    """Folder of a subject's evidence at step 0 and its degraded controls: ``evidence/controls``."""
    return subject / "evidence" / "controls"


def evidence_file(subject: Path, step: int) -> Path:
    """File of a later snapshot's evidence per layer: ``evidence/step-000128.safetensors``."""
    return subject / "evidence" / f"{_step_name(step)}.safetensors"


def reference_file(subject: Path, step: int) -> Path:
    """File of a ridge regression's scores on a snapshot: ``references/step-000128.safetensors``."""
    return subject / "references" / f"{_step_name(step)}.safetensors"


def wise_ft_folder(run: Path) -> Path:
    """Folder of the weights between a run's first and last snapshot, laid out like a run: ``wise_ft``."""
    return run / "wise_ft"


def graft_folder(run: Path) -> Path:
    """Folder of what was measured with pretrained weights put back into a run's last snapshot: ``graft``."""
    return run / "graft"


def probes_file(run: Path, step: int) -> Path:
    """File of a snapshot's probes: ``probes/step-000128.json``."""
    return run / "probes" / f"{_step_name(step)}.json"


def export_folder(subject: Path, step: int, form: str) -> Path:
    """Folder of a snapshot's voxelwise maps in a format of other programs: ``exports/step-000128/gifti``."""
    return subject / "exports" / _step_name(step) / form


def figure_file(subject: Path, name: str, step: int) -> Path:
    """File of a snapshot's figure, in a subject's folder: ``figures/readout-step-000128.png``."""
    return subject / "figures" / f"{name}-{_step_name(step)}.png"
