"""A run's bond to the plan of a preregistered test: the hash of the plan in its manifest."""

from __future__ import annotations

from pathlib import Path

from harness.config import (
    Config,
    read_plan,
)
from harness.runs.records import read_run_manifest
from harness.storage import (
    InputError,
    user_path,
)


def bind_to_plan(config: Config, run: Path) -> dict[str, str]:
    """Return what the manifest says of a run's plan; checked before the run starts and whenever it resumes.

    Parameters
    ----------
    config : Config
        ``study.plan`` names the plan's file; None for a run without a plan.
    run : Path
        The run's folder; it may not exist yet.

    Returns
    -------
    dict
        ``{"claim_plan": SHA-256 of the plan's content}``, empty without a plan.

    Raises
    ------
    InputError
        If the run does not belong to the plan, or began without a plan or under another one.
    """
    manifest = read_run_manifest(run)
    before = manifest.get("claim_plan")
    if config.study.plan is None:
        if before is not None:
            raise InputError(
                f"{run}: began under plan {before[:8]}, expected study.plan= with the file of that plan"
            )
        return {}
    path = user_path(config.study.plan)
    plan = read_plan(path)
    try:
        plan.check(config)
    except InputError as error:
        raise InputError(f"{path}: run not planned: {error}") from None
    if manifest and before != plan.hash:
        began = "without a plan" if before is None else f"under plan {before[:8]}"
        raise InputError(
            f"{run}: began {began}, found plan {plan.hash[:8]} in {path}; a run keeps the plan it began "
            "with, so give the plan another study"
        )
    return {"claim_plan": plan.hash}
