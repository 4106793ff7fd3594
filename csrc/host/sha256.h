// SHA-256 (FIPS 180-4), to check the files of a bundle.
#pragma once

#include <string>
#include <string_view>

namespace dtg::host {

// In hexadecimal.
std::string sha256(std::string_view bytes);
// Of a file, in bounded memory; engine error where it cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace dtg::host
