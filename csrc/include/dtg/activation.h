// Smooth activations in fp32, written out so that the compiler vectorises loops over them: the
// library's exponential is a scalar call.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dtg/multiversion.h"
#include "dtg/storage.h"

namespace dtg {

// x within [-87, 87], whose exponentials are normal numbers; nan becomes one of the ends.  On bits, as
// the compiler makes branches of comparisons of floats, and computes all of them.
DTG_INLINE float limited(float x) {
    constexpr std::uint32_t kMagnitude = 0x7fffffffu, kLimit = 0x42ae0000u;  // 87
    const std::uint32_t bits = to_bits(x);
    return from_bits(std::min(bits & kMagnitude, kLimit) | (bits & ~kMagnitude));
}

// exp(x), to 2e-7 of its value, for x within its limits.
DTG_INLINE float exp_of(float x) {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    x = limited(x);
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
