#include "dtg/yuv_to_rgb.h"

#include <algorithm>
#include <vector>

namespace dtg {
namespace {

constexpr std::int64_t kValues = 1 << 16;  // luma samples per parallel task

struct Job {
    YuvPlane y, cb, cr;
    YuvLayout layout;
    bool centred;
    ToRgb m;
    float* rgb;
};

// All chroma arithmetic is exact: sums of samples of 16 bits over powers of two.
//
// `half`, a row of the plane's width with a sample of margin on both sides, takes what lies beside
// row `y` of the picture; the result, of the picture's width, is `out`.
template <class Sample>
DTG_INLINE void chroma_row(const Job& job, const YuvPlane& plane, std::int64_t y,
                           float* __restrict half, float* __restrict out) {
    const YuvLayout& layout = job.layout;
    const std::int64_t width = layout.chroma_width();
    const std::int64_t last = layout.chroma_height() - 1;
    const float middle = job.m.middle;
    float* const __restrict row = layout.shift_x ? half : out;
    const std::int64_t nearest = y >> layout.shift_y;
    const Sample* __restrict near = plane.row<Sample>(nearest);
    if (layout.shift_y) {
        const std::int64_t other = std::clamp<std::int64_t>(nearest + (y & 1 ? 1 : -1), 0, last);
        const Sample* far = plane.row<Sample>(other);
        for (std::int64_t i = 0; i < width; ++i) {
            row[i] = static_cast<float>(3 * int{near[i]} + int{far[i]}) * 0.25f - middle;
        }
    } else {
        for (std::int64_t i = 0; i < width; ++i) row[i] = static_cast<float>(near[i]) - middle;
    }
    if (!layout.shift_x) return;
    half[-1] = half[0];
    half[width] = half[width - 1];
    if (job.centred) {
        for (std::int64_t i = 0; i < width; ++i) {
            out[2 * i] = (half[i - 1] + 3.0f * half[i]) * 0.25f;
            out[2 * i + 1] = (3.0f * half[i] + half[i + 1]) * 0.25f;
        }
    } else {
        for (std::int64_t i = 0; i < width; ++i) {
            out[2 * i] = half[i];
            out[2 * i + 1] = (half[i] + half[i + 1]) * 0.5f;
        }
    }
}

DTG_INLINE float unit(float v) {
    v = v > 0.0f ? v : 0.0f;
    return v < 1.0f ? v : 1.0f;
}

template <class Sample>
DTG_INLINE void convert_rows(const Job& job, std::int64_t begin, std::int64_t end,
                             float* __restrict scratch) {
    const std::int64_t width = job.layout.width, padded = width + 4;
    const std::int64_t plane = job.layout.height * width;
    float* const half = scratch + 1;
    float* const __restrict cb = scratch + padded;
    float* const __restrict cr = scratch + 2 * padded;
    const ToRgb m = job.m;
    for (std::int64_t y = begin; y < end; ++y) {
        chroma_row<Sample>(job, job.cb, y, half, cb);
        chroma_row<Sample>(job, job.cr, y, half, cr);
        const Sample* __restrict luma_row = job.y.row<Sample>(y);
        float* const __restrict red = job.rgb + y * width;
        float* const __restrict green = red + plane;
        float* const __restrict blue = green + plane;
        for (std::int64_t i = 0; i < width; ++i) {
            const float luma = (static_cast<float>(luma_row[i]) - m.y_offset) * m.y_scale;
            red[i] = unit(luma + m.red_cr * cr[i]);
            green[i] = unit(luma - m.green_cb * cb[i] - m.green_cr * cr[i]);
            blue[i] = unit(luma + m.blue_cb * cb[i]);
        }
    }
}

// One plain function per type: target_clones does not apply to templates.
DTG_MULTIVERSION void convert_bytes(const Job& job, std::int64_t begin, std::int64_t end,
                                    float* scratch) {
    convert_rows<std::uint8_t>(job, begin, end, scratch);
}

DTG_MULTIVERSION void convert_words(const Job& job, std::int64_t begin, std::int64_t end,
                                    float* scratch) {
    convert_rows<std::uint16_t>(job, begin, end, scratch);
}

}  // namespace

void yuv_to_rgb(const YuvPlane& y, const YuvPlane& cb, const YuvPlane& cr, const YuvLayout& layout,
                bool centred, const ToRgb& m, float* rgb, int num_threads) {
    if (layout.height * layout.width == 0) return;
    const Job job{y, cb, cr, layout, centred, m, rgb};
    const auto convert = layout.wide ? convert_words : convert_bytes;
    const std::int64_t per_task = std::max<std::int64_t>(1, kValues / layout.width);
    const std::int64_t num_tasks = (layout.height + per_task - 1) / per_task;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, num_tasks));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t task = 0; task < num_tasks; ++task) {
        std::vector<float> scratch(static_cast<std::size_t>(3 * (layout.width + 4)));
        const std::int64_t begin = task * per_task;
        convert(job, begin, std::min(begin + per_task, layout.height), scratch.data());
    }
}

}  // namespace dtg
