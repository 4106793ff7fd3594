#include "schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dtg::host {
namespace {

constexpr double kPi = 3.141592653589793;
constexpr double kAlphaOne = 0x1p-20;  // an alpha as near to 1 is exactly 1
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Python's x ** 2 calls pow; for a constant exponent compilers put x * x in its place, which may
// differ in the last bit.
double square(double x) {
    volatile double two = 2.0;
    return std::pow(x, two);
}

double decay(dtg_schedule_name schedule, double s, double kappa) {
    switch (schedule) {
        case DTG_EXPONENTIAL:
            return std::expm1(kappa * s) / std::expm1(kappa);
        case DTG_COSINE:
            return (1 - std::cos(kPi * s)) / 2;
        case DTG_LINEAR:
            return s;
        default:
            return 1.0;
    }
}

std::vector<double> flow_times(int num_steps, double t_start, double shift) {
    const double first = t_start / (shift - (shift - 1) * t_start);
    std::vector<double> times;
    for (int i = 0; i <= num_steps; ++i) {
        const double u = first * (num_steps - i) / num_steps;
        times.push_back(shift * u / (1 + (shift - 1) * u));
    }
    times.front() = t_start;
    times.back() = 0.0;
    return times;
}

double snr(double t) { return t == 0 ? kInfinity : square((1 - t) / t); }

double alpha_max(double t, double tau) {
    const double gap = square(t) - square(tau);
    if (gap <= 0 || t >= 1) return kInfinity;
    return (square(1 - tau) / snr(t) - square(tau)) / gap;
}

dtg_node node_at(const dtg_settings& dtg, double t) {
    const double f = decay(dtg.schedule, t / dtg.t_start, dtg.kappa);
    const double tau = std::max(t - dtg.delta0 * f, dtg.tau_floor * t);
    double alpha = 1 + (dtg.alpha0 - 1) * f;
    if (dtg.alpha_clip) alpha = std::min(alpha, alpha_max(t, tau));
    if (std::abs(alpha - 1) <= kAlphaOne) alpha = 1.0;
    const double ratio = dtg.space == DTG_VELOCITY || t == 0 ? 1.0 : tau / t;
    return {t, tau, alpha, alpha, (1 - alpha) * ratio};
}

}  // namespace

std::vector<dtg_node> nodes_of(const dtg_settings& dtg) {
    std::vector<dtg_node> nodes;
    for (const double t : flow_times(dtg.steps, dtg.t_start, dtg.shift)) {
        nodes.push_back(node_at(dtg, t));
    }
    return nodes;
}

}  // namespace dtg::host
