// How values lie in memory; all arithmetic is in fp32.
#pragma once

#include <cstdint>
#include <cstring>

#include "dtg/multiversion.h"

namespace dtg {

enum class Dtype : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

DTG_INLINE float from_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

DTG_INLINE std::uint32_t to_bits(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct Float32 {
    using Storage = float;
    static DTG_INLINE float load(Storage v) { return v; }
    static DTG_INLINE Storage store(float v) { return v; }
};

struct BFloat16 {
    using Storage = std::uint16_t;
    static DTG_INLINE float load(Storage v) { return from_bits(std::uint32_t{v} << 16); }
    // To the nearest, ties to even; rounding up must not turn a nan into inf or into zero.
    static DTG_INLINE Storage store(float v) {
        const std::uint32_t bits = to_bits(v);
        const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        return static_cast<Storage>(is_nan ? 0x7fc0u : rounded);
    }
};

}  // namespace dtg
