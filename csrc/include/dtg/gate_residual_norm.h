// sum = x + gate * y and the LayerNorm of it, in one pass over memory.
#pragma once

#include "dtg/tokens.h"

namespace dtg {

struct ResidualNorm {
    const void *x, *y;        // (B, N, D)
    SampleRows gate;          // null: 1
    SampleRows scale, shift;  // of the norm: LN * (base + scale) + shift
    float base;               // 1 for a modulation, 0 for an affine norm
    float eps;
    void *sum, *normed;  // (B, N, D)
};

// Tokens are of dtype (fp32 or bf16), dim >= 1.  The outputs may overlap nothing.  The norm is of
// the sum before it is rounded to dtype.  The result does not depend on num_threads.
void gate_residual_norm(const ResidualNorm& op, const TokenShape& shape, Dtype dtype,
                        int num_threads);

}  // namespace dtg
