// The compiled transformers of a bundle, see engine/bundle/backbone.py.
#pragma once

#include <array>
#include <map>
#include <vector>

#include "bundle.h"
#include "dtg/dtg.h"
#include "facts.h"

namespace dtg::host {

enum Branch : int { kCond = 0, kUncond = 1 };

class Backbone {
  public:
    explicit Backbone(Bundle& bundle);

    const BackboneFacts& facts() const { return facts_; }

    // Everything that is constant over a run.
    void prepare(const dtg_settings& settings, const std::vector<dtg_node>& nodes);

    // v (B, C, t, h, w) of the samples x at node `index`, each with the branch it belongs to;
    // samples of one branch are neighbours.
    Tensor velocity(const Bucket& bucket, const Tensor& x, const std::vector<Branch>& branches,
                    std::size_t index);

    // The number of the transformer that is used at time t.
    int expert_at(double t) const;

  private:
    // What every node of a run needs of one expert, with rows branch * nodes + node.
    struct Tables {
        Tensor modulation, final, keys, values;
        // Keys and values of a call's samples, laid out once, by their branches.
        std::map<std::vector<std::int64_t>, std::pair<Tensor, Tensor>> laid;
    };

    void evaluate(const Bucket& bucket, int expert, const float* x, float* v, std::int64_t planes,
                  const std::vector<Branch>& branches, std::size_t index);
    void call(const std::string& name, Tables& tables, const Tensor& x, float* v,
              std::int64_t samples, std::vector<std::int64_t> branches, std::size_t index);
    double time(Branch branch, std::size_t index) const {
        return branch == kCond ? nodes_[index].t : nodes_[index].tau;
    }

    Bundle& bundle_;
    const BackboneFacts facts_;
    std::vector<std::array<std::int64_t, 3>> phases_;  // (frames, rows, columns), a node in turn
    std::vector<dtg_node> nodes_;
    std::map<int, Tables> tables_;
};

}  // namespace dtg::host
