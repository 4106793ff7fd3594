// Values to 8 bits, with one step and one zero for all of them.
#pragma once

#include "dtg/storage.h"

namespace dtg {

struct Quantization {
    float step;
    int zero;
};

// out[i] = round(x[i] / step) + zero, in 0 .. 255; the range is that of x with 0 in it.  dtype is
// fp32 or bf16.  The result does not depend on num_threads.
Quantization quantize(const void* x, std::uint8_t* out, std::int64_t num, Dtype dtype,
                      int num_threads);

}  // namespace dtg
