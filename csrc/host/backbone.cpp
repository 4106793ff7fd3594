#include "backbone.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "error.h"
#include "prompts.h"

namespace dtg::host {
namespace {

using Phase = std::array<std::int64_t, 3>;

BackboneFacts facts_in(const Bundle& bundle) {
    const Json* model = bundle.model("backbone");
    if (!model) config_error(bundle.folder() + " holds no backbone: refine is not possible");
    return backbone_facts(model->at("facts"));
}

// out[(i + shift) mod n] = x[i] along the last three axes, of `size`, of `planes` parts.
void roll(const float* x, float* out, std::int64_t planes, const Phase& size, const Phase& shift) {
    const auto moved = [&](int axis, std::int64_t i) {
        return ((i + shift[axis]) % size[axis] + size[axis]) % size[axis];
    };
    const std::int64_t width = size[2], start = moved(2, 0);
    for (std::int64_t plane = 0; plane < planes; ++plane) {
        for (std::int64_t t = 0; t < size[0]; ++t) {
            for (std::int64_t y = 0; y < size[1]; ++y) {
                const float* from = x + ((plane * size[0] + t) * size[1] + y) * width;
                float* to = out + ((plane * size[0] + moved(0, t)) * size[1] + moved(1, y)) * width;
                std::copy(from, from + width - start, to + start);
                std::copy(from + width - start, from + width, to);
            }
        }
    }
}

}  // namespace

Backbone::Backbone(Bundle& bundle) : bundle_(bundle), facts_(facts_in(bundle)) {
    for (const Json& phase : bundle.model("backbone")->at("phases").array()) {
        const auto values = phase.integers();
        if (values.size() != 3) engine_error("a phase has three numbers");
        phases_.push_back({values[0], values[1], values[2]});
    }
    if (phases_.empty()) engine_error("the backbone has no phases");
}

int Backbone::expert_at(double t) const {
    int expert = 0;
    for (std::size_t i = 0; i < facts_.experts.size(); ++i) {
        if (t >= facts_.experts[i]) expert = static_cast<int>(i);
    }
    return expert;
}

void Backbone::prepare(const dtg_settings& settings, const std::vector<dtg_node>& nodes) {
    nodes_ = nodes;
    tables_.clear();
    const auto count = static_cast<std::int64_t>(nodes.size());
    Tensor times(Type::kFloat32, {2 * count});
    std::set<int> used;
    for (const Branch branch : {kCond, kUncond}) {
        for (std::int64_t i = 0; i < count; ++i) {
            const double t = time(branch, static_cast<std::size_t>(i));
            times.floats()[branch * count + i] = static_cast<float>(t);
            if (i + 1 < count) used.insert(expert_at(t));
        }
    }
    const auto [name, prompts] = prompt_input(bundle_, facts_, settings);
    for (const int expert : used) {
        const Inputs inputs = {{"times", &times}, {name, &prompts}};
        Tensors made = bundle_.engine("condition." + std::to_string(expert))(inputs);
        tables_[expert] = {std::move(made.at("modulation")), std::move(made.at("final")),
                           std::move(made.at("keys")), std::move(made.at("values")),
                           {}};
    }
}

Tensor Backbone::velocity(const Bucket& bucket, const Tensor& x,
                          const std::vector<Branch>& branches, std::size_t index) {
    Tensor v(Type::kFloat32, x.shape());
    const std::int64_t sample = x.count() / x.size(0);
    for (std::size_t first = 0, last = 0; first < branches.size(); first = last) {
        const int expert = expert_at(time(branches[first], index));
        while (last < branches.size() && expert_at(time(branches[last], index)) == expert) ++last;
        const std::vector<Branch> part(branches.begin() + static_cast<std::ptrdiff_t>(first),
                                       branches.begin() + static_cast<std::ptrdiff_t>(last));
        const auto offset = static_cast<std::int64_t>(first) * sample;
        evaluate(bucket, expert, x.floats() + offset, v.floats() + offset, x.size(1), part, index);
    }
    return v;
}

void Backbone::evaluate(const Bucket& bucket, int expert, const float* x, float* v,
                        std::int64_t planes, const std::vector<Branch>& branches,
                        std::size_t index) {
    const CodecFacts& codec = facts_.codec;
    const Phase size = {codec.latent_frames(bucket.frames), bucket.height / codec.pixels,
                        bucket.width / codec.pixels};
    const std::int64_t sample = planes * size[0] * size[1] * size[2];
    const Phase phase = phases_[index % phases_.size()];
    const Phase back = {-phase[0], -phase[1], -phase[2]};
    const auto count = static_cast<std::int64_t>(branches.size());
    for (std::int64_t first = 0; first < count; first += bucket.batches.back()) {
        const std::int64_t samples = std::min(count - first, bucket.batches.back());
        const std::int64_t batch =
            *std::lower_bound(bucket.batches.begin(), bucket.batches.end(), samples);
        Tensor given(Type::kFloat32, {batch, planes, size[0], size[1], size[2]});
        roll(x + first * sample, given.floats(), samples * planes, size, back);
        std::vector<std::int64_t> rows;
        for (std::int64_t i = 0; i < batch; ++i) {  // the last of fewer samples is repeated
            rows.push_back(branches[static_cast<std::size_t>(first + std::min(i, samples - 1))]);
            if (i < samples) continue;
            const float* last = given.floats() + (samples - 1) * sample;
            std::copy(last, last + sample, given.floats() + i * sample);
        }
        const std::string name = "velocity." + std::to_string(expert) + "." +
                                 std::to_string(batch) + "x" + std::to_string(bucket.frames) + "x" +
                                 std::to_string(bucket.height) + "x" + std::to_string(bucket.width);
        Tensor made(Type::kFloat32, {samples, planes, size[0], size[1], size[2]});
        call(name, tables_.at(expert), given, made.floats(), samples, rows, index);
        roll(made.floats(), v + first * sample, samples * planes, size, phase);
    }
}

void Backbone::call(const std::string& name, Tables& tables, const Tensor& x, float* v,
                    std::int64_t samples, std::vector<std::int64_t> branches, std::size_t index) {
    auto& laid = tables.laid[branches];
    if (laid.first.shape().empty()) {
        laid = {take(tables.keys, 1, branches), take(tables.values, 1, branches)};
    }
    std::vector<std::int64_t> rows;
    Tensor t(Type::kFloat32, {static_cast<std::int64_t>(branches.size())});
    for (std::size_t i = 0; i < branches.size(); ++i) {
        rows.push_back(branches[i] * static_cast<std::int64_t>(nodes_.size()) +
                       static_cast<std::int64_t>(index));
        t.floats()[i] = static_cast<float>(time(static_cast<Branch>(branches[i]), index));
    }
    const Tensor modulation = take(tables.modulation, 1, rows), final = take(tables.final, 0, rows);
    Inputs inputs = {{"x", &x},
                     {"modulation", &modulation},
                     {"final", &final},
                     {"keys", &laid.first},
                     {"values", &laid.second}};
    for (const TensorSpec& spec : bundle_.component(name).inputs) {
        if (spec.name == "t") inputs["t"] = &t;
    }
    const Tensors made = bundle_.engine(name)(inputs);
    const float* from = made.at("v").floats();
    std::copy(from, from + samples * (x.count() / x.size(0)), v);
}

}  // namespace dtg::host
