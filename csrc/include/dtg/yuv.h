// Pictures as planes of YUV code values: 8 bits in bytes, more in 16-bit words.
#pragma once

#include <cstdint>

#include "dtg/multiversion.h"

namespace dtg {

// Subsampling by 2^shift in x and in y, shifts of 0 or 1; odd sizes round up.
struct YuvLayout {
    std::int64_t height, width;
    int shift_x, shift_y;
    bool wide;  // 16-bit words
    std::int64_t chroma_height() const { return (height + shift_y) >> shift_y; }
    std::int64_t chroma_width() const { return (width + shift_x) >> shift_x; }
};

struct YuvPlane {
    const void* data;
    std::int64_t stride;  // from a row to the next, in samples
    template <class Sample>
    DTG_INLINE const Sample* row(std::int64_t y) const {
        return static_cast<const Sample*>(data) + y * stride;
    }
};

}  // namespace dtg
