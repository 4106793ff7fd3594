// The block transform of `mini`: 3 colours x 2 frames x 8 rows x 8 columns of pixels to 384
// channels, by an orthonormal change of colours and an orthonormal DCT in time, y and x.
#pragma once

#include <cstdint>

#include "dtg/tokens.h"

namespace dtg {

constexpr std::int64_t kPatchChannels = 384;

// Pixels (batch, 3, frames, height, width), all multiples of the block; the grid of blocks begins
// at the place `phase` (frame, row, column), 0 <= phase < size, and goes round cyclically.
struct PatchShape {
    std::int64_t batch, frames, height, width;
    std::int64_t phase[3];
};

// z = (transform(x) - shift) * scale per channel; shift and scale are (B, 384), or both null.
// z (batch, frames / 2, height / 8, width / 8, 384) may not overlap x.  The result does not depend
// on num_threads.
void patch_encode(const float* x, SampleRows shift, SampleRows scale, float* z,
                  const PatchShape& shape, int num_threads);

// x = inverse(z), or with `other`, of the shape of z, inverse(w0 z + w1 other + w2) per channel;
// weights is (B, 3, 384): w0, w1, w2.  other and weights are both given or both null.
void patch_decode(const float* z, const float* other, SampleRows weights, float* x,
                  const PatchShape& shape, int num_threads);

}  // namespace dtg
