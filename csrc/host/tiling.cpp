#include "tiling.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace dtg::host {
namespace {

std::vector<std::int64_t> starts_of(std::int64_t size, std::int64_t window, std::int64_t overlap,
                                    std::int64_t multiple) {
    if (window >= size) return {0};
    // Python's division rounds down, and an overlap may exceed a window that spans its axis.
    const std::int64_t room = std::max<std::int64_t>(0, window - overlap);
    const std::int64_t step = std::max(multiple, room / multiple * multiple);
    const std::int64_t gaps = (size - window + step - 1) / step;
    const std::int64_t units = (size - window) / multiple;
    std::vector<std::int64_t> starts;
    for (std::int64_t i = 0; i <= gaps; ++i) {
        const double place = static_cast<double>(i * units) / static_cast<double>(gaps);
        // nearbyint rounds halves to even, as Python's round does.
        starts.push_back(static_cast<std::int64_t>(std::nearbyint(place)) * multiple);
    }
    return starts;
}

// One window per start: linear ramps inside, flat at the ends of the axis, normalised so that they
// sum to one at each of the `size` places.
std::map<std::int64_t, std::vector<float>> ramps(const std::set<std::int64_t>& starts,
                                                 std::int64_t window, std::int64_t size) {
    std::vector<double> total(static_cast<std::size_t>(size), 0.0);
    std::map<std::int64_t, std::vector<double>> profiles;
    for (const std::int64_t start : starts) {
        auto& profile = profiles[start];
        for (std::int64_t i = 0; i < window; ++i) {
            const auto left = start > 0 ? i + 1 : window;
            const auto right = start + window < size ? window - i : window;
            profile.push_back(static_cast<double>(std::min(left, right)));
            total[static_cast<std::size_t>(start + i)] += profile.back();
        }
    }
    std::map<std::int64_t, std::vector<float>> normalised;
    for (const auto& [start, profile] : profiles) {
        for (std::size_t i = 0; i < profile.size(); ++i) {
            const double sum = total[static_cast<std::size_t>(start) + i];
            normalised[start].push_back(static_cast<float>(profile[i] / sum));
        }
    }
    return normalised;
}

}  // namespace

std::vector<Chunk> ChunkGrid::chunks(std::int64_t num_frames) const {
    std::vector<Chunk> made;
    for (std::int64_t i = 0; num_frames > (i == 0 ? 0 : i * stride() + overlap); ++i) {
        made.push_back({i, i * stride(), std::min(i * stride() + length, num_frames)});
    }
    return made;
}

std::vector<Tile> tiles_of(std::int64_t height, std::int64_t width, std::int64_t tile_height,
                           std::int64_t tile_width, std::int64_t overlap, std::int64_t multiple) {
    const std::int64_t h = std::min(tile_height ? tile_height : height, height);
    const std::int64_t w = std::min(tile_width ? tile_width : width, width);
    std::vector<Tile> tiles;
    for (const std::int64_t y : starts_of(height, h, overlap, multiple)) {
        for (const std::int64_t x : starts_of(width, w, overlap, multiple)) {
            tiles.push_back({y, x, h, w});
        }
    }
    return tiles;
}

Windows windows_of(const std::vector<Tile>& tiles, std::int64_t height, std::int64_t width) {
    std::set<std::int64_t> rows, columns;
    for (const Tile& tile : tiles) {
        rows.insert(tile.y);
        columns.insert(tile.x);
    }
    const auto vertical = ramps(rows, tiles[0].height, height);
    const auto horizontal = ramps(columns, tiles[0].width, width);
    Windows windows;
    for (const Tile& tile : tiles) {
        const auto& y = vertical.at(tile.y);
        const auto& x = horizontal.at(tile.x);
        windows.y.insert(windows.y.end(), y.begin(), y.end());
        windows.x.insert(windows.x.end(), x.begin(), x.end());
    }
    return windows;
}

std::vector<std::int64_t> reflect_index(std::int64_t size, std::int64_t length) {
    std::vector<std::int64_t> index;
    for (std::int64_t i = 0; i < length; ++i) {
        const std::int64_t folded = size == 1 ? 0 : i % (2 * (size - 1));
        index.push_back(folded < size ? folded : 2 * (size - 1) - folded);
    }
    return index;
}

std::int64_t round_up(std::int64_t size, std::int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

}  // namespace dtg::host
