#include "settings.h"

#include <algorithm>
#include <array>
#include <sstream>
#include <string>

#include "error.h"

namespace dtg::host {
namespace {

template <class Value>
void between(const char* name, Value value, Value low, Value high) {
    if (value >= low && value <= high) return;  // refuses nan, too
    std::ostringstream text;
    text << name << " is " << value << ": it must lie between " << low << " and " << high;
    config_error(text.str());
}

template <std::size_t N>
int index_of(const std::array<const char*, N>& names, const std::string& name) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) engine_error("the bundle has an unknown setting \"" + name + "\"");
    return static_cast<int>(found - names.begin());
}

constexpr std::array<const char*, 4> kSchedules = {"exponential", "cosine", "linear", "constant"};
constexpr std::array<const char*, 2> kSpaces = {"velocity", "x0"};
constexpr std::array<const char*, 2> kSolvers = {"euler", "heun"};

}  // namespace

void set_defaults(const Json& guidance, dtg_settings& settings) {
    settings.t_start = guidance.at("t_start").number();
    settings.steps = static_cast<int>(guidance.at("steps").integer());
    settings.delta0 = guidance.at("delta0").number();
    settings.alpha0 = guidance.at("alpha0").number();
    settings.schedule = static_cast<dtg_schedule_name>(
        index_of(kSchedules, guidance.at("schedule").string()));
    settings.kappa = guidance.at("kappa").number();
    settings.space = static_cast<dtg_space>(index_of(kSpaces, guidance.at("space").string()));
    settings.alpha_clip = guidance.at("alpha_clip").boolean();
    settings.tau_floor = guidance.at("tau_floor").number();
    settings.solver = static_cast<dtg_solver>(index_of(kSolvers, guidance.at("solver").string()));
    settings.shift = guidance.at("shift").number();
}

void check(const dtg_settings& s) {
    between("t_start", s.t_start, 1e-3, 1.0);
    between("steps", s.steps, 1, 1000);
    between("delta0", s.delta0, 0.0, 1.0);
    between("alpha0", s.alpha0, 0.0, 50.0);
    between("kappa", s.kappa, 1e-3, 50.0);
    between("tau_floor", s.tau_floor, 0.0, 1.0);
    between("shift", s.shift, 0.01, 100.0);
    between("elide_tol", s.elide_tol, 0.0, 1.0);
    between<int>("guidance", s.guidance, DTG_GUIDANCE_DTG, DTG_GUIDANCE_NONE);
    between<int>("schedule", s.schedule, DTG_EXPONENTIAL, DTG_CONSTANT);
    between<int>("space", s.space, DTG_VELOCITY, DTG_X0);
    between<int>("solver", s.solver, DTG_EULER, DTG_HEUN);
    between<int>("branches", s.branches, DTG_BRANCHES_AUTO, DTG_BRANCHES_SEQUENTIAL);
    between<int>("color_match", s.color_match, DTG_COLOR_NONE, DTG_COLOR_ADAIN);
    between<std::uint64_t>("seed", s.seed, 0, (std::uint64_t{1} << 63) - 1);
    between("chunk", s.chunk, 0, 100'000);
    between("overlap", s.overlap, -1, 100'000);
    between("tile_width", s.tile_width, 0, 100'000);
    between("tile_height", s.tile_height, 0, 100'000);
    between("tile_overlap", s.tile_overlap, -1, 100'000);
    between("tile_batch", s.tile_batch, 0, 100'000);
    if (!s.refine && !s.upscale) {
        config_error("refine and upscale are both off: there is nothing to do");
    }
    if (!s.refine && s.color_match != DTG_COLOR_NONE) {
        config_error("color_match belongs to the refinement, and refine is off");
    }
}

dtg_settings with_guidance(dtg_settings s) {
    if (s.guidance != DTG_GUIDANCE_DTG) s.delta0 = 0;
    if (s.guidance == DTG_GUIDANCE_CFG) s.schedule = DTG_CONSTANT;
    if (s.guidance == DTG_GUIDANCE_NONE) s.alpha0 = 1;
    return s;
}

}  // namespace dtg::host
