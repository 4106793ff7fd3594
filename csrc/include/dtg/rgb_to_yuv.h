// RGB (3, H, W) fp32, clamped to [0, 1], to planes of YUV code values.
#pragma once

#include "dtg/yuv.h"

namespace dtg {

struct ToYuv {
    float k_r, k_g, k_b, y_gain, y_offset, cb_gain, cr_gain, middle, peak;
};

struct RgbPicture {
    const float* data;
    std::int64_t channel_stride, row_stride;  // in values
};

// y, cb, cr: contiguous, overlapping nothing.  Rounded to the nearest, ties to even; chroma lies
// between two rows and on the left of two columns.  The result does not depend on num_threads.
void rgb_to_yuv(const RgbPicture& rgb, const YuvLayout& layout, const ToYuv& m, void* y, void* cb,
                void* cr, int num_threads);

}  // namespace dtg
