#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "dtg/dtg_step.h"
#include "dtg/tile_blend.h"
#include "dtg/tile_gather.h"

namespace dtg::host {
namespace {

double norm(double squares) { return std::sqrt(squares); }

// Whether both branches of `tiles` tiles go into one call.
bool takes_both(dtg_branches branches, const Bucket& bucket, std::int64_t tiles) {
    if (branches != DTG_BRANCHES_AUTO) return branches == DTG_BRANCHES_BATCHED;
    return 2 * tiles <= bucket.batches.back();
}

}  // namespace

Sampler::Sampler(Backbone& backbone, const dtg_settings& settings,
                 const std::vector<dtg_node>& nodes, const Plan& plan, int threads)
    : backbone_(backbone),
      settings_(settings),
      nodes_(nodes),
      bucket_(plan.bucket),
      threads_(threads),
      tile_batch_(plan.tile_batch),
      tile_height_(plan.tiles[0].height / backbone.facts().codec.pixels),
      tile_width_(plan.tiles[0].width / backbone.facts().codec.pixels),
      batched_(takes_both(settings.branches, plan.bucket,
                          std::min(plan.tile_batch, static_cast<std::int64_t>(plan.tiles.size())))) {
    const std::int64_t cell = backbone.facts().codec.pixels;
    std::vector<Tile> cells;
    for (const Tile& tile : plan.tiles) {
        cells.push_back({tile.y / cell, tile.x / cell, tile.height / cell, tile.width / cell});
        origins_.push_back(static_cast<std::int32_t>(cells.back().y));
        origins_.push_back(static_cast<std::int32_t>(cells.back().x));
    }
    windows_ = windows_of(cells, plan.height / cell, plan.width / cell);
}

Tensor Sampler::operator()(Tensor x, const std::function<void()>& on_step) {
    gap_.reset();
    experts_ = {-1, -1};
    for (std::size_t i = 0; i + 1 < nodes_.size(); ++i) {
        const dtg_node &here = nodes_[i], &there = nodes_[i + 1];
        const double dt = there.t - here.t;
        const Velocities v = evaluate(x, i);
        Tensor ahead = advance(x, v, here, dt);
        if (settings_.solver == DTG_HEUN && there.t > 0) {
            const Tensor half = advance(x, v, here, dt / 2);
            ahead = advance(half, evaluate(ahead, i + 1), there, dt / 2);
        }
        x = std::move(ahead);
        on_step();
    }
    return x;
}

Sampler::Velocities Sampler::evaluate(const Tensor& x, std::size_t index) {
    const dtg_node& node = nodes_[index];
    if (leaves_out(node, index)) return {std::move(blended(x, index, {kCond})[0]), std::nullopt};
    std::vector<Tensor> both = blended(x, index, {kCond, kUncond});
    Velocities v{std::move(both[0]), std::move(both[1])};
    measure(node, v);
    return v;
}

bool Sampler::leaves_out(const dtg_node& node, std::size_t index) {
    const std::pair<int, int> experts = {backbone_.expert_at(node.t), backbone_.expert_at(node.tau)};
    if (index == 0 || experts != experts_) gap_.reset();  // nothing is known of another expert
    experts_ = experts;
    if (node.w_uncond == 0) return true;
    if (settings_.elide_tol == 0 || !gap_) return false;
    return std::abs(1 - node.alpha) * *gap_ < settings_.elide_tol;
}

void Sampler::measure(const dtg_node& node, const Velocities& v) {
    if (settings_.elide_tol == 0 || node.alpha == 1) return;
    const auto ratio = static_cast<float>(node.w_uncond / (1 - node.alpha));
    const auto w_cond = static_cast<float>(node.w_cond);
    const auto w_uncond = static_cast<float>(node.w_uncond);
    const float *cond = v.cond.floats(), *uncond = v.uncond->floats();
    double gap = 0, guided = 0;
    for (std::int64_t i = 0; i < v.cond.count(); ++i) {
        const double g = cond[i] - ratio * uncond[i];
        const double d = w_cond * cond[i] + w_uncond * uncond[i];
        gap += g * g;
        guided += d * d;
    }
    gap_ = norm(gap) / norm(guided);
}

std::vector<Tensor> Sampler::blended(const Tensor& x, std::size_t index,
                                     const std::vector<Branch>& branches) {
    const auto num_tiles = static_cast<std::int64_t>(origins_.size() / 2);
    const std::int64_t planes = x.size(0) * x.size(1);
    const Shape tile = {x.size(0), x.size(1), tile_height_, tile_width_};
    const std::int64_t values = count_of(tile);
    std::vector<Tensor> tiles;  // of each branch, all of them
    for (std::size_t i = 0; i < branches.size(); ++i) {
        tiles.emplace_back(Type::kFloat32, Shape{num_tiles, tile[0], tile[1], tile[2], tile[3]});
    }
    const bool together = batched_ && branches.size() == 2;
    for (std::int64_t first = 0; first < num_tiles; first += tile_batch_) {
        const std::int64_t count = std::min(tile_batch_, num_tiles - first);
        const Tiles part{count,     planes,    tile_height_, tile_width_,
                         x.size(2), x.size(3), origins_.data() + 2 * first};
        const std::int64_t copies = together ? 2 : 1;
        Tensor cut(Type::kFloat32, {copies * count, tile[0], tile[1], tile[2], tile[3]});
        tile_gather(x.floats(), part, copies, cut.floats(), threads_);
        for (std::size_t i = 0; i < branches.size(); i += static_cast<std::size_t>(copies)) {
            std::vector<Branch> samples(static_cast<std::size_t>(count), branches[i]);
            if (together) samples.insert(samples.end(), static_cast<std::size_t>(count), kUncond);
            const Tensor v = backbone_.velocity(bucket_, cut, samples, index);
            for (std::int64_t copy = 0; copy < copies; ++copy) {
                const float* from = v.floats() + copy * count * values;
                std::copy(from, from + count * values,
                          tiles[i + static_cast<std::size_t>(copy)].floats() + first * values);
            }
        }
    }
    const Tiles all{num_tiles, planes, tile_height_, tile_width_, x.size(2), x.size(3),
                    origins_.data()};
    std::vector<Tensor> frames;
    for (const Tensor& part : tiles) {
        frames.emplace_back(Type::kFloat32, x.shape());
        tile_blend(part.floats(), all, windows_.y.data(), windows_.x.data(), frames.back().floats(),
                   Dtype::kFloat32, threads_);
    }
    return frames;
}

Tensor Sampler::advance(const Tensor& x, const Velocities& v, const dtg_node& node,
                        double dt) const {
    // Where a branch that has weight was left out, the guided velocity is the conditional one.
    const bool whole = v.uncond || node.w_uncond == 0;
    const float weights[3] = {whole ? static_cast<float>(node.w_cond) : 1.0f,
                              whole ? static_cast<float>(node.w_uncond) : 0.0f,
                              static_cast<float>(dt)};
    Tensor made(Type::kFloat32, x.shape());
    dtg_step(x.floats(), v.cond.floats(), v.uncond ? v.uncond->floats() : nullptr, weights,
             made.floats(), x.count(), Dtype::kFloat32, threads_);
    return made;
}

}  // namespace dtg::host
