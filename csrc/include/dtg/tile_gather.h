// The tiles of a state, one after the other.
#pragma once

#include "dtg/tiles.h"

namespace dtg {

// x: (C, T, H, W); out: `repeat` times (N, C, T, h, w), fp32.  All tiles lie within the state.
void tile_gather(const float* x, const Tiles& tiles, std::int64_t repeat, float* out,
                 int num_threads);

}  // namespace dtg
