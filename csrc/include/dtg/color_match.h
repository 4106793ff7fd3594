// Coarse colours of one clip carried over to another, frame by frame.
#pragma once

#include <cstdint>

namespace dtg {

// (T, 3, H, W) fp32 whose rows are contiguous; strides in values.
struct ClipView {
    const float* data;
    std::int64_t frame_stride, channel_stride, row_stride;
    const float* row(std::int64_t plane, std::int64_t y) const {
        return data + plane / 3 * frame_stride + plane % 3 * channel_stride + y * row_stride;
    }
};

struct ClipShape {
    std::int64_t num_frames, height, width;
    std::int64_t planes() const { return num_frames * 3; }
};

// out, contiguous and overlapping neither clip: x + L (r - x), with L the low-pass of five levels
// of the a-trous pyramid.  The result does not depend on num_threads.
void color_match_wavelet(const ClipView& x, const ClipView& r, const ClipShape& shape, float* out,
                         int num_threads);

// The same with mean and standard deviation of every plane: x's deviation counts as at least
// least_std.
void color_match_adain(const ClipView& x, const ClipView& r, const ClipShape& shape,
                       double least_std, float* out, int num_threads);

}  // namespace dtg
