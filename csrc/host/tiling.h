// The grids of chunks and tiles, the windows that they are blended with, and reflection, as
// engine/tiling.py and engine/blend.py have them.
#pragma once

#include <cstdint>
#include <vector>

namespace dtg::host {

struct Chunk {
    std::int64_t index, start, stop;
};

// Chunks of `length` frames, `overlap` of them shared with the chunk before.
struct ChunkGrid {
    std::int64_t length, overlap;
    std::int64_t stride() const { return length - overlap; }
    std::vector<Chunk> chunks(std::int64_t num_frames) const;
};

struct Tile {
    std::int64_t y, x, height, width;
};

// The tiles of a frame, row by row; a side of `tile_...` of 0 is the whole side.
std::vector<Tile> tiles_of(std::int64_t height, std::int64_t width, std::int64_t tile_height,
                           std::int64_t tile_width, std::int64_t overlap, std::int64_t multiple);

// The windows of every tile in y (N, h) and in x (N, w); a tile's weights are their product.
struct Windows {
    std::vector<float> y, x;
};
Windows windows_of(const std::vector<Tile>& tiles, std::int64_t height, std::int64_t width);

// Indices 0 .. size-1, continued to `length` by reflection that does not repeat the ends.
std::vector<std::int64_t> reflect_index(std::int64_t size, std::int64_t length);

std::int64_t round_up(std::int64_t size, std::int64_t multiple);

}  // namespace dtg::host
