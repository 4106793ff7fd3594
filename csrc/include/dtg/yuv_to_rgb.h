// Planes of YUV code values to RGB (3, H, W) fp32 in [0, 1].
#pragma once

#include "dtg/yuv.h"

namespace dtg {

struct ToRgb {
    float y_offset, y_scale, middle, red_cr, green_cb, green_cr, blue_cb;
};

// A chroma sample lies between two rows where chroma is subsampled, and on the left of two columns,
// or between them where `centred`.  rgb may not overlap the planes.  The result does not depend on
// num_threads.
void yuv_to_rgb(const YuvPlane& y, const YuvPlane& cb, const YuvPlane& cr, const YuvLayout& layout,
                bool centred, const ToRgb& m, float* rgb, int num_threads);

}  // namespace dtg
