// Shared by the files compiled once per instruction set: ATROUS_TARGET is its name, ATROUS_WIDTH its floats per vector.
#pragma once

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define ATROUS_INLINE inline __attribute__((always_inline))
#define ATROUS_INLINE_LAMBDA __attribute__((always_inline))
#define ATROUS_STRING_OF(x) #x
#define ATROUS_STRING(x) ATROUS_STRING_OF(x)
#define ATROUS_JOIN_OF(a, b) a##b
#define ATROUS_JOIN(a, b) ATROUS_JOIN_OF(a, b)
