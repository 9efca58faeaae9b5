"""Print a configuration as resolved, the options of a group, or the settings."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import (
    GROUPS,
    OverrideParser,
)

RUN_SETTINGS = (
    "seed",
    "runs_dir",
    "study.name",
    "task.n_train",
    "task.n_test",
    "finetune.epochs",
    "finetune.max_steps",
    "finetune.batch_size",
    "finetune.lr",
    "finetune.precision",
    "snapshots.ratio",
    "probes.tasks",
    "brain.rois",
    "mapping.steps",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the configuration that overrides resolve to."""
    parser = OverrideParser(
        "config",
        "Print the configuration that overrides resolve to, as YAML.",
        (
            "config backbone=dinov2_s14 task=eurosat",
            "config study=demo seed=1",
            "config --list backbone",
            "config --settings finetune",
        ),
        RUN_SETTINGS,
    )
    parser.add_argument("--list", choices=tuple(GROUPS), metavar="GROUP", help="print the options of a group")
    parser.add_argument(
        "--settings",
        action="store_true",
        help="print every setting with its default; key=value then are starts of names, such as finetune",
    )
    found = parser.parse(argv)
    from harness.config import (
        describe_settings,
        group_options,
        load_config,
        to_yaml,
    )

    if found.list:
        print("\n".join(group_options(found.list)))
    elif found.settings:
        for prefix in found.overrides or [""]:
            for setting in describe_settings(prefix):
                default = "" if setting.default is None else f"={setting.default}"
                print(f"{setting.name + default:40} {setting.description}".rstrip())
    else:
        print(to_yaml(load_config(found.overrides)), end="")
