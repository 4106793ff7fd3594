#include "restorer.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "refiner.h"
#include "settings.h"

namespace dtg::host {
namespace {

// Frames `start .. stop - 1` as (T, 3, H, W).
Tensor planar(const Frames& frames, std::int64_t start, std::int64_t stop) {
    Tensor made(Type::kFloat32, {stop - start, 3, frames.height, frames.width});
    const std::int64_t area = frames.height * frames.width;
    for (std::int64_t t = start; t < stop; ++t) {
        const float* from = frames.data + t * area * 3;
        float* to = made.floats() + (t - start) * area * 3;
        for (std::int64_t i = 0; i < area; ++i) {
            for (std::int64_t c = 0; c < 3; ++c) to[c * area + i] = from[3 * i + c];
        }
    }
    return made;
}

void store(const Tensor& frame, float* out) {
    const std::int64_t area = frame.size(1) * frame.size(2);
    for (std::int64_t i = 0; i < area; ++i) {
        for (std::int64_t c = 0; c < 3; ++c) out[3 * i + c] = frame.floats()[c * area + i];
    }
}

Tensor frame_of(const Tensor& frames, std::int64_t index) {
    Tensor made(Type::kFloat32, {3, frames.size(2), frames.size(3)});
    const float* from = frames.floats() + index * made.count();
    std::copy(from, from + made.count(), made.floats());
    return made;
}

// The first frames of `after` mixed with all of `before`, which they show as well: the first
// favours `before`.  The weights are those of engine/blend.py: products of whole numbers are exact.
void cross_fade(const Tensor& before, Tensor& after) {
    const std::int64_t count = before.size(0), size = before.count() / count;
    const double n = static_cast<double>(count + 1);
    for (std::int64_t k = 0; k < count; ++k) {
        const double f = static_cast<double>(k + 1);
        const float weight = static_cast<float>(
            f * f * f * (6 * f * f - 15 * n * f + 10 * n * n) / (n * n * n * n * n));
        for (std::int64_t i = k * size; i < (k + 1) * size; ++i) {
            const float b = before.floats()[i], a = after.floats()[i];
            // As torch.lerp computes it, with one rounding, from the nearer end.
            after.floats()[i] =
                weight < 0.5f ? std::fma(weight, a - b, b) : std::fma(weight - 1, a - b, a);
        }
    }
}

Tensor tail_of(const Tensor& frames, std::int64_t first) {
    Tensor made(Type::kFloat32, {frames.size(0) - first, 3, frames.size(2), frames.size(3)});
    const float* from = frames.floats() + frames.count() - made.count();
    std::copy(from, from + made.count(), made.floats());
    return made;
}

}  // namespace

Restorer::Restorer(const std::string& folder, int threads, int device_index)
    : bundle_(folder, threads, device_index) {
    if (bundle_.model("backbone")) {
        backbone_ = std::make_unique<Backbone>(bundle_);
        codec_ = codec_of(bundle_);
    }
    if (bundle_.model("sr")) upscaler_ = std::make_unique<Upscaler>(bundle_);
}

std::int64_t Restorer::scale(const dtg_settings& settings) const {
    if (!settings.upscale) return 1;
    if (!upscaler_) config_error("the bundle holds no super-resolution: upscale is not possible");
    return upscaler_->scale();
}

void Restorer::restore(const dtg_settings& settings, const Frames& frames, float* out,
                       const OnProgress& on_progress) {
    const std::lock_guard<std::mutex> turn(turn_);
    check(settings);
    const std::int64_t scale = this->scale(settings);
    std::unique_ptr<Refiner> refiner;
    if (settings.refine) {
        if (!backbone_) config_error("the bundle holds no backbone: refine is not possible");
        refiner = std::make_unique<Refiner>(bundle_, *backbone_, *codec_, settings, frames.height,
                                            frames.width);
    }
    const auto chunks = refiner ? refiner->plan().grid.chunks(frames.count) : std::vector<Chunk>{};
    const std::int64_t steps =
        refiner ? static_cast<std::int64_t>(chunks.size()) * refiner->num_steps() : 0;
    std::int64_t done = 0;
    const auto tell = [&] {
        ++done;
        on_progress(static_cast<double>(done) / static_cast<double>(steps + frames.count));
    };
    const auto finish = [&](std::int64_t number, Tensor frame) {
        if (settings.upscale) frame = (*upscaler_)(frame);
        store(frame, out + number * frames.height * frames.width * 3 * scale * scale);
        tell();
    };
    if (!refiner) {
        for (std::int64_t i = 0; i < frames.count; ++i) {
            finish(i, frame_of(planar(frames, i, i + 1), 0));
        }
        return;
    }
    Tensor tail;  // frames of the chunk before that the next one has, too
    for (const Chunk& chunk : chunks) {
        Tensor refined = (*refiner)(planar(frames, chunk.start, chunk.stop), chunk, tell);
        if (!tail.shape().empty() && tail.size(0) > 0) cross_fade(tail, refined);
        const bool last = chunk.index + 1 == static_cast<std::int64_t>(chunks.size());
        const std::int64_t stride = refiner->plan().grid.stride();
        const std::int64_t ready = last ? refined.size(0) : std::min(stride, refined.size(0));
        for (std::int64_t i = 0; i < ready; ++i) finish(chunk.start + i, frame_of(refined, i));
        tail = tail_of(refined, ready);
    }
}

}  // namespace dtg::host
