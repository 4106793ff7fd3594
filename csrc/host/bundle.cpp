#include "bundle.h"

#include "error.h"
#include "machine.h"

namespace dtg::host {

Bundle::Bundle(const std::string& folder, int threads, int device_index)
    : folder_(folder),
      manifest_(read_manifest(folder)),
      place_{manifest_.device, device_index, threads} {
    require_machine(manifest_.needs, runtime_versions(), device_index);
    verify_files(folder, manifest_);
}

const Component& Bundle::component(const std::string& name) const {
    const auto found = manifest_.components.find(name);
    if (found == manifest_.components.end()) {
        engine_error(folder_ + " has no component " + name + ": export it again");
    }
    return found->second;
}

Engine& Bundle::engine(const std::string& name) {
    auto& engine = engines_[name];
    if (!engine) engine = open_engine(manifest_.runtime, folder_, component(name), place_);
    return *engine;
}

}  // namespace dtg::host
