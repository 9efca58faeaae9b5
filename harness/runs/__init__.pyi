from .claim_plan import (
    bind_to_plan,
)
from .inputs import (
    Inputs,
    load_inputs,
)
from .journal import (
    Journal,
    Row,
    read_rows,
)
from .layout import (
    controls_folder,
    evidence_file,
    export_folder,
    figure_file,
    hold_run,
    is_finished,
    list_snapshots,
    mapping_folder,
    probes_file,
    refit_folders,
    run_folder,
    run_name,
    snapshot_folder,
    split_file,
    start_folder,
    subject_folder,
    wise_ft_folder,
)
from .provenance import (
    describe_run,
)
from .subjects import (
    Brains,
    Subject,
    choose_step,
    choose_subject,
    label_subjects,
    list_subjects,
    name_of_subject,
)

__all__ = [
    "Brains",
    "Inputs",
    "Journal",
    "Row",
    "Subject",
    "bind_to_plan",
    "choose_step",
    "choose_subject",
    "controls_folder",
    "describe_run",
    "evidence_file",
    "export_folder",
    "figure_file",
    "hold_run",
    "is_finished",
    "label_subjects",
    "list_snapshots",
    "list_subjects",
    "load_inputs",
    "mapping_folder",
    "name_of_subject",
    "probes_file",
    "read_rows",
    "refit_folders",
    "run_folder",
    "run_name",
    "snapshot_folder",
    "split_file",
    "start_folder",
    "subject_folder",
    "wise_ft_folder",
]
