"""The folder that caches are kept in."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """``PALIMPSEST_CACHE``, or else the user's cache folder."""
    return Path(os.environ.get("PALIMPSEST_CACHE") or user_cache_path("palimpsest"))
