"""Print curves out of MLflow as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from harness.commands.arguments import CommandParser
from harness.measures import Kind
from harness.storage import (
    InputError,
    user_path,
    write_atomically,
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
    """Print curves of one kind of metric over optimizer steps: means over everything not named in --by."""
    parser = CommandParser(
        "query",
        "Print curves of one kind of metric over optimizer steps: means over everything not named in --by,\n"
        "but never over methods or brains unless --over names them. n is the number of values, and counts\n"
        "says of what; low and high are the ends of a 95 % interval over what the column interval says.\n"
        "Columns for --by: study, run, backbone, objective, task, method, brain, seed,\n"
        "measure; roi and subject for metrics of the brain, place for the others. docs/metrics.md lists\n"
        "the metrics.",
        (
            "query rewiring --by backbone,roi",
            "query forgetting --study demo --format csv --output curves.csv",
            "query verdict --by backbone,roi,seed",
            "query rewiring --by seed --where backbone=mini_clip,roi=V4",
            "query rewiring --verdict rewired",
        ),
    )
    parser.add_argument("kind", choices=get_args(Kind), metavar="KIND", help=", ".join(get_args(Kind)))
    parser.add_argument(
        "--by", help="columns to keep apart, comma-separated (default: backbone,roi or backbone,place)"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE[,…]",
        help="only these; values of one column are alternatives; also measure=… and step=…",
    )
    parser.add_argument("--over", default="", help="method, brain: average over these too (default: never)")
    parser.add_argument("--study", help="only this study (default: all)")
    parser.add_argument(
        "--measure", help="only this measure (default: wasserstein_excess for rewiring, else all)"
    )
    parser.add_argument(
        "--verdict",
        help="only regions with this verdict at the end: unchanged, 'loss of signal', reweighted, rewired; "
        "or collapsed runs",
    )
    parser.add_argument("--format", choices=("table", "csv", "parquet"), default="table")
    parser.add_argument("--output", type=user_path, help="file to write (default: standard output)")
    parser.add_argument(
        "--wise-ft", action="store_true", help="curves of palimpsest wise-ft; step is α in percent"
    )
    parser.add_argument(
        "--runs-dir",
        type=user_path,
        default=Path("runs"),
        help="folder with the tracking store (default: runs)",
    )
    arguments = parser.parse(argv)
    # after the arguments are checked: the store's client takes a second to import
    from harness.tracking import query

    if arguments.format == "parquet" and arguments.output is None:
        raise InputError("--format parquet: expected --output FILE")
    table = query(
        arguments.kind,
        arguments.by,
        study=arguments.study,
        measure=arguments.measure,
        runs_dir=arguments.runs_dir,
        wise_ft=arguments.wise_ft,
        verdict=arguments.verdict,
        over=arguments.over,
        where=",".join(arguments.where),
    )
    write_table(table, arguments.format, arguments.output)
