#include "dtg/color_match.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "dtg/multiversion.h"

namespace dtg {
namespace {

constexpr std::int64_t kMargin = 1 + 2 + 4 + 8 + 16;
constexpr std::int64_t kBand = 64;  // columns that are filtered together

// One level of `num` values at `v`, in place but kRadius values further down: taps (1, 2, 1) / 4,
// kRadius apart.  The margins on both sides are filled.
template <std::int64_t kRadius>
DTG_INLINE float* smooth(float* v, std::int64_t num) {
    float* const out = v - kRadius;
    for (std::int64_t i = 0; i < num; ++i) {
        out[i] = 0.25f * (out[i] + out[i + 2 * kRadius]) + 0.5f * out[i + kRadius];
    }
    return out;
}

// The first and the last kWidth of `num` values are repeated kTimes on their side.
template <std::int64_t kTimes, std::int64_t kWidth>
DTG_INLINE void repeat_ends(float* v, std::int64_t num) {
    for (std::int64_t t = 0; t < kTimes; ++t) {
        std::copy(v, v + kWidth, v - (t + 1) * kWidth);
        std::copy(v + num - kWidth, v + num, v + num + t * kWidth);
    }
}

template <std::int64_t kRadius, std::int64_t kWidth>
DTG_INLINE float* level(float* v, std::int64_t num) {
    repeat_ends<kRadius, kWidth>(v, num);
    return smooth<kRadius * kWidth>(v, num);
}

// All levels along places that hold kWidth values each: num in all, kMargin places after the
// beginning of scratch; the result is at its beginning.
template <std::int64_t kWidth>
DTG_INLINE void low_pass(float* scratch, std::int64_t num) {
    float* v = scratch + kMargin * kWidth;
    v = level<1, kWidth>(v, num);
    v = level<2, kWidth>(v, num);
    v = level<4, kWidth>(v, num);
    v = level<8, kWidth>(v, num);
    level<16, kWidth>(v, num);
}

DTG_MULTIVERSION void filter_row(const float* x, const float* r, float* out, std::int64_t width,
                                 float* __restrict scratch) {
    float* __restrict const inside = scratch + kMargin;
    for (std::int64_t i = 0; i < width; ++i) inside[i] = r[i] - x[i];
    low_pass<1>(scratch, width);
    std::copy(scratch, scratch + width, out);
}

// Columns begin .. begin + columns - 1 of a plane whose rows are filtered, in `out`.
DTG_MULTIVERSION void filter_columns(const ClipView& x, std::int64_t plane, const ClipShape& shape,
                                     std::int64_t begin, float* out, float* __restrict scratch) {
    const std::int64_t columns = std::min(kBand, shape.width - begin);
    const std::int64_t height = shape.height;
    float* const __restrict band = out + plane * height * shape.width + begin;
    for (std::int64_t y = 0; y < height; ++y) {
        const float* from = band + y * shape.width;
        std::copy(from, from + columns, scratch + (kMargin + y) * kBand);
    }
    low_pass<kBand>(scratch, height * kBand);
    for (std::int64_t y = 0; y < height; ++y) {
        const float* const x_row = x.row(plane, y) + begin;
        float* const __restrict row = band + y * shape.width;
        const float* const low = scratch + y * kBand;
        for (std::int64_t i = 0; i < columns; ++i) row[i] = x_row[i] + low[i];
    }
}

struct Moments {
    double mean, variance;
};

// Sums in this many lanes, whatever the width of the registers: every bit is that of any other
// instruction set.
constexpr int kLanes = 16;

DTG_MULTIVERSION Moments moments(const ClipView& clip, std::int64_t plane, const ClipShape& shape) {
    double sums[kLanes] = {}, squares[kLanes] = {};
    for (std::int64_t y = 0; y < shape.height; ++y) {
        const float* const row = clip.row(plane, y);
        std::int64_t i = 0;
        for (; i + kLanes <= shape.width; i += kLanes) {
            for (int lane = 0; lane < kLanes; ++lane) {
                const double v = row[i + lane];
                sums[lane] += v;
                squares[lane] += v * v;
            }
        }
        for (int lane = 0; i + lane < shape.width; ++lane) {
            const double v = row[i + lane];
            sums[lane] += v;
            squares[lane] += v * v;
        }
    }
    double sum = 0.0, square = 0.0;
    for (int lane = 0; lane < kLanes; ++lane) {
        sum += sums[lane];
        square += squares[lane];
    }
    const double num = static_cast<double>(shape.height * shape.width), mean = sum / num;
    return {mean, std::max(0.0, square / num - mean * mean)};
}

DTG_MULTIVERSION void transfer(const float* x, float* __restrict out, std::int64_t num,
                               float center, float gain, float shift) {
    for (std::int64_t i = 0; i < num; ++i) out[i] = x[i] + ((x[i] - center) * gain + shift);
}

// Calls work(item, scratch) for all items, in parallel.
template <class Work>
void for_all(std::int64_t num, std::int64_t scratch_size, int num_threads, Work work) {
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, num));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> scratch(static_cast<std::size_t>(scratch_size));
#pragma omp for schedule(static)
        for (std::int64_t item = 0; item < num; ++item) work(item, scratch.data());
    }
}

}  // namespace

void color_match_wavelet(const ClipView& x, const ClipView& r, const ClipShape& shape, float* out,
                         int num_threads) {
    const std::int64_t height = shape.height, width = shape.width;
    if (shape.planes() * height * width == 0) return;
    for_all(shape.planes() * height, width + 2 * kMargin, num_threads,
            [&](std::int64_t row, float* scratch) {
                const std::int64_t plane = row / height, y = row % height;
                filter_row(x.row(plane, y), r.row(plane, y), out + row * width, width, scratch);
            });
    const std::int64_t bands = (width + kBand - 1) / kBand;
    for_all(shape.planes() * bands, (height + 2 * kMargin) * kBand, num_threads,
            [&](std::int64_t item, float* scratch) {
                filter_columns(x, item / bands, shape, item % bands * kBand, out, scratch);
            });
}

void color_match_adain(const ClipView& x, const ClipView& r, const ClipShape& shape,
                       double least_std, float* out, int num_threads) {
    const std::int64_t height = shape.height, width = shape.width;
    if (shape.planes() * height * width == 0) return;
    for_all(shape.planes(), 0, num_threads, [&](std::int64_t plane, float*) {
        const Moments from = moments(x, plane, shape), to = moments(r, plane, shape);
        const double gain =
            from.variance == to.variance
                ? 1.0
                : std::sqrt(to.variance) / std::max(std::sqrt(from.variance), least_std);
        for (std::int64_t y = 0; y < height; ++y) {
            transfer(x.row(plane, y), out + (plane * height + y) * width, width,
                     static_cast<float>(from.mean), static_cast<float>(gain - 1.0),
                     static_cast<float>(to.mean - from.mean));
        }
    });
}

}  // namespace dtg
