// Restores raw RGB frames from an engine bundle:
//
//     restore_raw BUNDLE INPUT OUTPUT WIDTH HEIGHT [NAME=VALUE ...]
//
// INPUT and OUTPUT hold nothing but frames, interleaved RGB, rows from the top: 8 bits a value where
// the name ends in .rgb, else fp32 in [0, 1].  Names are those of dtg_settings, such as steps=4, and
// threads.  The exit code is the library's status.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "dtg/dtg.h"

namespace {

struct Clip {
    std::vector<float> values;
    std::int64_t frames = 0;
};

int fail(dtg_status status, const std::string& message) {
    std::fprintf(stderr, "error: %s\n", message.c_str());
    return status;
}

bool is_8bit(const std::string& path) {
    return path.size() > 4 && path.substr(path.size() - 4) == ".rgb";
}

bool read(const std::string& path, std::int64_t frame_size, Clip& clip) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const std::size_t size = is_8bit(path) ? 1 : sizeof(float);
    const auto frame_bytes = static_cast<std::size_t>(frame_size) * size;
    if (!file || bytes.empty() || bytes.size() % frame_bytes != 0) return false;
    clip.values.resize(bytes.size() / size);
    clip.frames = static_cast<std::int64_t>(bytes.size() / frame_bytes);
    if (size == 1) {
        std::transform(bytes.begin(), bytes.end(), clip.values.begin(),
                       [](char c) { return static_cast<float>(static_cast<unsigned char>(c)) / 255; });
    } else {
        std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(clip.values.data()));
    }
    return true;
}

bool write(const std::string& path, const std::vector<float>& values) {
    std::ofstream file(path, std::ios::binary);
    if (is_8bit(path)) {
        for (const float value : values) {
            const float scaled = std::min(std::max(value, 0.0f), 1.0f) * 255;
            file.put(static_cast<char>(static_cast<unsigned char>(std::nearbyint(scaled))));
        }
    } else {
        file.write(reinterpret_cast<const char*>(values.data()),
                   static_cast<std::streamsize>(values.size() * sizeof(float)));
    }
    return static_cast<bool>(file.flush());
}

template <class Value>
auto number(Value dtg_settings::*member) {
    return [member](dtg_settings& s, const std::string& text) {
        std::istringstream stream(text);
        return stream >> s.*member && stream.eof();
    };
}

template <class Enum>
auto choice(Enum dtg_settings::*member, std::vector<std::string> names) {
    return [member, names](dtg_settings& s, const std::string& text) {
        const auto found = std::find(names.begin(), names.end(), text);
        s.*member = static_cast<Enum>(found - names.begin());
        return found != names.end();
    };
}

auto text(const char* dtg_settings::*member) {
    return [member](dtg_settings& s, const std::string& value) {
        s.*member = value.c_str();  // which the caller keeps
        return true;
    };
}

using S = dtg_settings;
using Set = std::function<bool(S&, const std::string&)>;

bool set(dtg_settings& settings, const std::string& name, const std::string& value) {
    static const std::map<std::string, Set> setters = {
        {"refine", number(&S::refine)},
        {"upscale", number(&S::upscale)},
        {"guidance", choice(&S::guidance, {"dtg", "cfg", "none"})},
        {"t_start", number(&S::t_start)},
        {"steps", number(&S::steps)},
        {"delta0", number(&S::delta0)},
        {"alpha0", number(&S::alpha0)},
        {"schedule", choice(&S::schedule, {"exponential", "cosine", "linear", "constant"})},
        {"kappa", number(&S::kappa)},
        {"space", choice(&S::space, {"velocity", "x0"})},
        {"alpha_clip", number(&S::alpha_clip)},
        {"tau_floor", number(&S::tau_floor)},
        {"solver", choice(&S::solver, {"euler", "heun"})},
        {"shift", number(&S::shift)},
        {"elide_tol", number(&S::elide_tol)},
        {"branches", choice(&S::branches, {"auto", "batched", "sequential"})},
        {"color_match", choice(&S::color_match, {"none", "wavelet", "adain"})},
        {"seed", number(&S::seed)},
        {"chunk", number(&S::chunk)},
        {"overlap", number(&S::overlap)},
        {"tile_width", number(&S::tile_width)},
        {"tile_height", number(&S::tile_height)},
        {"tile_overlap", number(&S::tile_overlap)},
        {"tile_batch", number(&S::tile_batch)},
        {"prompt", text(&S::prompt)},
        {"negative_prompt", text(&S::negative_prompt)},
        {"prompt_embeds", text(&S::prompt_embeds)},
    };
    const auto found = setters.find(name);
    return found != setters.end() && found->second(settings, value);
}

int show(double fraction, void*) {
    std::fprintf(stderr, "\r%3.0f %%", 100 * fraction);
    return 0;
}

int restore(dtg_bundle* bundle, const dtg_settings& settings, const std::string& source,
            const std::string& target, std::int64_t width, std::int64_t height) {
    Clip clip;
    if (!read(source, width * height * 3, clip)) {
        return fail(DTG_INPUT, source + " holds no whole frames of that size");
    }
    std::int64_t out_height = 0, out_width = 0;
    dtg_status status =
        dtg_output_size(bundle, &settings, height, width, &out_height, &out_width);
    if (status != DTG_OK) return fail(status, dtg_last_error());
    std::vector<float> out(static_cast<std::size_t>(clip.frames * out_height * out_width * 3));
    status = dtg_restore(bundle, &settings, clip.values.data(), clip.frames, height, width,
                         out.data(), show, nullptr);
    std::fputc('\n', stderr);
    if (status != DTG_OK) return fail(status, dtg_last_error());
    if (!write(target, out)) return fail(DTG_INPUT, target + " cannot be written");
    std::printf("%lld frames of %lldx%lld pixels\n", static_cast<long long>(clip.frames),
                static_cast<long long>(out_width), static_cast<long long>(out_height));
    return DTG_OK;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 6) {
        return fail(DTG_CONFIG, "restore_raw BUNDLE INPUT OUTPUT WIDTH HEIGHT [NAME=VALUE ...]");
    }
    dtg_options options;
    dtg_options_default(&options);
    std::vector<std::pair<std::string, std::string>> given;
    for (int i = 6; i < count; ++i) {
        const std::string argument = arguments[i];
        const auto equal = std::min(argument.find('='), argument.size() - 1);
        given.emplace_back(argument.substr(0, equal), argument.substr(equal + 1));
        if (given.back().first == "threads") options.threads = std::atoi(given.back().second.c_str());
    }
    dtg_bundle* bundle = nullptr;
    dtg_status status = dtg_open(arguments[1], &options, &bundle);
    if (status != DTG_OK) return fail(status, dtg_last_error());
    dtg_settings settings;
    status = dtg_settings_default(bundle, &settings);
    for (const auto& [name, value] : given) {
        if (status == DTG_OK && name != "threads" && !set(settings, name, value)) {
            status = DTG_CONFIG;
            fail(status, name + "=" + value + " is no setting");
        }
    }
    if (status == DTG_OK) {
        status = static_cast<dtg_status>(restore(bundle, settings, arguments[2], arguments[3],
                                                 std::atoll(arguments[4]), std::atoll(arguments[5])));
    }
    dtg_close(bundle);
    return status;
}
