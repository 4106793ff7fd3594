#include "dtg/layernorm_modulate.h"

namespace dtg {
namespace {

struct Job {
    const void* x;
    SampleRows scale, shift;
    void* out;
    TokenShape shape;
    float eps;
};

template <class T>
DTG_INLINE void norm_rows(const Job& job, std::int64_t begin, std::int64_t end, float* scratch) {
    using Storage = typename T::Storage;
    const std::int64_t dim = job.shape.dim;
    for (std::int64_t r = begin; r < end; ++r) {
        const Storage* __restrict x = static_cast<const Storage*>(job.x) + r * dim;
        for (std::int64_t i = 0; i < dim; ++i) scratch[i] = T::load(x[i]);
        const std::int64_t sample = r / job.shape.tokens;
        layernorm_row<T>(scratch, job.scale.at(sample), job.shift.at(sample), 1.0f, job.eps,
                         static_cast<Storage*>(job.out) + r * dim, dim);
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

void layernorm_modulate(const void* x, SampleRows scale, SampleRows shift, void* out,
                        const TokenShape& shape, float eps, Dtype dtype, int num_threads) {
    const Job job{x, scale, shift, out, shape, eps};
    const auto rows = dtype == Dtype::kBFloat16 ? norm_bfloat16 : norm_float32;
    for_rows(shape, num_threads, [&](std::int64_t begin, std::int64_t end, float* scratch) {
        rows(job, begin, end, scratch);
    });
}

}  // namespace dtg
