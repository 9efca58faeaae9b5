from .cache import (
    cache_folder,
)
from .errors import (
    INTERRUPTED,
    InputError,
    exit_with_one_line,
    unknown_name,
)
from .file_hashes import (
    hash_files,
)
from .files import (
    content_hash,
    make_folder,
    partial_suffix,
    read_arrays,
    read_json,
    read_record,
    read_weights,
    remove_leftovers,
    remove_path,
    write_arrays,
    write_atomically,
    write_json,
    write_record,
)
from .foreign_files import (
    as_input_error,
    quiet_nibabel,
    tell_format,
)
from .functions import (
    call_function,
    import_function,
)
from .hub import (
    explain_hub_errors,
    explain_server_errors,
    hub_answers,
    without_downloads,
)
from .image_files import (
    DECODER_VERSION,
    REMARKS,
    ImageFiles,
    as_rgb,
    by_number,
    check_image_order,
    decode_image,
    find_images,
    hash_images,
    hash_pixels,
    list_images,
    list_images_below,
    merge_equal_images,
    name_warnings,
    no_image,
    report_left_out,
    report_remarks,
)
from .launchers import (
    ERRORS_FOLDER,
    SEND_LATER,
    TERMINATED,
)
from .locks import (
    hold_lock,
)
from .npy_files import (
    describe_array,
    open_npy,
    read_npz,
)
from .paths import (
    find_outside,
    hugging_face_home,
    refuse_endless,
    user_path,
)
from .progress import (
    PROGRESS_RECORDS,
    RECORD_MARK,
    progress_bar,
)
from .shared import (
    hold_cached,
    make_once,
    remember,
)
from .text import (
    format_bytes,
    format_seconds,
    hide_passwords,
)

__all__ = [
    "DECODER_VERSION",
    "ERRORS_FOLDER",
    "INTERRUPTED",
    "PROGRESS_RECORDS",
    "RECORD_MARK",
    "REMARKS",
    "SEND_LATER",
    "TERMINATED",
    "ImageFiles",
    "InputError",
    "as_input_error",
    "as_rgb",
    "by_number",
    "cache_folder",
    "call_function",
    "check_image_order",
    "content_hash",
    "decode_image",
    "describe_array",
    "exit_with_one_line",
    "explain_hub_errors",
    "explain_server_errors",
    "find_images",
    "find_outside",
    "format_bytes",
    "format_seconds",
    "hash_files",
    "hash_images",
    "hash_pixels",
    "hide_passwords",
    "hold_cached",
    "hold_lock",
    "hub_answers",
    "hugging_face_home",
    "import_function",
    "list_images",
    "list_images_below",
    "make_folder",
    "make_once",
    "merge_equal_images",
    "name_warnings",
    "no_image",
    "open_npy",
    "partial_suffix",
    "progress_bar",
    "quiet_nibabel",
    "read_arrays",
    "read_json",
    "read_npz",
    "read_record",
    "read_weights",
    "refuse_endless",
    "remember",
    "remove_leftovers",
    "remove_path",
    "report_left_out",
    "report_remarks",
    "tell_format",
    "unknown_name",
    "user_path",
    "without_downloads",
    "write_arrays",
    "write_atomically",
    "write_json",
    "write_record",
]
