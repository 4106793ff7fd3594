// One Euler step of the guided velocity: out = x + dt * (w_cond * v_cond + w_uncond * v_uncond).
#pragma once

#include "dtg/storage.h"

namespace dtg {

// x, out: num fp32 values.  v_cond, v_uncond: num values of v_dtype; v_uncond may be null (no
// term).  weights: w_cond, w_uncond, dt.  out may not overlap the inputs.  The result does not
// depend on num_threads.
void dtg_step(const float* x, const void* v_cond, const void* v_uncond, const float* weights,
              float* out, std::int64_t num, Dtype v_dtype, int num_threads);

}  // namespace dtg
