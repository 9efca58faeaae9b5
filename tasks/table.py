"""Images and labels listed in a table: one row per image, with its file and its label or labels."""

from __future__ import annotations

from pathlib import Path

import datasets
import pandas as pd

from harness.config import TableTaskConfig
from harness.storage import InputError
from tasks.external import build_external
from tasks.labels import check_columns
from tasks.splits import choose_splits
from tasks.task import Task

READERS = {".csv": pd.read_csv, ".tsv": pd.read_table, ".parquet": pd.read_parquet}


def build(config: TableTaskConfig, at_most: bool = False) -> Task:
    """Load the images listed in a table.

    Raises
    ------
    InputError
        If the table is missing or broken, or a column or a listed file is missing.
    """
    table = Path(config.table).expanduser()
    root = Path(config.root).expanduser() if config.root is not None else table.parent
    whole = read_table(table)
    parts = {str(table): whole}
    if config.test_table is not None:
        test = Path(config.test_table).expanduser()
        if test.resolve() == table.resolve():
            raise InputError(f"task.test_table: found {test}, the same as task.table; expected another file")
        parts[str(test)] = read_table(test)
    for place, frame in parts.items():
        check_columns(place, list(frame.columns), config, [config.split_column])
    if config.split_column is not None:
        of_split = {str(name): frame for name, frame in whole.groupby(config.split_column, sort=True)}
        train, test_name = choose_splits(str(table), list(of_split), config)
        parts = {
            f"{table}, {config.split_column} {name}": of_split[name]
            for name in (train, test_name)
            if name is not None
        }
    return build_external(
        config,
        str(table),
        {place: _to_dataset(place, frame, root, config) for place, frame in parts.items()},
        at_most,
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a csv, tsv or parquet file; `InputError` names one that is missing, broken or empty."""
    if path.suffix not in READERS:
        raise InputError(f"{path}: expected a file ending in {', '.join(READERS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        frame = READERS[path.suffix](path)
    except Exception as error:  # pandas and pyarrow raise anything on a broken file
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())})") from None
    if frame.empty:
        raise InputError(f"{path}: found no rows, expected one per image")
    return frame


def _to_dataset(place: str, frame: pd.DataFrame, root: Path, config: TableTaskConfig) -> datasets.Dataset:
    files = []
    for row, name in enumerate(frame[config.image_column]):
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{place}, row {row}: found {name!r} in column {config.image_column}, expected a file name"
            )
        path = root / name
        if not path.is_file():
            missing = sum(not (root / str(other)).is_file() for other in frame[config.image_column])
            raise InputError(
                f"{place}, row {row}: {path}: no such file ({missing} of {len(frame)} are missing); "
                "expected file names below task.root, by default the table's folder"
            )
        files.append(str(path))
    columns = [*(config.label_columns or [config.label_column])]
    columns += [config.group_column] if config.group_column else []
    # missing values are None, whatever pandas reads them as
    content = {
        name: [None if pd.isna(value) else value for value in frame[name].tolist()]
        for name in dict.fromkeys(columns)
        if name != config.image_column
    }
    try:
        data = datasets.Dataset.from_dict(content)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: found columns of mixed types ({' '.join(str(error).split())})") from None
    return data.add_column(config.image_column, files).cast_column(config.image_column, datasets.Image())
