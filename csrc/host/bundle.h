// A bundle on this machine: proved to be whole and to fit, its engines opened when they are used.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engine.h"
#include "manifest.h"

namespace dtg::host {

class Bundle {
  public:
    // Engine error where a file is missing, cut short or changed, or the machine is not what the
    // bundle was compiled for; it names the file or the field.
    Bundle(const std::string& folder, int threads, int device_index);

    const std::string& folder() const { return folder_; }
    const Manifest& manifest() const { return manifest_; }
    int threads() const { return place_.threads; }

    // "backbone", "codec" or "sr" of the manifest; null where the bundle has none.
    const Json* model(const std::string& name) const { return manifest_.models.find(name); }
    const Component& component(const std::string& name) const;
    // The engine of a component, opened once.
    Engine& engine(const std::string& name);

  private:
    const std::string folder_;
    const Manifest manifest_;
    const Place place_;
    std::map<std::string, std::unique_ptr<Engine>> engines_;
};

}  // namespace dtg::host
