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

// Rows are handled some at a time, so that the sums of one need not wait for those of another, and in
// steps of so many channels: they may be as short as that, and loops of a known length need nothing
// before and after them.
constexpr int kRows = 16, kStep = 16;

// 1 / sqrt(mean square + eps) of `num` rows, at most kRows, whose starts are `stride` apart.
DTG_INLINE void inverse_norms(const float* rows, std::int64_t stride, int num,
                              std::int64_t channels, float eps, float* __restrict inverse) {
    float sums[kRows][kStep] = {};
    for (int r = 0; r < num; ++r) {
        const float* __restrict row = rows + r * stride;
        std::int64_t i = 0;
        for (; i + kStep <= channels; i += kStep) {
            for (int lane = 0; lane < kStep; ++lane) sums[r][lane] += row[i + lane] * row[i + lane];
        }
        for (int lane = 0; i + lane < channels; ++lane) {
            sums[r][lane] += row[i + lane] * row[i + lane];
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int lane = 0; lane < 8; ++lane) sums[r][lane] += sums[r][lane + 8];
    }
    for (int r = 0; r < kRows; ++r) {
        for (int lane = 0; lane < 4; ++lane) sums[r][lane] += sums[r][lane + 4];
    }
    for (int r = 0; r < kRows; ++r) {
        inverse[r] = (sums[r][0] + sums[r][2]) + (sums[r][1] + sums[r][3]);
    }
    const float share = 1.0f / static_cast<float>(channels);
    for (int r = 0; r < kRows; ++r) inverse[r] = 1.0f / std::sqrt(inverse[r] * share + eps);
}

template <bool kWithSilu>
DTG_INLINE float normed(float x, float inverse, float gamma) {
    const float y = x * inverse * gamma;
    return kWithSilu ? silu(y) : y;
}

template <class T, bool kWithSilu>
DTG_INLINE void scale_row(const float* __restrict row, const float* __restrict gamma,
                          float inverse, typename T::Storage* __restrict out,
                          std::int64_t channels) {
    std::int64_t i = 0;
    for (; i + kStep <= channels; i += kStep) {
        for (int lane = 0; lane < kStep; ++lane) {
            out[i + lane] = T::store(normed<kWithSilu>(row[i + lane], inverse, gamma[i + lane]));
        }
    }
    for (; i < channels; ++i) out[i] = T::store(normed<kWithSilu>(row[i], inverse, gamma[i]));
}

}  // namespace dtg
