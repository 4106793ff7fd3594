#include "dtg/gate_residual_norm.h"

namespace dtg {
namespace {

// total = x + gate * y, kept in fp32 and stored.
template <class T>
DTG_INLINE void add_row(const typename T::Storage* __restrict x,
                        const typename T::Storage* __restrict y, const float* __restrict gate,
                        float* __restrict total, typename T::Storage* __restrict stored,
                        std::int64_t dim) {
    if (gate == nullptr) {
        for (std::int64_t i = 0; i < dim; ++i) {
            total[i] = T::load(x[i]) + T::load(y[i]);
            stored[i] = T::store(total[i]);
        }
        return;
    }
    for (std::int64_t i = 0; i < dim; ++i) {
        total[i] = T::load(x[i]) + gate[i] * T::load(y[i]);
        stored[i] = T::store(total[i]);
    }
}

template <class T>
DTG_INLINE void norm_rows(const ResidualNorm& op, const TokenShape& shape, std::int64_t begin,
                          std::int64_t end, float* scratch) {
    using Storage = typename T::Storage;
    const std::int64_t dim = shape.dim;
    for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t sample = r / shape.tokens, first = r * dim;
        add_row<T>(static_cast<const Storage*>(op.x) + first,
                   static_cast<const Storage*>(op.y) + first,
                   op.gate.data == nullptr ? nullptr : op.gate.at(sample), scratch,
                   static_cast<Storage*>(op.sum) + first, dim);
        layernorm_row<T>(scratch, op.scale.at(sample), op.shift.at(sample), op.base, op.eps,
                         static_cast<Storage*>(op.normed) + first, dim);
    }
}

// One plain function per type: target_clones does not apply to templates.
DTG_MULTIVERSION void norm_float32(const ResidualNorm& op, const TokenShape& shape,
                                   std::int64_t begin, std::int64_t end, float* scratch) {
    norm_rows<Float32>(op, shape, begin, end, scratch);
}

DTG_MULTIVERSION void norm_bfloat16(const ResidualNorm& op, const TokenShape& shape,
                                    std::int64_t begin, std::int64_t end, float* scratch) {
    norm_rows<BFloat16>(op, shape, begin, end, scratch);
}

}  // namespace

void gate_residual_norm(const ResidualNorm& op, const TokenShape& shape, Dtype dtype,
                        int num_threads) {
    const auto rows = dtype == Dtype::kBFloat16 ? norm_bfloat16 : norm_float32;
    for_rows(shape, num_threads, [&](std::int64_t begin, std::int64_t end, float* scratch) {
        rows(op, shape, begin, end, scratch);
    });
}

}  // namespace dtg
