#include "dtg/rmsnorm_silu.h"

#include <algorithm>

namespace dtg {
namespace {

struct Job {
    const void* x;
    const float* gamma;
    void* out;
    std::int64_t channels;
    float eps;
    bool with_silu;
};

// `scratch` holds kRows rows.
template <class T>
DTG_INLINE void norm_rows(const Job& job, std::int64_t begin, std::int64_t end, float* scratch) {
    using Storage = typename T::Storage;
    const std::int64_t channels = job.channels;
    float inverse[kRows];
    for (std::int64_t first = begin; first < end; first += kRows) {
        const int num = static_cast<int>(std::min<std::int64_t>(kRows, end - first));
        const Storage* __restrict x = static_cast<const Storage*>(job.x) + first * channels;
        for (std::int64_t i = 0; i < num * channels; ++i) scratch[i] = T::load(x[i]);
        inverse_norms(scratch, channels, num, channels, job.eps, inverse);
        for (int r = 0; r < num; ++r) {
            Storage* const out = static_cast<Storage*>(job.out) + (first + r) * channels;
            const float* const row = scratch + r * channels;
            if (job.with_silu) {
                scale_row<T, true>(row, job.gamma, inverse[r], out, channels);
            } else {
                scale_row<T, false>(row, job.gamma, inverse[r], out, channels);
            }
        }
    }
}

// One plain function per type: target_clones does not apply to templates.
DTG_MULTIVERSION void norm_float32(const Job& job, std::int64_t begin, std::int64_t end,
                                   float* scratch) {
    norm_rows<Float32>(job, begin, end, scratch);
}

DTG_MULTIVERSION void norm_bfloat16(const Job& job, std::int64_t begin, std::int64_t end,
                                    float* scratch) {
    norm_rows<BFloat16>(job, begin, end, scratch);
}

}  // namespace

void rmsnorm_silu(const void* x, const float* gamma, void* out, std::int64_t rows,
                  std::int64_t channels, float eps, bool with_silu, Dtype dtype, int num_threads) {
    const Job job{x, gamma, out, channels, eps, with_silu};
    const auto work = dtype == Dtype::kBFloat16 ? norm_bfloat16 : norm_float32;
    for_rows({1, rows, channels}, num_threads, kRows,
             [&](std::int64_t begin, std::int64_t end, float* scratch) {
                 work(job, begin, end, scratch);
             });
}

}  // namespace dtg
