"""What a study's own run in MLflow holds: its report, its tables, and a few metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.storage import hide_passwords
from harness.tracking.store.connection import (
    connect,
    tracking_uri,
    write_reason,
)
from harness.tracking.store.experiments import (
    find_or_create_experiment,
    find_or_create_study_run,
)
from harness.tracking.store.tables import log_tables

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def log_study(
    study: Path,
    tables: Mapping[str, pd.DataFrame],
    files: Sequence[Path] = (),
    metrics: Mapping[str, float] | None = None,
) -> bool:
    """Log tables and files of a whole study to its own run; old ones of the same name are replaced.

    A store that does not answer costs a warning.

    Parameters
    ----------
    study : Path
        The study's folder, ``{runs_dir}/{study}``.
    tables : mapping of str to DataFrame
        By name; each is logged as ``<name>.csv`` and as a table of MLflow, ``<name>.json``.
    files : sequence of Path
        Such as the report; missing ones are skipped.
    metrics : mapping of str to float
        Finite values.

    Returns
    -------
    bool
        Whether it worked.
    """
    folder = study.resolve()
    uri = tracking_uri(folder.parent)
    try:
        client = connect(uri)
        experiment = find_or_create_experiment(client, folder.name)
        run_id = find_or_create_study_run(client, experiment, folder.name)
        for name, table in tables.items():
            client.log_text(run_id, table.to_csv(index=False), f"{name}.csv")
        log_tables(client, run_id, {f"{name}.json": table for name, table in tables.items()})
        for path in files:
            if path.exists():
                client.log_artifact(run_id, str(path))
        for name, value in (metrics or {}).items():
            client.log_metric(run_id, name, value)
        client.set_terminated(run_id)
    except Exception as error:  # nothing that tracking meets may stop a study
        log.warning(
            "warning: MLflow at %s does not answer (%s); not logged: %s",
            *(hide_passwords(uri), write_reason(error), ", ".join([*tables, *(path.name for path in files)])),
        )
        return False
    return True
