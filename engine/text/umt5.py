"""UMT5, the text encoder of Wan, through transformers.

Source: Wan's own preparation of prompts, as in diffusers' `WanPipeline`.
"""

from __future__ import annotations

import gc
import hashlib
import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusers_folder import as_engine_error, check_report
from ..errors import EngineError
from .embeds import Embeds, Encode

MAX_LENGTH = 512  # tokens of a prompt, longer ones are cut off
TOKENIZER, ENCODER = "tokenizer", "text_encoder"
WEIGHTS = (".safetensors", ".bin")


def umt5_encoder(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[Encode | None, str]:
    """The encoder in a diffusers model folder and its identity, as `PromptSource` takes them.

    The encoder is None where the folder has neither `tokenizer/` nor `text_encoder/`.  Nothing is
    loaded before it is called.
    """
    if not any((folder / part).is_dir() for part in (TOKENIZER, ENCODER)):
        return None, ""
    return UMT5(folder, device, dtype), _identity(folder, dtype)


@dataclass(frozen=True)
class UMT5:
    """`encoder(prompts)` gives {"prompt_embeds": (1, 512, D)} for each, zero beyond its tokens.

    The network is in memory during a call alone.  A prompt's result does not depend on the others.
    EngineError where transformers or a part of the model is missing, damaged or of another class.
    """

    folder: Path
    device: torch.device
    dtype: torch.dtype

    def __call__(self, prompts: Sequence[str]) -> list[Embeds]:
        for part in (TOKENIZER, ENCODER):
            if not (self.folder / part).is_dir():
                raise EngineError(f"{self.folder} has no {part}/: the text encoder needs both")
        transformers = _transformers()
        with _quiet(transformers):
            tokenizer = _load_tokenizer(transformers, self.folder / TOKENIZER)
            try:
                network = _load_network(transformers, self.folder / ENCODER, self.dtype)
                network.to(self.device)
                return [
                    {"prompt_embeds": _embed(network, *_tokens(tokenizer, text, self.device))}
                    for text in prompts
                ]
            finally:
                network = None
                gc.collect()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()


def clean(text: str) -> str:
    """The text as the model was trained on it: entities resolved twice, single spaces."""
    if find_spec("ftfy"):
        import ftfy

        text = ftfy.fix_text(text)
    return " ".join(html.unescape(html.unescape(text)).split())


@torch.inference_mode()
def _embed(network: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """(1, L) token ids and mask to (1, L, D) on the CPU."""
    hidden = network(ids, mask).last_hidden_state
    return hidden.masked_fill(mask[..., None] == 0, 0).cpu()


def _tokens(tokenizer: Any, text: str, device: torch.device) -> tuple[Tensor, Tensor]:
    tokens = tokenizer(
        [clean(text)],
        padding="max_length",
        max_length=MAX_LENGTH,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return tokens.input_ids.to(device), tokens.attention_mask.to(device)


def _load_tokenizer(transformers: Any, folder: Path) -> Any:
    with as_engine_error(folder):
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _load_network(transformers: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The network on the CPU; transformers would leave missing weights random."""
    with as_engine_error(folder):
        network, report = transformers.UMT5EncoderModel.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are an error here, which names them
            output_loading_info=True,
        )
        check_report(folder, "UMT5EncoderModel", report)
        return network.eval().requires_grad_(False)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise EngineError(
            "the text encoder runs through transformers: pip install 'dtg-restore[wan]', or give "
            "--prompt-embeds a file made elsewhere"
        ) from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Neither warnings nor progress bars: what matters is checked and raised here."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _identity(folder: Path, dtype: torch.dtype) -> str:
    """Of everything that changes the result; weights by size and time of change, as they are
    gigabytes, other files by content."""
    found = hashlib.sha256(f"umt5 {MAX_LENGTH} {dtype} ftfy={bool(find_spec('ftfy'))}".encode())
    files = (path for part in (TOKENIZER, ENCODER) for path in (folder / part).glob("*"))
    with as_engine_error(folder):
        for file in sorted(path for path in files if path.is_file()):
            found.update(f"\n{file.relative_to(folder)} {_content(file)}".encode())
    return found.hexdigest()


def _content(file: Path) -> str:
    if file.suffix in WEIGHTS:
        facts = file.stat()
        return f"{facts.st_size} {facts.st_mtime_ns}"
    return hashlib.sha256(file.read_bytes()).hexdigest()
