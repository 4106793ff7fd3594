// Philox4x32-10 over the coordinates, then Box-Muller in fp64, rounded once to fp32.
//
// Four values in a row of x share one Philox block, as it yields four words and two words make two
// normals.  Sixteen blocks are computed side by side in loops that the compiler vectorises; the
// logarithm, sine and cosine are series written out here, because the library's are scalar calls.
#include "dtg/gaussian_noise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "dtg/multiversion.h"

namespace dtg {
namespace {

constexpr int kLanes = 16;                 // Philox blocks per batch
constexpr int kGroup = 4;                  // normals per Philox block, neighbours in x
constexpr std::int64_t kTaskBatches = 64;  // batches per parallel task

// The counters of a batch: x / 4, y, channel, frame.
struct Batch {
    std::uint32_t group[kLanes], y[kLanes], channel[kLanes], frame[kLanes];
};

DTG_INLINE std::uint32_t high(std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); }
DTG_INLINE std::uint32_t low(std::uint64_t v) { return static_cast<std::uint32_t>(v); }

DTG_INLINE void philox(std::uint64_t seed, const Batch& batch, std::uint32_t (&words)[4][kLanes]) {
    for (int i = 0; i < kLanes; ++i) {
        std::uint32_t c0 = batch.group[i], c1 = batch.y[i];
        std::uint32_t c2 = batch.channel[i], c3 = batch.frame[i];
        std::uint32_t k0 = low(seed), k1 = high(seed);
        for (int round = 0; round < 10; ++round) {
            const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
            const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
            c0 = high(p1) ^ c1 ^ k0;
            c1 = low(p1);
            c2 = high(p0) ^ c3 ^ k1;
            c3 = low(p0);
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        words[0][i] = c0;
        words[1][i] = c1;
        words[2][i] = c2;
        words[3][i] = c3;
    }
}

DTG_INLINE std::uint64_t to_bits(double v) {
    std::uint64_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits;
}

DTG_INLINE double from_bits(std::uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// log(u) of a positive normal u, to about 1e-14: u = 2^k m with m in [sqrt(1/2), sqrt(2)), and
// log(m) = 2 atanh((m - 1) / (m + 1)).
DTG_INLINE double log_of(double u) {
    constexpr std::uint64_t kSqrtHalf = 0x3FE6A09E667F3BCDu;
    constexpr std::uint64_t kMantissa = 0x000FFFFFFFFFFFFFu;
    const std::uint64_t shifted = to_bits(u) + (0x3FF0000000000000u - kSqrtHalf);
    // An integer below 2^52 becomes a double when it is laid into the mantissa of 2^52.
    const double k = from_bits((shifted >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
    const double m = from_bits((shifted & kMantissa) + kSqrtHalf);
    const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
    double sum = 1.0 / 19.0;
    sum = sum * s2 + 1.0 / 17.0;
    sum = sum * s2 + 1.0 / 15.0;
    sum = sum * s2 + 1.0 / 13.0;
    sum = sum * s2 + 1.0 / 11.0;
    sum = sum * s2 + 1.0 / 9.0;
    sum = sum * s2 + 1.0 / 7.0;
    sum = sum * s2 + 1.0 / 5.0;
    sum = sum * s2 + 1.0 / 3.0;
    return k * 0.693147180559945309417 + 2.0 * (s + s * s2 * sum);
}

// Taylor series for |a| <= pi / 4; the first term left out is below 2e-15.
DTG_INLINE double sin_of(double a) {
    const double a2 = a * a;
    double sum = -1.0 / 1307674368000.0;
    sum = sum * a2 + 1.0 / 6227020800.0;
    sum = sum * a2 - 1.0 / 39916800.0;
    sum = sum * a2 + 1.0 / 362880.0;
    sum = sum * a2 - 1.0 / 5040.0;
    sum = sum * a2 + 1.0 / 120.0;
    sum = sum * a2 - 1.0 / 6.0;
    return a + a * a2 * sum;
}

DTG_INLINE double cos_of(double a) {
    const double a2 = a * a;
    double sum = -1.0 / 87178291200.0;
    sum = sum * a2 + 1.0 / 479001600.0;
    sum = sum * a2 - 1.0 / 3628800.0;
    sum = sum * a2 + 1.0 / 40320.0;
    sum = sum * a2 - 1.0 / 720.0;
    sum = sum * a2 + 1.0 / 24.0;
    sum = sum * a2 - 0.5;
    return 1.0 + a2 * sum;
}

// fp64 of a uint32 by way of int32: the unsigned conversion has no AVX2 instruction.
DTG_INLINE double to_double(std::uint32_t v) {
    return static_cast<double>(static_cast<std::int32_t>(v ^ 0x80000000u)) + 2147483648.0;
}

// Two normals from two words: radius from the first, angle from the second.  Both uniforms sit in
// the middle of their cell of width 2^-32, so that neither 0 nor 1 occurs.
DTG_INLINE void box_muller(const std::uint32_t (&radius_word)[kLanes],
                           const std::uint32_t (&angle_word)[kLanes], int first,
                           float (&out)[kLanes][kGroup]) {
    constexpr double kTurn = 6.283185307179586476925 * 0x1p-32;
    for (int i = 0; i < kLanes; ++i) {
        const double u = (to_double(radius_word[i]) + 0.5) * 0x1p-32;
        const double r = std::sqrt(-2.0 * log_of(u));
        // The nearest quarter turn, and the exact rest in [-1/8, 1/8) turn.
        const std::uint32_t word = angle_word[i];
        const std::uint32_t quarter = (word + 0x20000000u) >> 30;
        const double rest = static_cast<double>(static_cast<std::int32_t>(word - (quarter << 30)));
        const double a = (rest + 0.5) * kTurn;
        const double s = sin_of(a), c = cos_of(a);
        const std::uint64_t swap = 0 - static_cast<std::uint64_t>(quarter & 1u);
        const std::uint64_t cos_bits = (to_bits(c) & ~swap) | (to_bits(s) & swap);
        const std::uint64_t sin_bits = (to_bits(s) & ~swap) | (to_bits(c) & swap);
        // cos is negative in quarters 1 and 2, sin in 2 and 3.
        const std::uint64_t cos_sign = static_cast<std::uint64_t>((quarter + 1u) & 2u) << 62;
        const std::uint64_t sin_sign = static_cast<std::uint64_t>(quarter & 2u) << 62;
        out[i][first] = static_cast<float>(r * from_bits(cos_bits ^ cos_sign));
        out[i][first + 1] = static_cast<float>(r * from_bits(sin_bits ^ sin_sign));
    }
}

DTG_MULTIVERSION void noise_batch(std::uint64_t seed, const Batch& batch,
                                  float (&out)[kLanes][kGroup]) {
    std::uint32_t words[4][kLanes];
    philox(seed, batch, words);
    box_muller(words[0], words[1], 0, out);
    box_muller(words[2], words[3], 2, out);
}

// Walks the Philox blocks of a window in the order of memory.
class Cursor {
  public:
    Cursor(const NoiseWindow& window, std::int64_t first_group, std::int64_t num_groups,
           std::int64_t index)
        : window_(window), first_group_(first_group), num_groups_(num_groups) {
        group_ = index % num_groups;
        row_ = index / num_groups;
        place_row();
    }

    void counters(Batch& batch, int lane) const {
        batch.group[lane] = static_cast<std::uint32_t>(first_group_ + group_);
        batch.y[lane] = y_;
        batch.channel[lane] = channel_;
        batch.frame[lane] = frame_;
    }

    void store(const float (&normals)[kGroup], float* out) const {
        float* const row = out + row_ * window_.width;
        const std::int64_t x = (first_group_ + group_) * kGroup - window_.x0;
        if (x >= 0 && x + kGroup <= window_.width) {
            std::memcpy(row + x, normals, sizeof normals);
            return;
        }
        for (int i = 0; i < kGroup; ++i) {
            if (x + i >= 0 && x + i < window_.width) row[x + i] = normals[i];
        }
    }

    void advance() {
        if (++group_ < num_groups_) return;
        group_ = 0;
        ++row_;
        place_row();
    }

  private:
    void place_row() {
        const std::int64_t plane = row_ / window_.height;
        y_ = static_cast<std::uint32_t>(window_.y0 + row_ % window_.height);
        channel_ = static_cast<std::uint32_t>(plane / window_.num_frames);
        frame_ = static_cast<std::uint32_t>(window_.start_frame + plane % window_.num_frames);
    }

    const NoiseWindow& window_;
    std::int64_t first_group_, num_groups_, group_, row_;
    std::uint32_t y_, channel_, frame_;
};

}  // namespace

void gaussian_noise(std::uint64_t seed, const NoiseWindow& window, float* out, int num_threads) {
    const std::int64_t num_rows = window.channels * window.num_frames * window.height;
    if (num_rows == 0 || window.width == 0) return;
    const std::int64_t first_group = window.x0 >> 2;  // rounds down, also where x0 is negative
    const std::int64_t num_groups = ((window.x0 + window.width - 1) >> 2) - first_group + 1;
    const std::int64_t total = num_rows * num_groups;
    const std::int64_t per_task = kTaskBatches * kLanes;
    const std::int64_t num_tasks = (total + per_task - 1) / per_task;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, num_tasks));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t task = 0; task < num_tasks; ++task) {
        const std::int64_t end = std::min((task + 1) * per_task, total);
        Cursor reader(window, first_group, num_groups, task * per_task);
        Cursor writer = reader;
        for (std::int64_t index = task * per_task; index < end; index += kLanes) {
            const int lanes = static_cast<int>(std::min<std::int64_t>(kLanes, end - index));
            Batch batch{};
            float normals[kLanes][kGroup];
            for (int lane = 0; lane < lanes; ++lane, reader.advance()) reader.counters(batch, lane);
            noise_batch(seed, batch, normals);
            for (int lane = 0; lane < lanes; ++lane, writer.advance()) {
                writer.store(normals[lane], out);
            }
        }
    }
}

}  // namespace dtg
