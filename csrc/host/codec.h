// Frames to the state of the sampler and back, see engine/codecs/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "bundle.h"
#include "facts.h"
#include "tensor.h"

namespace dtg::host {

class Codec {
  public:
    virtual ~Codec() = default;
    // Frames (T, 3, H, W) in [0, 1] to z (C, t, h, w), and z to frames.  T obeys the frame rule, H
    // and W are multiples of a latent cell and at least the codec's tile.
    virtual Tensor encode(const Tensor& frames) = 0;
    virtual Tensor decode(const Tensor& z) = 0;
    // (height, width) of the tiles that it is compiled for; 0 where it takes any size.
    virtual std::pair<std::int64_t, std::int64_t> tile() const { return {0, 0}; }
};

// The codec that the bundle's manifest describes; engine error where it is none.
std::unique_ptr<Codec> codec_of(Bundle& bundle);

}  // namespace dtg::host
