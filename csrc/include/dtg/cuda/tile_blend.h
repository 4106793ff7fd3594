// Windowed overlap-add of tiles on a GPU.
#pragma once

#include "dtg/storage.h"

namespace dtg::cuda {

// The list of them has to fit into the shared memory of a block.
constexpr std::int64_t kMaxTiles = 2048;

struct Blend {
    std::int64_t num_tiles, planes;  // planes = C * T; num_tiles <= kMaxTiles
    int tile_height, tile_width, height, width;
};

// out (planes, height, width) fp32 = sum of window_y[n] * window_x[n] * tiles[n] over the tiles
// that cover a place, in the order of n: the same bits in every run.  tiles: (num_tiles, planes,
// tile_height, tile_width) of dtype.  window_y, window_x: (num_tiles, tile_height) and (num_tiles,
// tile_width) fp32, whose products sum to one at every place, as nothing is divided here.  origins:
// (num_tiles, 2) row and column of the first place of a tile; what lies outside of out is left out.
// A place without a tile is zero.
//
// All addresses are on the current device; one launch on `stream` (a cudaStream_t).  Throws
// std::runtime_error where the launch fails.
void tile_blend(const void* tiles, const std::int32_t* origins, const float* window_y,
                const float* window_x, float* out, const Blend& shape, Dtype dtype, void* stream);

}  // namespace dtg::cuda
