/* Micro-kernels for 32-bit cores without packed arithmetic: two int16 membranes in a word as
 * hi * 65536 + (lo + 32768), two weights as hi * 65536 + lo. One addition adds both exactly: the low half never
 * leaves 0...65535 in the end, and carries of partial sums cancel modulo 2^32. */
#ifndef ESNN_PAIRS_H
#define ESNN_PAIRS_H

#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) esnn_pair;

#define ESNN_PAIRS_8               \
  "ldmia %[w]!, {r2-r5}\n"         \
  "ldmia %[u], {r6-r9}\n"          \
  "add r6, r6, r2\n"               \
  "add r7, r7, r3\n"               \
  "add r8, r8, r4\n"               \
  "add r9, r9, r5\n"               \
  "stmia %[u]!, {r6-r9}\n"

/* u[r * u_step + k] += w[r * w_step + k] for r < rows, k < n; all counts are multiples of 4. */
static __attribute__((noinline, unused)) void esnn_rows_pairs(int16_t *u, const uint32_t *w, int32_t n, int32_t rows,
                                                      int32_t u_step, int32_t w_step) {
  esnn_pair *to = (esnn_pair *)(void *)u;
  u_step = (u_step - n) / 2;
  w_step = (w_step - n) / 2;
#pragma GCC unroll 1
  for (; rows > 0; --rows) {
    int32_t left = n;
#if defined(__thumb2__)
    __asm__ volatile(
        "subs %[k], %[k], #32\n"
        "blt 2f\n"
        "1:\n" ESNN_PAIRS_8 ESNN_PAIRS_8 ESNN_PAIRS_8 ESNN_PAIRS_8
        "subs %[k], %[k], #32\n"
        "bge 1b\n"
        "2: adds %[k], %[k], #28\n"
        "blt 4f\n"
        "3: ldmia %[w]!, {r2, r3}\n"
        "ldmia %[u], {r6, r7}\n"
        "add r6, r6, r2\n"
        "add r7, r7, r3\n"
        "stmia %[u]!, {r6, r7}\n"
        "subs %[k], %[k], #4\n"
        "bge 3b\n"
        "4:\n"
        : [u] "+r"(to), [w] "+r"(w), [k] "+r"(left)
        :
        : "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "cc", "memory");
#else
    for (; left >= 8; left -= 8, to += 4, w += 4) {
      to[0] += w[0];
      to[1] += w[1];
      to[2] += w[2];
      to[3] += w[3];
    }
    for (; left > 0; left -= 4, to += 2, w += 2) {
      to[0] += w[0];
      to[1] += w[1];
    }
#endif
    to += u_step;
    w += w_step;
  }
}

/* Bits of the n <= 32 membranes with u >= theta; n is a multiple of 4. */
#define ESNN_PAIRS_FIRE(name, reset_low, reset_high)                                             \
  static __attribute__((noinline, unused)) uint32_t name(int16_t *u, const int16_t *theta, int32_t n) { \
    esnn_pair *at = (esnn_pair *)(void *)u;                                                      \
    const esnn_pair *limit = (const esnn_pair *)(const void *)theta;                             \
    uint32_t fired = 0;                                                                          \
    int32_t k;                                                                                   \
    for (k = 0; k < n; k += 2, ++at, ++limit) {                                                  \
      uint32_t pair = *at;                                                                       \
      uint32_t both = *limit;                                                                    \
      if ((int32_t)(pair | 0xFFFFu) >= (int32_t)both) {                                          \
        fired |= 2u << k;                                                                        \
        reset_high;                                                                              \
      }                                                                                          \
      if (pair << 16 >= (both << 16) + 0x80000000u) {                                            \
        fired |= 1u << k;                                                                        \
        reset_low;                                                                               \
      }                                                                                          \
    }                                                                                            \
    return fired;                                                                                \
  }

ESNN_PAIRS_FIRE(esnn_fire_soft_pairs, *at -= both & 0xFFFFu, *at -= both & 0xFFFF0000u)
ESNN_PAIRS_FIRE(esnn_fire_hard_pairs, *at = (*at & 0xFFFF0000u) | 0x8000u, *at &= 0xFFFFu)
ESNN_PAIRS_FIRE(esnn_fire_none_pairs, (void)0, (void)0)

#endif
