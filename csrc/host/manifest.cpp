#include "manifest.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "error.h"
#include "sha256.h"

namespace dtg::host {
namespace {

constexpr std::int64_t kFormat = 1;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kDigest = "sha256";  // in the file: of all the rest of it

std::vector<TensorSpec> specs_of(const Json& side) {
    std::vector<TensorSpec> specs;
    for (const auto& [name, spec] : side.object()) {
        if (spec.array().size() != 2) engine_error("a tensor has a shape and a type");
        std::vector<std::string> axes;
        for (const Json& axis : spec.array()[0].array()) {
            axes.push_back(axis.is_string() ? axis.string() : std::to_string(axis.integer()));
        }
        specs.push_back({name, axes, type_named(spec.array()[1].string())});
    }
    return specs;
}

Component component_of(const std::string& name, const Json& data) {
    Component made{name, {}, specs_of(data.at("inputs")), specs_of(data.at("outputs"))};
    for (const Json& file : data.at("files").array()) made.files.push_back(file.string());
    if (made.files.empty()) engine_error(name + " has no files");
    return made;
}

Manifest manifest_of(const Json& data) {
    const std::int64_t format = data.at("format").integer();
    if (format != kFormat) {
        engine_error("its format is " + std::to_string(format) + ", and " +
                     std::to_string(kFormat) + " is read: export it again");
    }
    if (data.at(kDigest).string() != sha256(data.canonical(kDigest))) {
        engine_error("its sum differs; export it again");
    }
    Manifest made{data.at("key").string(),       data.at("runtime").string(),
                  data.at("device").string(),    data.at("precision").string(),
                  data.at("models"),             data.at("needs"),
                  {},                            {}};
    for (const auto& [name, component] : data.at("components").object()) {
        made.components.emplace(name, component_of(name, component));
    }
    for (const auto& [name, facts] : data.at("files").object()) {
        made.files[name] = {facts.at("sha256").string(), facts.at("bytes").integer()};
    }
    return made;
}

[[noreturn]] void damaged(const std::filesystem::path& file, const std::string& reason) {
    engine_error(file.string() + " is damaged: " + reason + "; export the bundle again");
}

}  // namespace

Manifest read_manifest(const std::string& folder) {
    const auto path = std::filesystem::path(folder) / kManifest;
    std::ifstream file(path, std::ios::binary);
    if (!file) engine_error(folder + " is no bundle: it has no " + kManifest);
    std::ostringstream text;
    text << file.rdbuf();
    try {
        return manifest_of(Json::parse(text.str()));
    } catch (const Error& error) {
        engine_error(path.string() + " cannot be used: " + error.what());
    }
}

void verify_files(const std::string& folder, const Manifest& manifest) {
    namespace fs = std::filesystem;
    for (const auto& [name, component] : manifest.components) {
        for (const std::string& file : component.files) {
            if (!manifest.files.count(file)) {
                engine_error(folder + ": " + name + " needs " + file + ", of which there is no sum");
            }
        }
    }
    for (const auto& [name, facts] : manifest.files) {
        const fs::path file = fs::path(folder) / name;
        std::error_code error;
        const auto bytes = fs::file_size(file, error);
        if (error) damaged(file, "it is missing");
        if (static_cast<std::int64_t>(bytes) != facts.second) {
            damaged(file, "it has " + std::to_string(bytes) + " bytes, not " +
                              std::to_string(facts.second));
        }
        if (sha256_of_file(file.string()) != facts.first) damaged(file, "its SHA-256 differs");
    }
}

}  // namespace dtg::host
