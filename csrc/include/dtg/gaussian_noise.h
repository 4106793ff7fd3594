// Standard normal noise as a pure function of (seed, frame, channel, y, x).
#pragma once

#include <cstdint>

namespace dtg {

// The part of the endless noise field that is wanted.  Coordinates are absolute and may be
// negative; they are told apart modulo 2^32 (x: modulo 2^34).
struct NoiseWindow {
    std::int64_t start_frame, num_frames, channels, height, width, y0, x0;
};

// out: (channels, num_frames, height, width) fp32.  The result does not depend on num_threads.
void gaussian_noise(std::uint64_t seed, const NoiseWindow& window, float* out, int num_threads);

}  // namespace dtg
