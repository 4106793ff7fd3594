// What attention_tile.h asks for, with fp32 operands and kWidth lanes.  No include guard: it is
// included for several instruction sets.

using Element = float;
using Group = float;
typedef float Vector __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef std::int32_t Integer __attribute__((vector_size(kWidth * 4), may_alias));
using Lanes = Vector;
DTG_INLINE Group group(const Element* p) { return *p; }
DTG_INLINE Lanes lanes(const Element* p) { return *reinterpret_cast<const Lanes*>(p); }
DTG_INLINE Vector multiply_add(Vector sum, Group a, Lanes b) { return sum + a * b; }
DTG_INLINE void store_weights(Element* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
DTG_INLINE Element narrow(float v) { return v; }
