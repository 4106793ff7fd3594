"""The user's cache folder: everything in it can be deleted and is made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder for one kind of thing; it need not exist.

    `$DTG_CACHE` is the root where it is set, else `dtg-restore` in `$XDG_CACHE_HOME` or `~/.cache`,
    or in the folder for temporary files where the user has no home.
    """
    if root := os.environ.get("DTG_CACHE"):
        return Path(root) / kind
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "dtg-restore" / kind
    try:
        return Path.home() / ".cache" / "dtg-restore" / kind
    except RuntimeError:  # a user id without an account, as in containers
        return Path(tempfile.gettempdir()) / "dtg-restore" / kind
