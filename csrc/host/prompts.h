// What a bundle's backbone is conditioned on: tags, or text whose embeddings it holds.
#pragma once

#include <string>

#include "bundle.h"
#include "dtg/dtg.h"
#include "facts.h"

namespace dtg::host {

// The input of the condition's engine that the prompts make, with its name: "tags" (2,), or "text"
// (2, L, D).  Config error for a prompt that the bundle does not hold.
std::pair<std::string, Tensor> prompt_input(const Bundle& bundle, const BackboneFacts& facts,
                                            const dtg_settings& settings);

}  // namespace dtg::host
