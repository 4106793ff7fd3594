// Overlap-add: out[y, x] is the sum over the tiles n that cover the place of
// window_y[n, y - y_n] window_x[n, x - x_n] tile[n, y - y_n, x - x_n].
#pragma once

#include "dtg/storage.h"
#include "dtg/tiles.h"

namespace dtg {

// values: (N, C, T, h, w) of dtype (fp32 or bf16); window_y: (N, h), window_x: (N, w); out:
// (C, T, H, W) fp32, zero where no tile is.  What lies outside of the state is cut off.  The sum
// runs in the order of the tiles, so the result does not depend on num_threads.
void tile_blend(const void* values, const Tiles& tiles, const float* window_y,
                const float* window_x, float* out, Dtype dtype, int num_threads);

}  // namespace dtg
