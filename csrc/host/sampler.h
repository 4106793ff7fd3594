// The sampling loop of lookahead guidance, see engine/sampler.py, guidance.py and elision.py.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "backbone.h"
#include "plan.h"

namespace dtg::host {

class Sampler {
  public:
    // `nodes` and `plan` are those of the run that `backbone` was prepared for.
    Sampler(Backbone& backbone, const dtg_settings& settings, const std::vector<dtg_node>& nodes,
            const Plan& plan, int threads);

    // x (C, t, h, w) at nodes[0].t, integrated to t = 0.  `on_step` is called after every step.
    Tensor operator()(Tensor x, const std::function<void()>& on_step);

  private:
    struct Velocities {
        Tensor cond;
        std::optional<Tensor> uncond;  // none where it was not evaluated
    };

    Velocities evaluate(const Tensor& x, std::size_t index);
    bool leaves_out(const dtg_node& node, std::size_t index);
    void measure(const dtg_node& node, const Velocities& v);
    std::vector<Tensor> blended(const Tensor& x, std::size_t index,
                                const std::vector<Branch>& branches);
    Tensor advance(const Tensor& x, const Velocities& v, const dtg_node& node, double dt) const;

    Backbone& backbone_;
    const dtg_settings settings_;
    const std::vector<dtg_node> nodes_;
    const Bucket bucket_;
    const int threads_;
    const std::int64_t tile_batch_, tile_height_, tile_width_;  // in cells of x
    std::vector<std::int32_t> origins_;                         // (y, x) of every tile
    Windows windows_;
    bool batched_;
    std::optional<double> gap_;  // of the last node where both branches were evaluated
    std::pair<int, int> experts_ = {-1, -1};  // of t and tau
};

}  // namespace dtg::host
