/* Metal's arithmetic functions of scalars, and those of vectors that kernels use. */
#pragma once

#include "vectors.h"

namespace metal {

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline half fma(half a, half b, half c) {
    /* In double the product and the sum are exact, or rounded far below half's last bit. */
    return static_cast<half>(static_cast<double>(a) * b + c);
}

template <class T, uint n>
vec<T, n> fma(vec<T, n> a, vec<T, n> b, vec<T, n> c) {
    for (uint i = 0; i < n; i++) {
        c[i] = fma(a[i], b[i], c[i]);
    }
    return c;
}

template <class T, uint n>
T dot(vec<T, n> a, vec<T, n> b) {
    T sum = a[0] * b[0];
    for (uint i = 1; i < n; i++) {
        sum = fma(a[i], b[i], sum);
    }
    return sum;
}

inline float rint(float x) { return __builtin_rintf(x); }
inline float floor(float x) { return __builtin_floorf(x); }
inline float ceil(float x) { return __builtin_ceilf(x); }
inline float fabs(float x) { return __builtin_fabsf(x); }
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return __builtin_isinf(x); }

namespace precise {
inline float sqrt(float x) { return __builtin_sqrtf(x); }
} // namespace precise

inline float sqrt(float x) { return precise::sqrt(x); }

template <class T>
T abs(T x) {
    return x < T(0) ? T(-x) : x;
}

/* Of a number and no number, the number, as Metal has it. */
template <class T>
T max(T a, T b) {
    return b > a || a != a ? b : a;
}

template <class T>
T min(T a, T b) {
    return b < a || a != a ? b : a;
}

template <class T>
T clamp(T x, T least, T most) {
    return min(max(x, least), most);
}

template <class T>
T select(T otherwise, T chosen, bool choice) {
    return choice ? chosen : otherwise;
}

inline uint mulhi(uint a, uint b) { return static_cast<uint>(uint64_t{a} * b >> 32); }
inline ulong mulhi(ulong a, ulong b) {
    return static_cast<ulong>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline uint popcount(uint x) { return static_cast<uint>(__builtin_popcount(x)); }
inline uint clz(uint x) { return x == 0 ? 32 : static_cast<uint>(__builtin_clz(x)); }
inline uint ctz(uint x) { return x == 0 ? 32 : static_cast<uint>(__builtin_ctz(x)); }

inline uint reverse_bits(uint x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

} // namespace metal
