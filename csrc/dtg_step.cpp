#include "dtg/dtg_step.h"

#include <algorithm>

#include "dtg/multiversion.h"

namespace dtg {
namespace {

constexpr std::int64_t kBlock = 1 << 15;  // values per parallel task; three fp32 streams fit in L2

struct Float16 {
    using Storage = std::uint16_t;
    // Shifted into place the value is 2^112 too small, subnormals included; the exponent of inf and
    // nan has to be filled up by hand.
    static DTG_INLINE float load(Storage v) {
        const std::uint32_t sign = std::uint32_t{v & 0x8000u} << 16;
        const std::uint32_t magnitude = std::uint32_t{v & 0x7fffu} << 13;
        const float scaled = from_bits(magnitude) * 0x1p112f;
        std::uint32_t bits = to_bits(scaled);
        bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : bits;
        return from_bits(bits | sign);
    }
};

struct Weights {
    float cond, uncond, dt;
};

template <class V>
DTG_INLINE void step(const float* __restrict x, const void* v_cond, const void* v_uncond,
                     float* __restrict out, std::int64_t begin, std::int64_t end, Weights w) {
    const auto* __restrict vc = static_cast<const typename V::Storage*>(v_cond);
    const auto* __restrict vu = static_cast<const typename V::Storage*>(v_uncond);
    if (vu == nullptr) {
        for (std::int64_t i = begin; i < end; ++i) {
            out[i] = x[i] + w.dt * (w.cond * V::load(vc[i]));
        }
        return;
    }
    for (std::int64_t i = begin; i < end; ++i) {
        out[i] = x[i] + w.dt * (w.cond * V::load(vc[i]) + w.uncond * V::load(vu[i]));
    }
}

// One plain function per type: target_clones does not apply to templates.
using StepRange = void(const float*, const void*, const void*, float*, std::int64_t, std::int64_t,
                       Weights);

DTG_MULTIVERSION void step_float32(const float* x, const void* v_cond, const void* v_uncond,
                                   float* out, std::int64_t begin, std::int64_t end, Weights w) {
    step<Float32>(x, v_cond, v_uncond, out, begin, end, w);
}

DTG_MULTIVERSION void step_bfloat16(const float* x, const void* v_cond, const void* v_uncond,
                                    float* out, std::int64_t begin, std::int64_t end, Weights w) {
    step<BFloat16>(x, v_cond, v_uncond, out, begin, end, w);
}

DTG_MULTIVERSION void step_float16(const float* x, const void* v_cond, const void* v_uncond,
                                   float* out, std::int64_t begin, std::int64_t end, Weights w) {
    step<Float16>(x, v_cond, v_uncond, out, begin, end, w);
}

StepRange* select(Dtype v_dtype) {
    switch (v_dtype) {
        case Dtype::kBFloat16:
            return step_bfloat16;
        case Dtype::kFloat16:
            return step_float16;
        default:
            return step_float32;
    }
}

}  // namespace

void dtg_step(const float* x, const void* v_cond, const void* v_uncond, const float* weights,
              float* out, std::int64_t num, Dtype v_dtype, int num_threads) {
    StepRange* const step_range = select(v_dtype);
    const Weights w{weights[0], weights[1], weights[2]};
    const std::int64_t num_blocks = (num + kBlock - 1) / kBlock;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, num_blocks));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t block = 0; block < num_blocks; ++block) {
        const std::int64_t begin = block * kBlock;
        step_range(x, v_cond, v_uncond, out, begin, std::min(begin + kBlock, num), w);
    }
}

}  // namespace dtg
