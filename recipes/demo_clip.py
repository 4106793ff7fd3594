"""Makes the demo clip: a camera over a coffee table, a photograph slid across it, then damage.

    python recipes/demo_clip.py assets/demo.mp4 --clean out/demo_clean.mkv --overwrite

The pictures come with scikit-image: `coffee` by Rachel Michetti and `chelsea` by Stefan van der
Walt, both CC0.  The damage is that of a weak video generator: a smooth warp that changes from
frame to frame, blur, noise and low-rate H.264.  Same seed, same bytes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from scipy import ndimage
from skimage import data

from dtg_restore.engine.media import open_writer
from dtg_restore.engine.types import ColourTags

WIDTH, HEIGHT, NUM_FRAMES = 192, 128, 48
FPS = Fraction(24)
SUPERSAMPLING = 3
PRINT_SIZE = np.array((164.0, 119.0))  # of the photograph with its border, in table pixels
BORDER = 6.5


def smooth_step(s: float) -> float:
    return s * s * (3 - 2 * s)


def camera(s: float) -> tuple[np.ndarray, float, float]:
    """Centre in table pixels, angle in radians and table pixels per output pixel at time s."""
    ease = smooth_step(s)
    shake = np.array((np.sin(9.1 * s + 0.4), np.sin(11.7 * s + 1.9))) * 1.5
    centre = np.array((310.0, 205.0)) + ease * np.array((36.0, 22.0)) + shake
    angle = 0.06 * np.sin(4.2 * s - 0.5)
    return centre, angle, (400 - 60 * ease) / WIDTH


def photograph(s: float) -> tuple[np.ndarray, float]:
    """Centre in table pixels and angle of the photograph on the table at time s."""
    ease = smooth_step(min(1.0, s * 1.25))
    centre = np.array((575.0, 375.0)) + ease * np.array((-138.0, -108.0))
    return centre, -0.75 + 0.5 * ease


def rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Turn points (..., 2) = (x, y)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array(((cosine, sine), (-sine, cosine)))


def sample(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values (..., 3) of a picture (H, W, 3) at points (..., 2) = (x, y), cubic."""
    rows_columns = np.moveaxis(points[..., ::-1], -1, 0)
    channels = [
        ndimage.map_coordinates(picture[..., c], rows_columns, order=3, mode="mirror")
        for c in range(3)
    ]
    return np.stack(channels, -1)


def output_grid(scale: int) -> np.ndarray:
    """Pixel centres (H, W, 2) = (x, y) of the output, relative to its middle."""
    x = (np.arange(WIDTH * scale) + 0.5) / scale - WIDTH / 2
    y = (np.arange(HEIGHT * scale) + 0.5) / scale - HEIGHT / 2
    return np.stack(np.meshgrid(x, y), -1)


def render(s: float, table: np.ndarray, print_picture: np.ndarray) -> np.ndarray:
    """Clean frame (HEIGHT, WIDTH, 3) in [0, 1] at time s in [0, 1]."""
    centre, angle, zoom = camera(s)
    points = rotate(output_grid(SUPERSAMPLING) * zoom, angle) + centre
    frame = sample(table, points)

    print_centre, print_angle = photograph(s)
    own = rotate(points - print_centre, -print_angle)
    shadow = np.all(np.abs(own - (5, 6)) < PRINT_SIZE / 2, -1).astype(float)
    shadow = ndimage.gaussian_filter(shadow, 5 * SUPERSAMPLING / zoom)
    frame = frame * (1 - 0.6 * shadow[..., None])
    frame = put_photograph(frame, own, print_picture)

    blocks = frame.reshape(HEIGHT, SUPERSAMPLING, WIDTH, SUPERSAMPLING, 3)
    return blocks.mean((1, 3)).clip(0, 1)


def put_photograph(frame: np.ndarray, own: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Draw the print; `own` are its coordinates (H, W, 2) at every point of the frame."""
    paper = np.all(np.abs(own) < PRINT_SIZE / 2, -1)
    image = np.all(np.abs(own) < PRINT_SIZE / 2 - BORDER, -1)
    size = np.array((picture.shape[1], picture.shape[0]))
    at = (own / (PRINT_SIZE - 2 * BORDER) + 0.5) * size
    warm_light = np.array((1.0, 0.93, 0.82))  # the lamp over the table
    frame = frame.copy()
    frame[paper] = 0.93 * warm_light
    frame[image] = sample(picture, at[image]) * warm_light
    return frame


def clean_frames() -> list[np.ndarray]:
    """All frames before the damage."""
    table = data.coffee() / 255.0
    cat = data.chelsea()[10:, 10:430] / 255.0  # (290, 420, 3)
    # The print is smaller than the picture: remove what it could not show.
    cat = ndimage.gaussian_filter(cat, (1.2, 1.2, 0))
    return [render(i / (NUM_FRAMES - 1), table, cat) for i in range(NUM_FRAMES)]


def displacement(rng: np.random.Generator) -> np.ndarray:
    """Smooth random field (2, H, W) with unit standard deviation."""
    coarse = rng.standard_normal((2, 8, 12))
    fine = ndimage.zoom(coarse, (1, HEIGHT / 8, WIDTH / 12), order=3)
    return fine / fine.std()


def damage(frames: list[np.ndarray], seed: int, strength: float) -> Iterator[np.ndarray]:
    """Warp, blur and noise; the warp has a part that stays for some frames and one that boils."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[0:HEIGHT, 0:WIDTH]).astype(float)
    drift = displacement(rng)
    for frame in frames:
        drift = 0.8 * drift + 0.6 * displacement(rng)
        field = grid + strength * (0.6 * drift + 0.8 * displacement(rng))
        warped = sample(frame, np.moveaxis(field[::-1], 0, -1))
        blurred = ndimage.gaussian_filter(warped, (0.8, 0.8, 0))
        grain = ndimage.gaussian_filter(rng.standard_normal(frame.shape), (0.6, 0.6, 0))
        yield (blurred + 0.03 * grain).clip(0, 1)


def write_tone(path: Path) -> None:
    """A quiet chord as long as the clip, AAC, so that the demo shows audio being kept."""
    rate, block = 48000, 1024
    t = np.arange(round(NUM_FRAMES / FPS * rate)) / rate
    fade = np.minimum(1, np.minimum(t, t[-1] - t) / 0.3)
    chord = sum(np.sin(2 * np.pi * hertz * t) for hertz in (220.0, 277.2, 329.6))
    samples = (0.02 * fade * chord).astype(np.float32)
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        stream.bit_rate = 64000
        for start in range(0, len(samples), block):
            part = samples[None, start : start + block]
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write(path: str, frames: Iterator[np.ndarray], overwrite: bool, **settings: object) -> None:
    with open_writer(
        path,
        width=WIDTH,
        height=HEIGHT,
        fps=FPS,
        colour=ColourTags("bt601", primaries=6, transfer=6),
        overwrite=overwrite,
        **settings,
    ) as writer:
        for frame in frames:
            writer.write(torch.from_numpy(frame).permute(2, 0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="damaged clip, .mp4")
    parser.add_argument("--clean", help="also write the clip before the damage: .mkv or a folder")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--strength", type=float, default=1.0, help="of the warp, in pixels")
    parser.add_argument("--crf", type=int, default=27)
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()

    frames = clean_frames()
    if args.clean:
        write(args.clean, iter(frames), args.overwrite, codec="ffv1")
    with tempfile.TemporaryDirectory() as folder:
        tone = Path(folder) / "tone.m4a"
        write_tone(tone)
        damaged = damage(frames, args.seed, args.strength)
        write(args.output, damaged, args.overwrite, codec="h264", crf=args.crf, carry_from=tone)


if __name__ == "__main__":
    main()
