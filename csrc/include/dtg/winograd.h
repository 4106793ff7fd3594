// The ways in and out of the Winograd form F(4 x 4, 3 x 3) of a convolution, for a run of tiles.
//
// A tile is 4 x 4 pixels of the output; tiles are counted row by row.  Frames are (T, H, W, C).
#pragma once

#include <cstdint>

#include "dtg/storage.h"

namespace dtg {

constexpr int kTile = 4, kWindow = 6, kPlaces = kWindow * kWindow;

// Tiles first .. first + num of every frame; what lies in between has `padded` >= channels values,
// zero beyond the channels.
struct TileRun {
    std::int64_t first, num, channels, padded;
};

// The frames before (may be none) and the new ones; each pixel counts as scale x scale of them.
struct WinogradSource {
    const float* past;
    const float* x;
    std::int64_t past_frames, frames, height, width, scale;
};

// B^T d B of every tile's window of 6 x 6 pixels, zero outside the frame: to `out`
// (past_frames + frames, num, 36, padded).
void winograd_input(const WinogradSource& source, const TileRun& run, float* out, int num_threads);

// What is done with A^T m A: + bias, + residual where given, and, where there is a gamma, the norm
// and silu of rmsnorm_silu.
struct WinogradResult {
    const float* bias;
    const float* residual;  // (T, H, W, O), or null
    const float* gamma;     // (O,), or null
    float* out;             // (T, H, W, O)
    std::int64_t frames, height, width;
    float eps;
};

// From m (frames, num, 36, padded) to the pixels of the run's tiles in `result.out`.
void winograd_output(const float* m, const TileRun& run, const WinogradResult& result,
                     int num_threads);

}  // namespace dtg
