// Smooth activations in fp32, written out so that the compiler vectorises loops over them: the
// library's exponential is a scalar call.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dtg/multiversion.h"
#include "dtg/storage.h"

namespace dtg {

// exp(x), to 2e-7 of its value; x is limited to [-87, 88], whose exponentials are normal numbers.
DTG_INLINE float exp_of(float x) {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    x = std::min(std::max(x, -87.0f), 88.0f);
    const float n = (x * 1.44269504f + kRound) - kRound;
    // x - n log(2), with log(2) in two parts of which the first times n is exact.
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float sum = 1.0f / 5040.0f;  // Taylor series, |r| <= log(2) / 2
    sum = sum * r + 1.0f / 720.0f;
    sum = sum * r + 1.0f / 120.0f;
    sum = sum * r + 1.0f / 24.0f;
    sum = sum * r + 1.0f / 6.0f;
    sum = sum * r + 0.5f;
    sum = (sum * r) * r + r + 1.0f;
    const std::int32_t exponent = static_cast<std::int32_t>(n) + 127;
    return sum * from_bits(static_cast<std::uint32_t>(exponent) << 23);
}

DTG_INLINE float silu(float x) { return x / (1.0f + exp_of(-x)); }

// x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), by way of tanh(u) = 2 / (1 + exp(-2 u)) - 1.
DTG_INLINE float gelu_tanh(float x) {
    const float twice = 1.59576912f * (x + 0.044715f * ((x * x) * x));
    return x / (1.0f + exp_of(-twice));
}

}  // namespace dtg
