#include "dtg/rgb_to_yuv.h"

#include <algorithm>
#include <vector>

namespace dtg {
namespace {

constexpr std::int64_t kValues = 1 << 16;  // luma samples per parallel task

struct Job {
    RgbPicture rgb;
    YuvLayout layout;
    ToYuv m;
    void *y, *cb, *cr;
};

DTG_INLINE float unit(float v) {
    v = v > 0.0f ? v : 0.0f;
    return v < 1.0f ? v : 1.0f;
}

// To the nearest, ties to even: the sum has no bits left for a fraction.
DTG_INLINE std::int32_t code(float v, float peak) {
    constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
    v = v > 0.0f ? v : 0.0f;
    v = v < peak ? v : peak;
    return static_cast<std::int32_t>((v + kShift) - kShift);
}

// Row y of the picture: luma to its plane, chroma of full size and not rounded to cb and cr.
template <class Sample>
DTG_INLINE void picture_row(const Job& job, std::int64_t y, float* __restrict cb,
                            float* __restrict cr) {
    const std::int64_t width = job.layout.width;
    const float* __restrict red = job.rgb.data + y * job.rgb.row_stride;
    const float* __restrict green = red + job.rgb.channel_stride;
    const float* __restrict blue = green + job.rgb.channel_stride;
    Sample* const __restrict out = static_cast<Sample*>(job.y) + y * width;
    const ToYuv m = job.m;
    for (std::int64_t i = 0; i < width; ++i) {
        const float r = unit(red[i]), g = unit(green[i]), b = unit(blue[i]);
        const float luma = m.k_r * r + m.k_g * g + m.k_b * b;
        out[i] = static_cast<Sample>(code(luma * m.y_gain + m.y_offset, m.peak));
        cb[i] = (b - luma) * m.cb_gain + m.middle;
        cr[i] = (r - luma) * m.cr_gain + m.middle;
    }
}

DTG_INLINE void average(float* __restrict row, const float* __restrict next, std::int64_t width) {
    for (std::int64_t i = 0; i < width; ++i) row[i] = (row[i] + next[i]) * 0.5f;
}

// `row` has a value of margin on both sides.
template <class Sample>
DTG_INLINE void chroma_row(const Job& job, float* __restrict row, Sample* __restrict out) {
    const std::int64_t width = job.layout.chroma_width();
    const float peak = job.m.peak;
    if (!job.layout.shift_x) {
        for (std::int64_t i = 0; i < width; ++i) out[i] = static_cast<Sample>(code(row[i], peak));
        return;
    }
    row[-1] = row[0];
    row[job.layout.width] = row[job.layout.width - 1];
    for (std::int64_t i = 0; i < width; ++i) {
        const float v = (row[2 * i - 1] + 2.0f * row[2 * i] + row[2 * i + 1]) * 0.25f;
        out[i] = static_cast<Sample>(code(v, peak));
    }
}

// `begin` and `end` count rows of chroma.
template <class Sample>
DTG_INLINE void convert_rows(const Job& job, std::int64_t begin, std::int64_t end, float* scratch) {
    const std::int64_t width = job.layout.width, padded = width + 2;
    float* const cb = scratch + 1;
    float* const cr = cb + padded;
    float* const next_cb = cr + padded;
    float* const next_cr = next_cb + padded;
    for (std::int64_t c = begin; c < end; ++c) {
        const std::int64_t y = c << job.layout.shift_y;
        picture_row<Sample>(job, y, cb, cr);
        if (job.layout.shift_y && y + 1 < job.layout.height) {
            picture_row<Sample>(job, y + 1, next_cb, next_cr);
            average(cb, next_cb, width);
            average(cr, next_cr, width);
        }
        const std::int64_t place = c * job.layout.chroma_width();
        chroma_row(job, cb, static_cast<Sample*>(job.cb) + place);
        chroma_row(job, cr, static_cast<Sample*>(job.cr) + place);
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

void rgb_to_yuv(const RgbPicture& rgb, const YuvLayout& layout, const ToYuv& m, void* y, void* cb,
                void* cr, int num_threads) {
    if (layout.height * layout.width == 0) return;
    const Job job{rgb, layout, m, y, cb, cr};
    const auto convert = layout.wide ? convert_words : convert_bytes;
    const std::int64_t rows = layout.chroma_height();
    const std::int64_t per_task = std::max<std::int64_t>(1, (kValues / layout.width) >> 1);
    const std::int64_t num_tasks = (rows + per_task - 1) / per_task;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, num_tasks));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t task = 0; task < num_tasks; ++task) {
        std::vector<float> scratch(static_cast<std::size_t>(4 * (layout.width + 2)));
        const std::int64_t begin = task * per_task;
        convert(job, begin, std::min(begin + per_task, rows), scratch.data());
    }
}

}  // namespace dtg
