"""Compare the runs of two values of a setting in pairs of task and seed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import CommandParser
from harness.commands.query import write_table
from harness.storage import (
    InputError,
    user_path,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print A against B, keep the question for the study's report, and log the table in MLflow."""
    parser = CommandParser(
        "contrast",
        "Compare A with B: mean paired differences over tasks and seeds, at equal step and equal learning,\n"
        "with interval and exact p. The study's report shows them from then on (palimpsest report), and\n"
        "MLflow has the whole table. Without --factor, --a and --b: what study.contrast of its runs asks.",
        (
            "contrast runs/clip_vs_imagenet",
            "contrast runs/demo --factor backbone.name --a mini_clip --b mini_supervised",
            "contrast runs/methods --factor method.name --a lora --b full --format csv --output lora.csv",
        ),
    )
    parser.add_argument(
        "study", type=user_path, metavar="STUDY_FOLDER", help="folder of a study, such as runs/demo"
    )
    parser.add_argument("--factor", help="setting that tells A from B (default: backbone.name)")
    parser.add_argument("--a", help="its value in A")
    parser.add_argument("--b", help="its value in B; differences are A − B")
    parser.add_argument(
        "--format", choices=("text", "csv", "parquet"), default="text", help="csv, parquet: all rows"
    )
    parser.add_argument("--output", type=user_path, help="file to write (default: standard output)")
    arguments = parser.parse(argv)
    if (arguments.a is None) != (arguments.b is None) or (arguments.factor and arguments.a is None):
        raise InputError(
            "palimpsest contrast: found only some of --factor, --a and --b, expected --a and --b"
        )
    if arguments.format == "parquet" and arguments.output is None:
        raise InputError("--format parquet: expected --output FILE")
    # after the arguments are checked: pandas and figures take seconds to import
    import pandas as pd

    from harness.config import ContrastConfig
    from harness.reporting import (
        contrast_runs,
        format_contrasts,
        log_contrast,
        read_questions,
        read_runs,
        record_question,
    )

    runs = read_runs(arguments.study)
    if arguments.a is None:
        questions = read_questions(arguments.study, runs)
        if not questions:
            raise InputError(f"{arguments.study}: its runs have no study.contrast; expected --a and --b")
    else:
        factor = arguments.factor or "backbone.name"
        questions = [ContrastConfig(factor=factor, a=arguments.a, b=arguments.b)]
    found = [contrast for question in questions for contrast in contrast_runs(runs, question)]
    for question in questions:
        record_question(arguments.study, question)
    for contrast in found:
        log_contrast(arguments.study, contrast)
    if arguments.format == "text":
        text = format_contrasts(found)
        if arguments.output is None:
            print(text)
        else:
            arguments.output.write_text(text + "\n", encoding="utf-8")
        return
    tables = [one.table.assign(factor=one.factor, contrast=one.title) for one in found]
    write_table(pd.concat(tables, ignore_index=True), arguments.format, arguments.output)
