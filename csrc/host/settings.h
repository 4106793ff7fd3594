// The settings of a run, checked.
#pragma once

#include "dtg/dtg.h"
#include "json.h"

namespace dtg::host {

// The sampler's settings of BackboneFacts.defaults, as JSON, put into `settings`.
void set_defaults(const Json& guidance, dtg_settings& settings);

// Config error where a value is out of its range; the message names it.
void check(const dtg_settings& settings);

// The same settings with `guidance` worked in: CFG and no guidance are settings of the sampler.
dtg_settings with_guidance(dtg_settings settings);

}  // namespace dtg::host
