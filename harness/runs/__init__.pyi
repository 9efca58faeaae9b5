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
    figure_file,
    hold_run,
    is_finished,
    list_snapshots,
    map_folder,
    map_name,
    mapping_folder,
    maps_folder,
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
    describe_map,
    describe_run,
)
from .subjects import (
    Brains,
    Subject,
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
    "controls_folder",
    "describe_map",
    "describe_run",
    "evidence_file",
    "figure_file",
    "hold_run",
    "is_finished",
    "label_subjects",
    "list_snapshots",
    "list_subjects",
    "load_inputs",
    "map_folder",
    "map_name",
    "mapping_folder",
    "maps_folder",
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
