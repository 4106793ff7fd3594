// Attention in one pass over blocks of keys (Dao et al., FlashAttention, 2022), for the caches and
// registers of a CPU: the scores of a tile of queries against a block of keys stay in L1, the block
// itself, packed, in L2, and both products run from registers.
#include "dtg/attention.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#ifdef _OPENMP
#include <omp.h>
#endif

// Vector types and targets by function, as GCC has them on x86.
#if DTG_HAS_MULTIVERSION && defined(__GNUC__) && !defined(__clang__)
#define DTG_HAS_ATTENTION 1
#include <immintrin.h>
#else
#define DTG_HAS_ATTENTION 0
#endif

namespace dtg {

#if DTG_HAS_ATTENTION

namespace {

constexpr int kBlock = 512;          // keys of a block
constexpr int kRow = kBlock + 16;    // skewed, so that rows do not share the sets of L1
constexpr int kTaskQueries = 480;    // whole tiles for all instruction sets
constexpr std::size_t kLine = 64;    // bytes of a line of the cache
constexpr float kLog2E = 1.44269504088896340736f;

// One head: its operands, with strides in values.
struct Head {
    const void *q, *k, *v;
    void* out;
    std::int64_t q_row, k_row, v_row, out_row, keys, dim;
};

// Cuts memory into aligned arrays; without any it only counts.
class Carver {
   public:
    explicit Carver(void* memory) : next_(static_cast<char*>(memory)) {}
    template <class T>
    T* take(std::int64_t count) {
        char* const here = next_ + used_;
        used_ += (static_cast<std::size_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine;
        return reinterpret_cast<T*>(here);
    }

   private:
    char* next_;
    std::size_t used_ = 0;
};

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int kWidth = 8, kRows = 6, kPair = 1;
#include "attention_fp32.h"
#include "attention_tile.h"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,fma")
namespace avx512 {
constexpr int kWidth = 16, kRows = 12, kPair = 1;
#include "attention_fp32.h"
#include "attention_tile.h"
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,fma")
namespace avx512_bf16 {
constexpr int kWidth = 16, kRows = 12, kPair = 2;
using Element = std::uint16_t;
using Group = __m512bh;
typedef float Vector __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef std::int32_t Integer __attribute__((vector_size(kWidth * 4), may_alias));
using Lanes = __m512bh;
DTG_INLINE Group group(const Element* p) {
    std::int32_t both;
    std::memcpy(&both, p, sizeof both);
    return (Group)_mm512_set1_epi32(both);
}
DTG_INLINE Lanes lanes(const Element* p) { return (Lanes)_mm512_loadu_si512(p); }
DTG_INLINE Vector multiply_add(Vector sum, Group a, Lanes b) {
    return _mm512_dpbf16_ps((__m512)sum, a, b);
}
DTG_INLINE void store_weights(Element* p, Vector v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
DTG_INLINE Element narrow(float v) { return BFloat16::store(v); }
#include "attention_tile.h"
}  // namespace avx512_bf16
#pragma GCC pop_options

using Attend = void(const Head&, std::int64_t, std::int64_t, float, void*);

// The function for this processor; null where there is none.
Attend* select(Dtype dtype) {
    if (dtype == Dtype::kBFloat16) {
        return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl")
                   ? avx512_bf16::attend
                   : nullptr;
    }
    if (dtype != Dtype::kFloat32) return nullptr;
    if (__builtin_cpu_supports("avx512f")) return avx512::attend;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2::attend : nullptr;
}

// Bytes that `attend` carves at most, for fp32, the widest vectors and all the slack of alignment.
std::size_t scratch_bytes(std::int64_t queries, std::int64_t dim) {
    const std::int64_t rows = queries + avx512::kRows, panel = avx512::kPanel;
    const std::int64_t floats = (kBlock + panel) * dim + (kBlock + 2) * (dim + panel) +
                                avx512::kRows * (dim + 2 * kRow) +
                                rows * (dim + 1 + avx512::kWidth);
    const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
    return (bytes / kLine + 16) * kLine;
}

int thread_index() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

const char* head_of(const AttentionOperand& x, std::int64_t batch, std::int64_t head,
                    std::int64_t bytes) {
    return static_cast<const char*>(x.data) + (batch * x.batch + head * x.head) * bytes;
}

}  // namespace

bool attention_supported(Dtype dtype) { return select(dtype) != nullptr; }

void attention(const AttentionOperand& q, const AttentionOperand& k, const AttentionOperand& v,
               void* out, const AttentionShape& shape, float scale, Dtype dtype, int num_threads) {
    Attend* const attend = select(dtype);
    const std::int64_t bytes = dtype == Dtype::kFloat32 ? 4 : 2;
    const std::int64_t splits = (shape.queries + kTaskQueries - 1) / kTaskQueries;
    const std::int64_t tasks = shape.batch * shape.heads * splits;
    const std::int64_t out_row = shape.heads * shape.dim;
    const std::size_t each =
        scratch_bytes(std::min<std::int64_t>(shape.queries, kTaskQueries), shape.dim);
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, tasks));
    const std::unique_ptr<char[]> memory(new char[each * threads + kLine]);
    char* const scratch =
        memory.get() + (kLine - reinterpret_cast<std::uintptr_t>(memory.get()) % kLine) % kLine;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (std::int64_t task = 0; task < tasks; ++task) {
        const std::int64_t first = task % splits * kTaskQueries;
        const std::int64_t h = task / splits % shape.heads, b = task / splits / shape.heads;
        const Head head{head_of(q, b, h, bytes),
                        head_of(k, b, h, bytes),
                        head_of(v, b, h, bytes),
                        static_cast<char*>(out) +
                            (b * shape.queries * out_row + h * shape.dim) * bytes,
                        q.row,
                        k.row,
                        v.row,
                        out_row,
                        shape.keys,
                        shape.dim};
        attend(head, first, std::min(first + kTaskQueries, shape.queries), scale * kLog2E,
               scratch + each * thread_index());
    }
}

#else

bool attention_supported(Dtype) { return false; }

void attention(const AttentionOperand&, const AttentionOperand&, const AttentionOperand&, void*,
               const AttentionShape&, float, Dtype, int) {}

#endif

}  // namespace dtg
