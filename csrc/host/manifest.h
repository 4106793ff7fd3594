// What a bundle holds, see engine/bundle/manifest.py.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "json.h"
#include "tensor.h"

namespace dtg::host {

// Shape and type of an input or an output.  An axis has a number, or a name where it is open: axes
// of one name are of one size, and "2*height" is twice what "height" is.
struct TensorSpec {
    std::string name;
    std::vector<std::string> axes;
    Type type;
};

struct Component {
    std::string name;
    std::vector<std::string> files;  // relative to the bundle, the first is what is opened
    std::vector<TensorSpec> inputs, outputs;  // in the order of the compiled function
};

struct Manifest {
    std::string key, runtime, device, precision;
    Json models, needs;
    std::map<std::string, Component> components;
    std::map<std::string, std::pair<std::string, std::int64_t>> files;  // sum and bytes
};

// Engine error where there is none, or it is damaged or of another format.
Manifest read_manifest(const std::string& folder);

// Engine error where a file is missing, cut short or changed.
void verify_files(const std::string& folder, const Manifest& manifest);

}  // namespace dtg::host
