#include <algorithm>

#include "dtg/cuda/dtg_step.h"
#include "launch.cuh"

namespace dtg::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 20;

using Four = Pack<float, 4>;

struct Weights {
    float cond, uncond, dt;
};

template <bool kGuided>
__device__ float step(float x, float v_cond, float v_uncond, Weights w) {
    const float v = kGuided ? w.cond * v_cond + w.uncond * v_uncond : w.cond * v_cond;
    return x + w.dt * v;
}

// Packs of 16 bytes of velocities, then what is left value by value.
template <class V, bool kGuided>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const float* __restrict__ x, const typename V::Storage* __restrict__ v_cond,
                const typename V::Storage* __restrict__ v_uncond, const float* __restrict__ table,
                const std::int64_t* __restrict__ row, float* __restrict__ out, std::int64_t num,
                std::int64_t num_packs) {
    constexpr int kPack = 16 / sizeof(typename V::Storage);
    using Velocities = Pack<typename V::Storage, kPack>;
    const float* at = table + (row == nullptr ? 0 : 3 * *row);
    const Weights w{at[0], kGuided ? at[1] : 0.0f, at[2]};
    const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;

    for (std::int64_t i = first; i < num_packs; i += stride) {
        const Velocities cond = reinterpret_cast<const Velocities*>(v_cond)[i];
        Velocities uncond = cond;
        if (kGuided) uncond = reinterpret_cast<const Velocities*>(v_uncond)[i];
#pragma unroll
        for (int k = 0; k < kPack; k += 4) {
            const std::int64_t four = (i * kPack + k) / 4;
            const Four state = reinterpret_cast<const Four*>(x)[four];
            Four next;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                next.value[j] = step<kGuided>(state.value[j], V::load(cond.value[k + j]),
                                              V::load(uncond.value[k + j]), w);
            }
            reinterpret_cast<Four*>(out)[four] = next;
        }
    }
    for (std::int64_t i = num_packs * kPack + first; i < num; i += stride) {
        const float uncond = kGuided ? V::load(v_uncond[i]) : 0.0f;
        out[i] = step<kGuided>(x[i], V::load(v_cond[i]), uncond, w);
    }
}

template <class V>
void run(const float* x, const void* v_cond, const void* v_uncond, const float* table,
         const std::int64_t* row, float* out, std::int64_t num, void* stream) {
    using Storage = typename V::Storage;
    constexpr std::int64_t kPack = 16 / sizeof(Storage);
    const bool in_packs = is_aligned(x, 16) && is_aligned(v_cond, 16) && is_aligned(v_uncond, 16) &&
                          is_aligned(out, 16);
    const std::int64_t num_packs = in_packs ? num / kPack : 0;
    const std::int64_t num_threads = std::max(num_packs, num - num_packs * kPack);
    const std::int64_t blocks = std::min((num_threads + kThreads - 1) / kThreads, kMaxBlocks);
    const auto kernel = v_uncond == nullptr ? step_kernel<V, false> : step_kernel<V, true>;
    launch("dtg_step", kernel, static_cast<unsigned>(blocks), kThreads, stream, x,
           static_cast<const Storage*>(v_cond), static_cast<const Storage*>(v_uncond), table, row,
           out, num, num_packs);
}

}  // namespace

void dtg_step(const float* x, const void* v_cond, const void* v_uncond, const float* table,
              const std::int64_t* row, float* out, std::int64_t num, Dtype v_dtype, void* stream) {
    if (num == 0) return;
    const auto step = v_dtype == Dtype::kBFloat16  ? run<BFloat16>
                      : v_dtype == Dtype::kFloat16 ? run<Float16>
                                                   : run<Float32>;
    step(x, v_cond, v_uncond, table, row, out, num, stream);
}

}  // namespace dtg::cuda
