"""Compiled encoders and decoders in the place of a codec's network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..codecs.base import Memory
from ..runtimes.base import Engine


class EngineVae:
    """The network of a codec on tiles of one size; see `engine.codecs.base.Vae`.

    Parameters
    ----------
    engines : by the names of components, see `engine.bundle.manifest`.
    size : (height, width) of a tile in pixels.
    """

    def __init__(self, engines: Mapping[str, Engine], size: tuple[int, int]):
        self._engines, self._size = engines, "{}x{}".format(*size)

    def encode(self, pixels: Tensor, memory: Memory) -> Tensor:
        """The next slice of a stream to its latent frame."""
        return self._run("encode", "pixels", "z", pixels, memory)

    def decode(self, z: Tensor, memory: Memory) -> Tensor:
        """The next latent frame of a stream to its pixels."""
        return self._run("decode", "z", "pixels", z, memory)

    def _run(self, way: str, x_name: str, y_name: str, x: Tensor, memory: Memory) -> Tensor:
        place = "next" if memory else "first"
        outputs = self._engines[f"{way}_{place}.{self._size}"]({x_name: x, **memory})
        y = outputs.pop(y_name)
        for name, cache in outputs.items():  # cache_i of a slice is past_i of the one after it
            memory[name.replace("cache", "past")] = cache
        return y
