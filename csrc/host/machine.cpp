#include "machine.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#if defined(_WIN32)
#include <cstdlib>
#else
#include <dlfcn.h>
#include <sys/utsname.h>
#endif

#include "error.h"

namespace dtg::host {
namespace {

using Version = std::array<int, 4>;

// "2.13.0+cpu" is 2, 13, 0, 0.
Version numbers_of(const std::string& text) {
    Version numbers = {};
    std::size_t index = 0;
    bool inside = false;
    for (const char c : text.substr(0, text.find('+'))) {
        if (!std::isdigit(static_cast<unsigned char>(c))) {
            index += inside;
            inside = false;
        } else if (index < numbers.size()) {
            numbers[index] = 10 * numbers[index] + (c - '0');
            inside = true;
        }
    }
    return numbers;
}

// One of "10.13.3" (exactly), ">=8.0" and "<11".
bool holds(const std::string& constraint, const std::string& version) {
    const std::size_t first = constraint.find_first_of("0123456789");
    const std::string sign = constraint.substr(0, first);
    const Version here = numbers_of(version), wanted = numbers_of(constraint.substr(sign.size()));
    if (sign == ">=") return here >= wanted;
    if (sign == "<") return here < wanted;
    return here == wanted;
}

std::string version_misfit(const std::string& needed, const std::optional<std::string>& here,
                           const std::string& absent) {
    if (!here) return "the bundle needs " + needed + ", " + absent;
    std::istringstream parts(needed);
    for (std::string part; std::getline(parts, part, ',');) {
        if (!holds(part, *here)) return "the bundle needs " + needed + ", here is " + *here;
    }
    return "";
}

std::string same(const std::string& needed, const std::string& here) {
    return needed == here ? "" : "the bundle is for " + needed + ", this is " + here;
}

#if defined(_WIN32)
std::string system_name() { return "Windows"; }
std::string architecture() {
    const char* name = std::getenv("PROCESSOR_ARCHITECTURE");
    return name && std::string(name) == "ARM64" ? "arm64" : "x86_64";
}
std::optional<std::string> capability(int) { return std::nullopt; }
std::optional<std::string> driver() { return std::nullopt; }
#else
utsname machine_name() {
    utsname name = {};
    uname(&name);
    return name;
}
std::string system_name() { return machine_name().sysname; }
std::string architecture() { return machine_name().machine; }

// Functions of the CUDA driver, asked for by name so that a build needs no toolkit.
template <class... Arguments>
bool driver_call(const char* name, Arguments... arguments) {
    static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) return false;
    using Function = int (*)(Arguments...);
    const auto function = reinterpret_cast<Function>(dlsym(library, name));
    return function && function(arguments...) == 0;
}

std::optional<std::string> capability(int device_index) {
    constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
    int device = 0, major = 0, minor = 0;
    if (!driver_call("cuInit", 0u) || !driver_call("cuDeviceGet", &device, device_index) ||
        !driver_call("cuDeviceGetAttribute", &major, kMajor, device) ||
        !driver_call("cuDeviceGetAttribute", &minor, kMinor, device)) {
        return std::nullopt;
    }
    return std::to_string(major) + "." + std::to_string(minor);
}

std::optional<std::string> driver() {
    int number = 0;  // 13010 is 13.1
    if (!driver_call("cuInit", 0u) || !driver_call("cuDriverGetVersion", &number)) {
        return std::nullopt;
    }
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}
#endif

std::string isa_misfit(const Json& needed) {
    std::set<std::string> has;
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; has.empty() && std::getline(file, line);) {
        if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
        std::istringstream words(line.substr(line.find(':') + 1));
        for (std::string word; words >> word;) has.insert(word);
    }
    std::string absent;
    for (const Json& name : needed.array()) {
        if (has.count(name.string())) continue;
        absent += (absent.empty() ? "" : ", ") + name.string();
    }
    return absent.empty() ? "" : "the bundle needs " + absent + ", this processor has not";
}

std::string misfit(const std::string& field, const Json& needed,
                   const std::map<std::string, std::string>& libraries, int device_index) {
    if (field == "system") return same(needed.string(), system_name());
    if (field == "arch") return same(needed.string(), architecture());
    if (field == "isa") return isa_misfit(needed);
    if (field == "torch" || field == "onnxruntime" || field == "tensorrt") {
        const auto found = libraries.find(field);
        std::optional<std::string> here;
        if (found != libraries.end()) here = found->second;
        return version_misfit(needed.string(), here, "this library was built without it");
    }
    if (field == "compute_capability") {
        return version_misfit(needed.string(), capability(device_index), "there is no CUDA device");
    }
    if (field == "cuda_driver") {
        return version_misfit(needed.string(), driver(), "there is no CUDA device");
    }
    return "the bundle needs it, and this version does not know it";
}

}  // namespace

void require_machine(const Json& needs, const std::map<std::string, std::string>& libraries,
                     int device_index) {
    std::string problems;
    for (const auto& [field, needed] : needs.object()) {
        const std::string problem = misfit(field, needed, libraries, device_index);
        if (!problem.empty()) {
            problems += (problems.empty() ? "" : "; ") + field + ": " + problem;
        }
    }
    if (!problems.empty()) {
        engine_error("the bundle does not fit this machine: " + problems);
    }
}

}  // namespace dtg::host
