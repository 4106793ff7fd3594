// The input of a causal 3-D convolution on a GPU: past frames, chunk and padding in one volume.
#pragma once

#include "dtg/storage.h"

namespace dtg::cuda {

struct ConvInput {
    // Of the `front` frames before the chunk the last `past_frames` are given, the others are zero.
    std::int64_t batch, front, past_frames, frames;
    std::int64_t height, width, channels;
    std::int64_t top, bottom, left, right;  // places of zeros around each frame
};

// out (batch, front + frames, top + height + bottom, left + width + right, channels) from past
// (batch, past_frames, height, width, channels) and chunk (batch, frames, height, width, channels):
// channels last, everything of one dtype.  past may be null where past_frames is 0.  out may not
// overlap the inputs.
//
// All addresses are on the current device; one launch on `stream` (a cudaStream_t).  Throws
// std::runtime_error where the launch fails.
void causal_conv3d(const void* past, const void* chunk, void* out, const ConvInput& shape,
                   Dtype dtype, void* stream);

}  // namespace dtg::cuda
