"""Tables of what files keep of frames and of what lies beside them."""

from __future__ import annotations

from typing import Any

from .markdown import markdown


def video(result: dict[str, Any]) -> str:
    """Containers in which all is the same share a row."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for row in result["rows"]:
        drawn = (
            row["codec"],
            f"{row['bits']}, {row['bits_read']}",
            row["pix_fmt"].removesuffix("le"),
            ", ".join(row["tags_lost"]) or "none",
            _times(row),
            "kept" if row["hdr"] else "lost",
            _channels(row["conversion"]),
            f"{row['codec_error']:g}",
            _channels(row["whole"]),
        )
        shared.setdefault(drawn, []).append(row["suffix"])
    rows = [[row[0], " ".join(suffixes), *row[1:]] for row, suffixes in shared.items()]
    header = ["codec", "in", "bits written, read", "samples", "tags lost", "varying times"]
    header += ["HDR", "conversion R G B", "codec", "all R G B"]
    return markdown(header, rows)


def _times(row: dict[str, Any]) -> str:
    error = row["varying_error_ms"]
    if not row["rate_kept"]:
        return "rate changed"
    return "lost" if error is None else "exact" if error == 0 else f"to {error:.1f} ms"


def streams(result: dict[str, Any]) -> str:
    held = result["carried"]
    suffixes = list(next(iter(held.values())))
    rows = [[name, *(_yes(row[suffix]) for suffix in suffixes)] for name, row in held.items()]
    return markdown(["", *suffixes], rows)


def pictures(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['suffix']} {row['samples']}",
            str(row["bits_read"]),
            _channels(row["error"])
            if row["samples"].endswith("bit")
            else f"{max(row['error'].values()):.0g} of the light",
            *(_yes(row[name]) for name in ("beyond", "alpha", "depth", "author")),
        ]
        for row in result["pictures"]
    ]
    header = ["pictures", "bits read", "error R G B", "-0.5 ... 50", "alpha", "depth", "author"]
    return markdown(header, rows)


def _channels(values: dict[str, float]) -> str:
    return " ".join(f"{value:.1f}" for value in values.values())


def _yes(value: bool) -> str:
    return "yes" if value else ""
