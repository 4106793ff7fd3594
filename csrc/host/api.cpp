// The C interface: checks what it is given, and turns exceptions into codes.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "dtg/dtg.h"
#include "error.h"
#include "restorer.h"
#include "schedule.h"
#include "settings.h"

struct dtg_bundle {
    dtg::host::Restorer restorer;
};

namespace {

using dtg::host::config_error;
using dtg::host::Error;
using dtg::host::input_error;

thread_local std::string last_error;

// Runs `body`; an exception becomes a code and a message.
template <class Body>
dtg_status guarded(Body body) {
    try {
        last_error.clear();
        body();
        return DTG_OK;
    } catch (const Error& error) {
        last_error = error.what();
        return error.status();
    } catch (const std::bad_alloc&) {
        last_error = "the memory does not suffice";
        return DTG_MEMORY;
    } catch (const std::exception& error) {
        last_error = error.what();
    } catch (...) {
        last_error = "an exception of an unknown kind";
    }
    return DTG_BUG;
}

void require(bool given, const char* name) {
    if (!given) config_error(std::string(name) + " is NULL");
}

// Structures may grow: a caller that was compiled against an older header has a smaller one.
template <class Struct>
void require_size(const Struct* given, const char* name) {
    require(given != nullptr, name);
    if (given->struct_size != sizeof(Struct)) {
        config_error(std::string(name) + ".struct_size is " + std::to_string(given->struct_size) +
                     ", and " + std::to_string(sizeof(Struct)) +
                     " in this library: fill it by the function for its defaults, and compile "
                     "against the header of the library");
    }
}

int default_threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

void require_frames(const dtg::host::Frames& frames, std::int64_t scale) {
    constexpr std::int64_t kSide = 1 << 16, kFrames = std::int64_t{1} << 24;
    if (frames.count < 1 || frames.count > kFrames || frames.height < 1 || frames.height > kSide ||
        frames.width < 1 || frames.width > kSide) {
        input_error("frames are " + std::to_string(frames.count) + " of " +
                    std::to_string(frames.width) + "x" + std::to_string(frames.height) +
                    " pixels: 1 to 2^24 frames with sides of 1 to 65536 are taken");
    }
    const std::int64_t values = frames.count * frames.height * frames.width * 3 * scale * scale;
    if (values > std::numeric_limits<std::int64_t>::max() / 8) input_error("the clip is too large");
}

}  // namespace

extern "C" {

void dtg_options_default(dtg_options* options) {
    if (options) *options = {sizeof(dtg_options), 0, 0};
}

dtg_status dtg_open(const char* path, const dtg_options* options, dtg_bundle** bundle) {
    if (bundle) *bundle = nullptr;
    return guarded([&] {
        require(bundle != nullptr, "bundle");
        require(path != nullptr, "path");
        dtg_options defaults;
        dtg_options_default(&defaults);
        const dtg_options& chosen = options ? *options : defaults;
        require_size(&chosen, "options");
        if (chosen.threads < 0 || chosen.device_index < 0) {
            config_error("threads and device_index must not be negative");
        }
        const int threads = chosen.threads ? chosen.threads : default_threads();
        *bundle = new dtg_bundle{{path, threads, chosen.device_index}};
    });
}

void dtg_close(dtg_bundle* bundle) { delete bundle; }

dtg_status dtg_bundle_info(const dtg_bundle* bundle, dtg_info* info) {
    return guarded([&] {
        require(bundle != nullptr, "bundle");
        require_size(info, "info");
        const dtg::host::Restorer& restorer = bundle->restorer;
        const dtg::host::Manifest& manifest = restorer.bundle().manifest();
        info->key = manifest.key.c_str();
        info->runtime = manifest.runtime.c_str();
        info->device = manifest.device.c_str();
        info->precision = manifest.precision.c_str();
        const dtg::host::Backbone* backbone = restorer.backbone();
        info->backbone = backbone ? backbone->facts().name.c_str() : "";
        info->sr_scale = restorer.upscaler() ? static_cast<int>(restorer.upscaler()->scale()) : 0;
        info->num_buckets = backbone ? static_cast<int>(backbone->facts().buckets.size()) : 0;
    });
}

dtg_status dtg_bundle_bucket(const dtg_bundle* bundle, int index, dtg_bucket* bucket) {
    return guarded([&] {
        require(bundle != nullptr, "bundle");
        require(bucket != nullptr, "bucket");
        const dtg::host::Backbone* backbone = bundle->restorer.backbone();
        const int count = backbone ? static_cast<int>(backbone->facts().buckets.size()) : 0;
        if (index < 0 || index >= count) {
            config_error("bucket " + std::to_string(index) + " is asked for, and there are " +
                         std::to_string(count));
        }
        const auto& found = backbone->facts().buckets[static_cast<std::size_t>(index)];
        *bucket = {static_cast<int>(found.frames), static_cast<int>(found.height),
                   static_cast<int>(found.width)};
    });
}

dtg_status dtg_settings_default(const dtg_bundle* bundle, dtg_settings* settings) {
    return guarded([&] {
        require(bundle != nullptr, "bundle");
        require(settings != nullptr, "settings");
        const dtg::host::Restorer& restorer = bundle->restorer;
        // Those of the sampler in general, for a bundle without a backbone.
        *settings = {};
        settings->struct_size = sizeof(dtg_settings);
        settings->t_start = 0.5, settings->steps = 20, settings->delta0 = 0.15;
        settings->alpha0 = 2, settings->kappa = 4, settings->shift = 1;
        settings->overlap = settings->tile_overlap = -1;
        settings->refine = restorer.backbone() != nullptr;
        settings->upscale = restorer.upscaler() != nullptr;
        if (const dtg::host::Json* model = restorer.bundle().model("backbone")) {
            dtg::host::set_defaults(model->at("facts").at("defaults"), *settings);
        }
    });
}

dtg_status dtg_schedule(const dtg_settings* settings, dtg_node* nodes, int capacity) {
    return guarded([&] {
        require_size(settings, "settings");
        require(nodes != nullptr, "nodes");
        dtg::host::check(*settings);
        const auto made = dtg::host::nodes_of(dtg::host::with_guidance(*settings));
        if (capacity < 0 || static_cast<std::size_t>(capacity) < made.size()) {
            config_error("there is room for " + std::to_string(capacity) + " nodes, and there are " +
                         std::to_string(made.size()));
        }
        std::copy(made.begin(), made.end(), nodes);
    });
}

dtg_status dtg_output_size(const dtg_bundle* bundle, const dtg_settings* settings,
                           std::int64_t height, std::int64_t width, std::int64_t* out_height,
                           std::int64_t* out_width) {
    return guarded([&] {
        require(bundle != nullptr, "bundle");
        require_size(settings, "settings");
        require(out_height && out_width, "out_height or out_width");
        const std::int64_t scale = bundle->restorer.scale(*settings);
        require_frames({nullptr, 1, height, width}, scale);
        *out_height = height * scale;
        *out_width = width * scale;
    });
}

dtg_status dtg_restore(dtg_bundle* bundle, const dtg_settings* settings, const float* frames,
                       std::int64_t num_frames, std::int64_t height, std::int64_t width, float* out,
                       dtg_progress progress, void* user) {
    return guarded([&] {
        require(bundle != nullptr, "bundle");
        require_size(settings, "settings");
        require(frames && out, "frames or out");
        const dtg::host::Frames clip{frames, num_frames, height, width};
        require_frames(clip, bundle->restorer.scale(*settings));
        bundle->restorer.restore(*settings, clip, out, [&](double fraction) {
            if (progress && progress(fraction, user) != 0) {
                throw Error(DTG_INTERRUPTED, "the progress callback asked to stop");
            }
        });
    });
}

const char* dtg_last_error(void) { return last_error.c_str(); }

}  // extern "C"
