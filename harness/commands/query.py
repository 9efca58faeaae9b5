"""Print curves out of MLflow as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from harness.commands.arguments import CommandParser
from harness.storage import (
    InputError,
    write_atomically,
)
from harness.tracking import (
    Kind,
    mean_curves,
    metric_curves,
    place_columns,
)


def write_table(table: pd.DataFrame, form: Literal["table", "csv", "parquet"], output: Path | None) -> None:
    """Write a table to a file, or print it."""
    if form == "parquet":
        content = table.to_parquet(index=False)
    else:
        text = table.to_csv(index=False) if form == "csv" else table.to_string(index=False) + "\n"
        content = text.encode()
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        with write_atomically(output) as temporary:
            temporary.write_bytes(content)


def main(argv: Sequence[str] | None = None) -> None:
    """Print curves of one kind of metric, as means over what is not in --by, at every optimizer step."""
    parser = CommandParser(
        "query",
        "Print curves of one kind of metric, as means over what is not in --by, at every optimizer step.",
        (
            "query rewiring --by backbone,roi",
            "query forgetting --study demo --format csv --output curves.csv",
        ),
    )
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument(
        "--by", help="columns, comma-separated (default: backbone and place; roi, if of the brain)"
    )
    parser.add_argument("--study", help="only this one (default: all)")
    parser.add_argument(
        "--measure", help="only this one (default: wasserstein_excess for rewiring, else all)"
    )
    parser.add_argument("--format", choices=("table", "csv", "parquet"), default="table")
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")
    parser.add_argument(
        "--wise-ft", action="store_true", help="curves of palimpsest wise-ft: step is α in percent"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: runs")
    arguments = parser.parse(argv)
    if arguments.format == "parquet" and arguments.output is None:
        raise InputError("--format parquet: found no --output, accepted: a file to write it to")
    by = arguments.by.split(",") if arguments.by else ["backbone", place_columns(arguments.kind)[0]]
    measure = arguments.measure or ("wasserstein_excess" if arguments.kind == "rewiring" else None)
    curves = metric_curves(
        arguments.kind,
        study=arguments.study,
        measure=measure,
        runs_dir=arguments.runs_dir,
        interpolated=arguments.wise_ft,
    )
    write_table(mean_curves(curves, by), arguments.format, arguments.output)
