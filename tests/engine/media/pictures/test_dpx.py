"""DPX as other programs write it: its samples are exact, or it is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from dtg_restore.engine.errors import InputError
from dtg_restore.engine.media import open_reader, probe


def dpx(samples: np.ndarray, bits: int) -> bytes:
    """SMPTE 268M, big-endian, padded at the low end (method A)."""
    height, width, count = samples.shape
    header = bytearray(b"\xff" * 2048)
    struct.pack_into(">4sI8s", header, 0, b"SDPX", 2048, b"V2.0")
    struct.pack_into(">HHII", header, 768, 0, 1, width, height)
    element = {1: 6, 3: 50, 4: 51}[count]
    struct.pack_into(
        ">IIfIf4BHHIII", header, 780, 0, 0, 0, 0, 1, element, 2, 2, bits, 1, 0, 2048, 0, 0
    )
    rows = samples.reshape(height, -1)
    if bits == 12:
        return bytes(header) + (rows << 4).astype(">u2").tobytes()
    words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3))).reshape(height, -1, 3)
    shifts = (2, 12, 22) if count == 1 else (22, 12, 2)
    return (
        bytes(header)
        + sum(words[..., i] << s for i, s in enumerate(shifts)).astype(">u4").tobytes()
    )


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize(("count", "width"), [(3, 25), (4, 24), (4, 25), (4, 26), (1, 24), (1, 26)])
def test_dpx_of_others(tmp_path: Path, bits: int, count: int, width: int) -> None:
    """Exact, or refused where OpenImageIO loses the end of a row."""
    samples = np.random.default_rng(0).integers(0, 2**bits, (5, width, count))
    (tmp_path / "a_1.dpx").write_bytes(dpx(samples, bits))
    if bits == 10 and (count, width) in ((4, 25), (1, 26)):
        with pytest.raises(InputError, match="10 bits in rows whose end is read wrong"):
            probe(tmp_path / "a_1.dpx")
        return
    with open_reader(tmp_path / "a_1.dpx") as reader:
        frame, note = next(iter(reader)), reader.take_note(0)
    code = (frame.permute(1, 2, 0).double() * (2**bits - 1)).round().numpy()
    assert np.array_equal(code, np.broadcast_to(samples[..., :3], (5, width, 3)))
    if count == 4:
        alpha = (note.channels["A"].double() * (2**bits - 1)).round().numpy()
        assert np.array_equal(alpha, samples[..., 3])
