"""The formats by name."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable

WRITERS = {
    "gifti": "gifti:write_gifti",
    "cifti": "cifti:write_cifti",
    "nifti": "nifti:write_nifti",
    "pycortex": "pycortex:write_pycortex",
    "csv": "tables:write_csv",
    "parquet": "tables:write_parquet",
}
"""Module and function of every format; imported on first use."""

FORMATS = tuple(WRITERS)

MODEL_FORMATS = ("huggingface", "peft")
"""Of the network itself; `harness.exports.model_folder` writes them."""


def load_writer(form: str) -> Callable[..., dict[str, bytes]]:
    """Import the function that takes an `Export` and makes a format's files: content by file name."""
    found: Callable[..., dict[str, bytes]] = pkgutil.resolve_name(f"harness.exports.{WRITERS[form]}")
    return found
