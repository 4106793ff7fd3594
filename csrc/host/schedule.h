// Flow times and annealing, as engine/schedule.py has them, to the last bit of double.
#pragma once

#include <vector>

#include "dtg/dtg.h"

namespace dtg::host {

// The steps + 1 nodes of a run, from t_start to 0.
std::vector<dtg_node> nodes_of(const dtg_settings& settings);

}  // namespace dtg::host
