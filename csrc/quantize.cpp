#include "dtg/quantize.h"

#include <algorithm>
#include <cmath>

#include "dtg/multiversion.h"

namespace dtg {
namespace {

constexpr std::int64_t kBlock = 1 << 15;  // values per parallel task
constexpr int kLanes = 64;                // extremes that are followed side by side

struct Range {
    float low, high;
};

template <class V>
DTG_INLINE Range range_of(const void* from, std::int64_t begin, std::int64_t end) {
    const auto* __restrict x = static_cast<const typename V::Storage*>(from);
    float low[kLanes] = {}, high[kLanes] = {};
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const float v = V::load(x[i + lane]);
            low[lane] = v < low[lane] ? v : low[lane];
            high[lane] = v > high[lane] ? v : high[lane];
        }
    }
    for (; i < end; ++i) {
        low[0] = std::min(low[0], V::load(x[i]));
        high[0] = std::max(high[0], V::load(x[i]));
    }
    return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

template <class V>
DTG_INLINE void round_range(const void* from, std::uint8_t* __restrict out, std::int64_t begin,
                            std::int64_t end, float inverse, float zero) {
    const auto* __restrict x = static_cast<const typename V::Storage*>(from);
    for (std::int64_t i = begin; i < end; ++i) {
        float v = V::load(x[i]) * inverse + zero;
        v = v > 0.0f ? v : 0.0f;
        v = v < 255.0f ? v : 255.0f;
        // Adding 1.5 * 2^23 leaves the nearest whole number in the last bits.
        out[i] = static_cast<std::uint8_t>(to_bits(v + 12582912.0f));
    }
}

DTG_MULTIVERSION Range range_float32(const void* x, std::int64_t begin, std::int64_t end) {
    return range_of<Float32>(x, begin, end);
}

DTG_MULTIVERSION Range range_bfloat16(const void* x, std::int64_t begin, std::int64_t end) {
    return range_of<BFloat16>(x, begin, end);
}

DTG_MULTIVERSION void round_float32(const void* x, std::uint8_t* out, std::int64_t begin,
                                    std::int64_t end, float inverse, float zero) {
    round_range<Float32>(x, out, begin, end, inverse, zero);
}

DTG_MULTIVERSION void round_bfloat16(const void* x, std::uint8_t* out, std::int64_t begin,
                                     std::int64_t end, float inverse, float zero) {
    round_range<BFloat16>(x, out, begin, end, inverse, zero);
}

}  // namespace

Quantization quantize(const void* x, std::uint8_t* out, std::int64_t num, Dtype dtype,
                      int num_threads) {
    const bool half = dtype == Dtype::kBFloat16;
    const std::int64_t blocks = (num + kBlock - 1) / kBlock;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, blocks));
    (void)threads;  // unused where there is no OpenMP
    float low = 0.0f, high = 0.0f;
#pragma omp parallel for num_threads(threads) reduction(min : low) reduction(max : high) \
    if (threads > 1)
    for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t end = std::min((block + 1) * kBlock, num);
        const Range found =
            half ? range_bfloat16(x, block * kBlock, end) : range_float32(x, block * kBlock, end);
        low = std::min(low, found.low);
        high = std::max(high, found.high);
    }
    const float step = std::max((high - low) / 255.0f, 1e-30f);
    const float zero = std::nearbyint(-low / step), inverse = 1.0f / step;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t end = std::min((block + 1) * kBlock, num);
        (half ? round_bfloat16 : round_float32)(x, out, block * kBlock, end, inverse, zero);
    }
    return {step, static_cast<int>(zero)};
}

}  // namespace dtg
