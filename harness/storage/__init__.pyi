from .cache import (
    cache_folder,
)
from .errors import (
    InputError,
    exit_with_one_line,
    unknown_name,
)
from .file_hashes import (
    hash_files,
)
from .files import (
    content_hash,
    read_arrays,
    read_json,
    read_weights,
    remove,
    write_atomically,
    write_json,
)
from .foreign_files import (
    quiet_nibabel,
    reading,
)
from .functions import (
    call_function,
    import_function,
)
from .hub import (
    hub_answers,
    hub_or_message,
    server_or_message,
)
from .image_files import (
    MODES,
    SUFFIXES,
    ImageFiles,
    check_order,
    decode_image,
    hash_images,
    join_pictures,
    list_images,
    list_images_below,
)
from .npy_files import (
    describe,
    open_npy,
    read_npz,
)

__all__ = [
    "MODES",
    "SUFFIXES",
    "ImageFiles",
    "InputError",
    "cache_folder",
    "call_function",
    "check_order",
    "content_hash",
    "decode_image",
    "describe",
    "exit_with_one_line",
    "hash_files",
    "hash_images",
    "hub_answers",
    "hub_or_message",
    "import_function",
    "join_pictures",
    "list_images",
    "list_images_below",
    "open_npy",
    "quiet_nibabel",
    "read_arrays",
    "read_json",
    "read_npz",
    "read_weights",
    "reading",
    "remove",
    "server_or_message",
    "unknown_name",
    "write_atomically",
    "write_json",
]
