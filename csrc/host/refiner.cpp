#include "refiner.h"

#include <algorithm>

#include "dtg/color_match.h"
#include "dtg/gaussian_noise.h"
#include "schedule.h"
#include "settings.h"

namespace dtg::host {
namespace {

constexpr double kLeastStd = 1e-4;  // of a plane, see kernels/coarse.py

}  // namespace

Refiner::Refiner(Bundle& bundle, Backbone& backbone, Codec& codec, const dtg_settings& settings,
                 std::int64_t height, std::int64_t width)
    : backbone_(backbone),
      codec_(codec),
      settings_(with_guidance(settings)),
      nodes_(nodes_of(settings_)),
      threads_(bundle.threads()),
      plan_(make_plan(settings_, backbone.facts(), height, width, codec.tile().first,
                      codec.tile().second)),
      sampler_(backbone, settings_, nodes_, plan_, threads_) {
    backbone_.prepare(settings_, nodes_);
}

Tensor Refiner::operator()(const Tensor& frames, const Chunk& chunk,
                           const std::function<void()>& on_step) {
    const Tensor z = codec_.encode(padded(frames));
    const Tensor x = sampler_(noised(z, chunk), on_step);
    Tensor refined = cropped(codec_.decode(x), frames.shape());
    if (settings_.color_match == DTG_COLOR_NONE) return refined;
    return matched(refined, frames);
}

// The frames, continued by reflection to the size that the backbone sees.
Tensor Refiner::padded(const Tensor& frames) const {
    const std::int64_t height = frames.size(2), width = frames.size(3);
    const auto times = reflect_index(frames.size(0), plan_.bucket.frames);
    const auto rows = reflect_index(height, plan_.height);
    const auto columns = reflect_index(width, plan_.width);
    Tensor made(Type::kFloat32, {plan_.bucket.frames, 3, plan_.height, plan_.width});
    float* to = made.floats();
    for (const std::int64_t t : times) {
        for (std::int64_t c = 0; c < 3; ++c) {
            for (const std::int64_t y : rows) {
                const float* from = frames.floats() + ((t * 3 + c) * height + y) * width;
                for (const std::int64_t x : columns) *to++ = from[x];
            }
        }
    }
    return made;
}

// z (C, t, h, w) with noise of the first node's time; frames count from the clip's first.
Tensor Refiner::noised(const Tensor& z, const Chunk& chunk) const {
    Tensor noise(Type::kFloat32, z.shape());
    const std::int64_t first = chunk.start / backbone_.facts().codec.frames;
    gaussian_noise(settings_.seed, {first, z.size(1), z.size(0), z.size(2), z.size(3), 0, 0},
                   noise.floats(), threads_);
    const double t = nodes_[0].t;
    const auto a = static_cast<float>(1 - t), b = static_cast<float>(t);
    float* x = noise.floats();
    for (std::int64_t i = 0; i < z.count(); ++i) x[i] = a * z.floats()[i] + b * x[i];
    return noise;
}

Tensor Refiner::cropped(const Tensor& frames, const Shape& shape) const {
    Tensor made(Type::kFloat32, shape);
    float* to = made.floats();
    for (std::int64_t plane = 0; plane < shape[0] * 3; ++plane) {
        for (std::int64_t y = 0; y < shape[2]; ++y) {
            const float* from = frames.floats() + (plane * frames.size(2) + y) * frames.size(3);
            to = std::copy(from, from + shape[3], to);
        }
    }
    return made;
}

Tensor Refiner::matched(const Tensor& refined, const Tensor& frames) const {
    const std::int64_t plane = frames.size(2) * frames.size(3);
    const ClipShape shape{frames.size(0), frames.size(2), frames.size(3)};
    const ClipView x{refined.floats(), 3 * plane, plane, frames.size(3)};
    const ClipView r{frames.floats(), 3 * plane, plane, frames.size(3)};
    Tensor made(Type::kFloat32, frames.shape());
    if (settings_.color_match == DTG_COLOR_WAVELET) {
        color_match_wavelet(x, r, shape, made.floats(), threads_);
    } else {
        color_match_adain(x, r, shape, kLeastStd, made.floats(), threads_);
    }
    for (float* v = made.floats(); v != made.floats() + made.count(); ++v) {
        *v = std::min(std::max(*v, 0.0f), 1.0f);
    }
    return made;
}

}  // namespace dtg::host
