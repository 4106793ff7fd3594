// What a bundle needs of the machine, see engine/bundle/machine.py.
#pragma once

#include <map>
#include <string>

#include "json.h"

namespace dtg::host {

// Engine error that names every field of `needs` that this machine has not.  `libraries` are the
// runtimes that this build has, with their versions.
void require_machine(const Json& needs, const std::map<std::string, std::string>& libraries,
                     int device_index);

}  // namespace dtg::host
