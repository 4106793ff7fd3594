// Stage one: lookahead-guided refinement of one chunk, see engine/refine.py.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "backbone.h"
#include "codec.h"
#include "plan.h"
#include "sampler.h"

namespace dtg::host {

class Refiner {
  public:
    Refiner(Bundle& bundle, Backbone& backbone, Codec& codec, const dtg_settings& settings,
            std::int64_t height, std::int64_t width);

    const Plan& plan() const { return plan_; }
    std::int64_t num_steps() const { return static_cast<std::int64_t>(nodes_.size()) - 1; }

    // The frames (T, 3, H, W) of `chunk`, refined: the same shape, in [0, 1].
    Tensor operator()(const Tensor& frames, const Chunk& chunk,
                      const std::function<void()>& on_step);

  private:
    Tensor padded(const Tensor& frames) const;
    Tensor noised(const Tensor& z, const Chunk& chunk) const;
    Tensor cropped(const Tensor& frames, const Shape& shape) const;
    Tensor matched(const Tensor& refined, const Tensor& frames) const;

    Backbone& backbone_;
    Codec& codec_;
    const dtg_settings settings_;
    const std::vector<dtg_node> nodes_;
    const int threads_;
    const Plan plan_;
    Sampler sampler_;
};

}  // namespace dtg::host
