// The way of a clip: cut into chunks, refine, join, upscale, see engine/pipeline.py.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "backbone.h"
#include "bundle.h"
#include "codec.h"
#include "dtg/dtg.h"
#include "upscaler.h"

namespace dtg::host {

// Frames (T, H, W, 3) in the caller's memory.
struct Frames {
    const float* data;
    std::int64_t count, height, width;
};

// Told the share of the run that is done; it throws to end the run.
using OnProgress = std::function<void(double)>;

class Restorer {
  public:
    Restorer(const std::string& folder, int threads, int device_index);

    const Bundle& bundle() const { return bundle_; }
    Backbone* backbone() const { return backbone_.get(); }  // null where the bundle has none
    Upscaler* upscaler() const { return upscaler_.get(); }

    // Size of the output over that of the input.
    std::int64_t scale(const dtg_settings& settings) const;

    // One run at a time: further callers wait.
    void restore(const dtg_settings& settings, const Frames& frames, float* out,
                 const OnProgress& on_progress);

  private:
    Bundle bundle_;
    std::unique_ptr<Backbone> backbone_;
    std::unique_ptr<Codec> codec_;
    std::unique_ptr<Upscaler> upscaler_;
    std::mutex turn_;
};

}  // namespace dtg::host
