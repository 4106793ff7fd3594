#include "engine.h"

#include <filesystem>

#include "error.h"

namespace dtg::host {
namespace {

using Open = std::unique_ptr<Engine> (*)(const std::string&, const Component&, const Place&);

struct Runtime {
    const char* library;  // its name in a bundle's needs
    std::vector<std::string> names;
    std::string (*version)();
    Open open;
};

const std::vector<Runtime>& runtimes() {
    static const std::vector<Runtime> all = {
#ifdef DTG_WITH_AOT
        {"torch", {"aot"}, aot_version, open_aot},
#endif
#ifdef DTG_WITH_ORT
        {"onnxruntime", {"ort", "onnx"}, ort_version, open_ort},
#endif
#ifdef DTG_WITH_TENSORRT
        {"tensorrt", {"tensorrt"}, tensorrt_version, open_tensorrt},
#endif
    };
    return all;
}

void check_input(const Component& component, const TensorSpec& spec, const Tensor& tensor,
                 std::map<std::string, std::int64_t>& sizes) {
    bool fits = tensor.type() == spec.type && tensor.shape().size() == spec.axes.size();
    std::string wanted;
    for (std::size_t i = 0; i < spec.axes.size(); ++i) {
        wanted += (i ? ", " : "") + spec.axes[i];
        if (!fits) continue;
        const std::int64_t size = tensor.size(i);
        const bool open = spec.axes[i].find_first_not_of("0123456789") != std::string::npos;
        fits = open ? sizes.emplace(spec.axes[i], size).first->second == size
                    : spec.axes[i] == std::to_string(size);
    }
    if (!fits) {
        engine_error("the input " + spec.name + " of " + component.name + " is of another type or " +
                     "shape, " + written(tensor.shape()) + ", than (" + wanted + ")");
    }
}

}  // namespace

Tensors Engine::operator()(const Inputs& inputs) {
    std::vector<const Tensor*> ordered;
    std::map<std::string, std::int64_t> sizes;
    for (const TensorSpec& spec : component_.inputs) {
        const auto found = inputs.find(spec.name);
        if (found == inputs.end()) engine_error(component_.name + " needs the input " + spec.name);
        check_input(component_, spec, *found->second, sizes);
        ordered.push_back(found->second);
    }
    if (inputs.size() != ordered.size()) {
        engine_error(component_.name + " was given an input that it does not have");
    }
    std::vector<Tensor> results = run(ordered);
    if (results.size() != component_.outputs.size()) {
        engine_error(component_.name + " gave " + std::to_string(results.size()) + " outputs, not " +
                     std::to_string(component_.outputs.size()));
    }
    Tensors named;
    for (std::size_t i = 0; i < results.size(); ++i) {
        named.emplace(component_.outputs[i].name, std::move(results[i]));
    }
    return named;
}

std::map<std::string, std::string> runtime_versions() {
    std::map<std::string, std::string> versions;
    for (const Runtime& runtime : runtimes()) versions[runtime.library] = runtime.version();
    return versions;
}

std::unique_ptr<Engine> open_engine(const std::string& runtime, const std::string& folder,
                                    const Component& component, const Place& place) {
    for (const Runtime& known : runtimes()) {
        for (const std::string& name : known.names) {
            if (name != runtime) continue;
            const auto path = std::filesystem::path(folder) / component.files.front();
            return known.open(path.string(), component, place);
        }
    }
    engine_error("this library was built without the runtime " + runtime);
}

}  // namespace dtg::host
