"""Models of the Hugging Face hub, by id; the network is used for nothing else."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from .errors import EngineError

# The parts of a model that are ever read: no example pictures, no second copy in another format.
PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
# What the hub's errors mean to a user; their own texts are long and begin with the least of it.
REASONS = {
    "RepositoryNotFoundError": "there is no such model, or it is private",
    "GatedRepoError": "its licence must be accepted on its page, and HF_TOKEN be set",
    "LocalEntryNotFoundError": "the hub does not answer, and the model is not in the local cache",
}


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")


def fetch_model(hub_id: str) -> Path:
    """The folder of a model: from the local cache, else downloaded unless offline.

    EngineError where it can be had from neither.
    """
    return _fetch(hub_id, is_offline())


@cache  # every part of a run reads the same revision, and the hub is asked once
def _fetch(hub_id: str, offline: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise EngineError(
            f"{hub_id} is no folder here, and ids on the hub need huggingface_hub: "
            "pip install 'dtg-restore[wan]'"
        ) from error
    try:
        # huggingface_hub reads HF_HUB_OFFLINE when it is imported, which may have been earlier.
        return Path(snapshot_download(hub_id, allow_patterns=PATTERNS, local_files_only=offline))
    except Exception as error:  # of the network or of the hub: many classes, one meaning
        raise EngineError(
            f"{hub_id} is no folder here and cannot be had from the hub: {_reason(error, offline)}"
        ) from error


def _reason(error: Exception, offline: bool) -> str:
    if offline:
        return "it is not in the local cache, and the network is not used offline"
    name = type(error).__name__
    return REASONS.get(name) or " ".join(str(error).split()) or name
