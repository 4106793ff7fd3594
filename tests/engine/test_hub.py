"""The hub without a network: its cache, its errors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtg_restore.engine import hub
from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.hub import fetch_model, is_hub_id, is_offline

pytest.importorskip("huggingface_hub")
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def asks_again() -> Iterator[None]:
    hub._fetch.cache_clear()
    yield
    hub._fetch.cache_clear()


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A model in a cache of the hub's own layout, under tmp_path."""
    model = tmp_path / "models--owner--name"
    snapshot = model / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(SHA)
    return snapshot


def in_a_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its environment when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


FETCH = "from dtg_restore.engine.hub import fetch_model; print(fetch_model({!r}))"
MAIN = "import sys; from dtg_restore.cli.main import main; sys.exit(main({!r}))"


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("owner/name", True),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", True),
        ("mini", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("./name", False),
        ("../name", False),
        ("owner/", False),
        ("owner/name\n", False),
    ],
)
def test_form_of_an_id(name: str, is_id: bool) -> None:
    assert is_hub_id(name) is is_id


@pytest.mark.parametrize(
    ("value", "offline"),
    [("1", True), ("TRUE", True), ("on", True), ("0", False), ("", False), (None, False)],
)
def test_offline(monkeypatch: pytest.MonkeyPatch, value: str | None, offline: bool) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert is_offline() is offline


def test_offline_finds_what_is_cached(snapshot: Path, tmp_path: Path) -> None:
    done = in_a_process(FETCH.format("owner/name"), HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert (done.stdout, done.stderr) == (f"{snapshot}\n", "")


def test_offline_is_an_error_for_what_is_not(snapshot: Path, tmp_path: Path) -> None:
    embed = ["embed", "owner/other", "-o", str(tmp_path / "e.safetensors"), "--offline"]
    done = in_a_process(MAIN.format(embed), HF_HUB_CACHE=str(tmp_path))
    assert done.returncode == 4 and done.stderr.count("\n") == 1
    assert "owner/other" in done.stderr and "offline" in done.stderr


def test_without_a_network_the_error_is_quick(snapshot: Path, tmp_path: Path) -> None:
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    embed = ["embed", "owner/other", "-o", str(tmp_path / "e.safetensors")]
    start = time.monotonic()
    done = in_a_process(MAIN.format(embed), HF_HUB_CACHE=str(tmp_path), **closed)
    assert time.monotonic() - start < 30
    assert done.returncode == 4 and done.stderr.count("\n") == 1
    assert "the hub does not answer" in done.stderr
    cached = in_a_process(FETCH.format("owner/name"), HF_HUB_CACHE=str(tmp_path), **closed)
    assert cached.stdout == f"{snapshot}\n"


class Download:
    """Stands for huggingface_hub's: counts its calls, then returns or raises `result`."""

    def __init__(self, result: str | Exception):
        self.result, self.calls = result, []

    def __call__(self, hub_id: str, **options: object) -> str:
        self.calls.append((hub_id, options))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def replace(result: str | Exception) -> Download:
        stand_in = Download(result)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in)
        return stand_in

    return replace


def test_the_hub_is_asked_once(download) -> None:
    stand_in = download("/folder")
    assert fetch_model("owner/name") == fetch_model("owner/name") == Path("/folder")
    ((hub_id, options),) = stand_in.calls
    assert hub_id == "owner/name" and options["local_files_only"] is False
    assert not any(pattern in ("*", "*.bin", "*.pth") for pattern in options["allow_patterns"])


def test_offline_set_in_the_process(download, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = download("/folder")
    fetch_model("owner/name")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # huggingface_hub is imported already
    fetch_model("owner/name")
    assert [options["local_files_only"] for _, options in stand_in.calls] == [False, True]


def named(name: str, text: str) -> Exception:
    return type(name, (Exception,), {})(text)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (named("RepositoryNotFoundError", "401 Client Error.\n\nlong"), "no such model"),
        (named("GatedRepoError", "403"), "licence"),
        (named("LocalEntryNotFoundError", "long"), "does not answer"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("two\n\nlines"), "two lines"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_errors_are_one_line(download, error: Exception, says: str) -> None:
    stand_in = download(error)
    for _ in range(2):  # a failure is not remembered
        with pytest.raises(EngineError) as raised:
            fetch_model("owner/name")
        assert says in str(raised.value) and "owner/name" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert len(stand_in.calls) == 2


def test_errors_have_the_names_of_the_hub() -> None:
    from huggingface_hub import errors

    assert all(hasattr(errors, name) for name in hub.REASONS)


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EngineError, match=r"pip install 'dtg-restore\[wan\]'"):
        fetch_model("owner/name")
