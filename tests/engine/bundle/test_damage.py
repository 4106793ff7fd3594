"""What is damaged of a bundle, in a sentence each."""

from __future__ import annotations

from pathlib import Path

from dtg_restore.engine.bundle.damage import damage
from dtg_restore.engine.bundle.hashes import file_sha256
from dtg_restore.engine.bundle.manifest import FileFacts, Manifest


def test_every_file_is_compared(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx", "c.onnx"):
        (tmp_path / name).write_bytes(b"graph")
    files = {p.name: FileFacts(file_sha256(p), 5) for p in sorted(tmp_path.iterdir())}
    manifest = Manifest("0", "onnx", "cpu", "fp32", {}, {}, {}, {}, files)
    assert damage(tmp_path, manifest) == []
    (tmp_path / "a.onnx").write_bytes(b"grapH")
    (tmp_path / "b.onnx").write_bytes(b"gra")
    (tmp_path / "c.onnx").unlink()
    assert damage(tmp_path, manifest) == [
        "a.onnx is damaged: its SHA-256 differs",
        "b.onnx has 3 bytes, not 5",
        "c.onnx is missing",
    ]
