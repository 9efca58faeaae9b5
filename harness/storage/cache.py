"""The cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return ``PALIMPSEST_CACHE`` if set, else the user's cache folder."""
    return Path(os.environ.get("PALIMPSEST_CACHE") or user_cache_path("palimpsest"))
