#include "dtg/rmsnorm_silu.h"

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

template <class T>
DTG_INLINE void norm_rows(const Job& job, std::int64_t begin, std::int64_t end, float* scratch) {
    using Storage = typename T::Storage;
    for (std::int64_t r = begin; r < end; ++r) {
        const Storage* __restrict x = static_cast<const Storage*>(job.x) + r * job.channels;
        for (std::int64_t i = 0; i < job.channels; ++i) scratch[i] = T::load(x[i]);
        rmsnorm_silu_row<T>(scratch, job.gamma, job.eps, job.with_silu,
                            static_cast<Storage*>(job.out) + r * job.channels, job.channels);
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
    for_rows({1, rows, channels}, num_threads,
             [&](std::int64_t begin, std::int64_t end, float* scratch) {
                 work(job, begin, end, scratch);
             });
}

}  // namespace dtg
