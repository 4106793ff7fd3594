// out = LN(x) * (1 + scale) + shift over the last dimension.
#pragma once

#include "dtg/tokens.h"

namespace dtg {

// x, out: (B, N, D) of dtype (fp32 or bf16), dim >= 1; scale, shift: (B, D).  out may not overlap
// the inputs.  The result does not depend on num_threads.
void layernorm_modulate(const void* x, SampleRows scale, SampleRows shift, void* out,
                        const TokenShape& shape, float eps, Dtype dtype, int num_threads);

}  // namespace dtg
