// What a caller of the host library can meet; the codes are the exit codes of the command line.
#pragma once

#include <stdexcept>
#include <string>

#include "dtg/dtg.h"

namespace dtg::host {

class Error : public std::runtime_error {
  public:
    Error(dtg_status status, const std::string& message)
        : std::runtime_error(message), status_(status) {}
    dtg_status status() const { return status_; }

  private:
    dtg_status status_;
};

[[noreturn]] inline void config_error(const std::string& message) {
    throw Error(DTG_CONFIG, message);
}
[[noreturn]] inline void input_error(const std::string& message) {
    throw Error(DTG_INPUT, message);
}
[[noreturn]] inline void engine_error(const std::string& message) {
    throw Error(DTG_ENGINE, message);
}

}  // namespace dtg::host
