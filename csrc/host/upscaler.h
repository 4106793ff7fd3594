// Stage two: super-resolution of single frames, tile by tile, see engine/sr/frames.py.
#pragma once

#include "bundle.h"
#include "facts.h"

namespace dtg::host {

class Upscaler {
  public:
    explicit Upscaler(Bundle& bundle);

    std::int64_t scale() const { return facts_.scale; }

    // A frame (3, H, W) to (3, sH, sW).
    Tensor operator()(const Tensor& frame);

  private:
    Bundle& bundle_;
    const SrFacts facts_;
    const std::int64_t tile_;  // side in input pixels
};

}  // namespace dtg::host
