// out = silu(x / rms(x) * gamma) over rows of channels, the silu being optional.
#pragma once

#include <cmath>
#include <cstdint>

#include "dtg/activation.h"
#include "dtg/tokens.h"

namespace dtg {

// x, out: (rows, channels) of dtype (fp32 or bf16); gamma: (channels,).  out may not overlap the
// inputs.  The result does not depend on num_threads.
void rmsnorm_silu(const void* x, const float* gamma, void* out, std::int64_t rows,
                  std::int64_t channels, float eps, bool with_silu, Dtype dtype, int num_threads);

// Sixteen sums side by side: rows may be as short as 16 values.
DTG_INLINE float square_sum(const float* __restrict row, std::int64_t num) {
    constexpr int kSums = 16;
    float sums[kSums] = {};
    std::int64_t i = 0;
    for (; i + kSums <= num; i += kSums) {
        for (int lane = 0; lane < kSums; ++lane) sums[lane] += row[i + lane] * row[i + lane];
    }
    for (int lane = 0; i + lane < num; ++lane) sums[lane] += row[i + lane] * row[i + lane];
    for (int width = kSums / 2; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
    }
    return sums[0];
}

template <class T>
DTG_INLINE void rmsnorm_silu_row(const float* __restrict row, const float* __restrict gamma,
                                 float eps, bool with_silu, typename T::Storage* __restrict out,
                                 std::int64_t channels) {
    const float mean = square_sum(row, channels) / static_cast<float>(channels);
    const float inverse = 1.0f / std::sqrt(mean + eps);
    if (with_silu) {
        for (std::int64_t i = 0; i < channels; ++i) {
            out[i] = T::store(silu(row[i] * inverse * gamma[i]));
        }
        return;
    }
    for (std::int64_t i = 0; i < channels; ++i) out[i] = T::store(row[i] * inverse * gamma[i]);
}

}  // namespace dtg
