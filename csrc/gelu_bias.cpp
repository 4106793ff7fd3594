#include "dtg/gelu_bias.h"

#include "dtg/activation.h"
#include "dtg/tokens.h"

namespace dtg {
namespace {

struct Job {
    const void* x;
    const float* bias;
    void* out;
    std::int64_t dim;
};

template <class T>
DTG_INLINE void gelu_rows(const Job& job, std::int64_t begin, std::int64_t end) {
    using Storage = typename T::Storage;
    const float* __restrict bias = job.bias;
    for (std::int64_t r = begin; r < end; ++r) {
        const Storage* __restrict x = static_cast<const Storage*>(job.x) + r * job.dim;
        Storage* __restrict out = static_cast<Storage*>(job.out) + r * job.dim;
        for (std::int64_t i = 0; i < job.dim; ++i) {
            out[i] = T::store(gelu_tanh(T::load(x[i]) + bias[i]));
        }
    }
}

// One plain function per type: target_clones does not apply to templates.
DTG_MULTIVERSION void gelu_float32(const Job& job, std::int64_t begin, std::int64_t end) {
    gelu_rows<Float32>(job, begin, end);
}

DTG_MULTIVERSION void gelu_bfloat16(const Job& job, std::int64_t begin, std::int64_t end) {
    gelu_rows<BFloat16>(job, begin, end);
}

}  // namespace

void gelu_bias(const void* x, const float* bias, void* out, std::int64_t rows, std::int64_t dim,
               Dtype dtype, int num_threads) {
    const Job job{x, bias, out, dim};
    const auto work = dtype == Dtype::kBFloat16 ? gelu_bfloat16 : gelu_float32;
    for_rows({1, rows, dim}, num_threads, [&](std::int64_t begin, std::int64_t end, float*) {
        work(job, begin, end);
    });
}

}  // namespace dtg
