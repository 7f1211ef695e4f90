/* Micro-kernels for cores with the DSP extension (Cortex-M4, M7, M33): int16 membranes, two in a register.
 *
 * Weights lie in groups of four as 0, 2, 1, 3: SXTAB16 adds bytes 0 and 2 of a word to two membranes and, with a
 * rotation by eight, bytes 1 and 3 to the next two. All counts are multiples of 4, all addresses of 4. */
#ifndef ESNN_DSP_H
#define ESNN_DSP_H

#include <stdint.h>

#if defined(__ARM_FEATURE_DSP)
#define ESNN_DSP_16                        \
  "ldmia %[w]!, {r2, r3}\n"                \
  "ldmia %[u], {r4-r11}\n"                 \
  "sxtab16 r4, r4, r2\n"                   \
  "sxtab16 r5, r5, r2, ror #8\n"           \
  "sxtab16 r6, r6, r3\n"                   \
  "sxtab16 r7, r7, r3, ror #8\n"           \
  "ldmia %[w]!, {r2, r3}\n"                \
  "sxtab16 r8, r8, r2\n"                   \
  "sxtab16 r9, r9, r2, ror #8\n"           \
  "sxtab16 r10, r10, r3\n"                 \
  "sxtab16 r11, r11, r3, ror #8\n"         \
  "stmia %[u]!, {r4-r11}\n"

#endif

/* u[r * u_step + k] += w[r * w_step + k] for r < rows, k < n. */
static __attribute__((noinline, unused)) void esnn_rows_dsp(int16_t *u, const int8_t *w, int32_t n, int32_t rows,
                                                            int32_t u_step, int32_t w_step) {
  u_step -= n;
  w_step -= n;
#pragma GCC unroll 1
  for (; rows > 0; --rows) {
    int32_t left = n;
#if defined(__ARM_FEATURE_DSP)
    __asm__ volatile(
        "subs %[k], %[k], #64\n"
        "blt 2f\n"
        "1:\n" ESNN_DSP_16 ESNN_DSP_16 ESNN_DSP_16 ESNN_DSP_16
        "subs %[k], %[k], #64\n"
        "bge 1b\n"
        "2: adds %[k], %[k], #48\n"
        "blt 3f\n"
        "6:\n" ESNN_DSP_16
        "subs %[k], %[k], #16\n"
        "bge 6b\n"
        "3: adds %[k], %[k], #12\n"
        "blt 5f\n"
        "4: ldr r2, [%[w]], #4\n"
        "ldmia %[u], {r4, r5}\n"
        "sxtab16 r4, r4, r2\n"
        "sxtab16 r5, r5, r2, ror #8\n"
        "stmia %[u]!, {r4, r5}\n"
        "subs %[k], %[k], #4\n"
        "bge 4b\n"
        "5:\n"
        : [u] "+r"(u), [w] "+r"(w), [k] "+r"(left)
        :
        : "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "cc", "memory");
#else /* the same, for any machine */
    for (; left > 0; left -= 4, u += 4, w += 4) {
      u[0] = (int16_t)(u[0] + w[0]);
      u[1] = (int16_t)(u[1] + w[2]);
      u[2] = (int16_t)(u[2] + w[1]);
      u[3] = (int16_t)(u[3] + w[3]);
    }
#endif
    u += u_step;
    w += w_step;
  }
}

#if defined(__ARM_FEATURE_DSP)
/* Eight outputs of one event: four registers of membranes, two of weights. */
#define ESNN_DSP_8(w)              \
  "ldmia %[" w "]!, {r8, r9}\n"    \
  "sxtab16 r4, r4, r8\n"           \
  "sxtab16 r5, r5, r8, ror #8\n"   \
  "sxtab16 r6, r6, r9\n"           \
  "sxtab16 r7, r7, r9, ror #8\n"

#define ESNN_DSP_4(w)              \
  "ldr r8, [%[" w "]], #4\n"       \
  "sxtab16 r4, r4, r8\n"           \
  "sxtab16 r5, r5, r8, ror #8\n"

/* The same of two more events, whose bytes are added to those in r8 and r9 before they are widened. */
#define ESNN_DSP_MORE(w)           \
  "ldmia %[" w "]!, {r10, r11}\n"  \
  "sadd8 r8, r8, r10\n"            \
  "sadd8 r9, r9, r11\n"

#define ESNN_DSP_MORE_4(w)         \
  "ldr r10, [%[" w "]], #4\n"      \
  "sadd8 r8, r8, r10\n"

#define ESNN_DSP_ROWS4(eight, four)                                                                          \
  __asm__ volatile("subs %[k], %[k], #8\n"                                                                   \
                   "blt 2f\n"                                                                                \
                   "1: ldmia %[u], {r4-r7}\n" eight "stmia %[u]!, {r4-r7}\n"                                 \
                   "subs %[k], %[k], #8\n"                                                                   \
                   "bge 1b\n"                                                                                \
                   "2: adds %[k], %[k], #4\n"                                                                \
                   "blt 3f\n"                                                                                \
                   "ldmia %[u], {r4, r5}\n" four "stmia %[u]!, {r4, r5}\n"                                   \
                   "3:\n"                                                                                    \
                   : [u] "+r"(u), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [k] "+r"(left)         \
                   :                                                                                        \
                   : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "cc", "memory")
#else
#define ESNN_DSP_ROWS4(eight, four)                                     \
  for (; left > 0; left -= 4, u += 4, a += 4, b += 4, c += 4, d += 4) { \
    u[0] = (int16_t)(u[0] + a[0] + b[0] + c[0] + d[0]);                 \
    u[1] = (int16_t)(u[1] + a[2] + b[2] + c[2] + d[2]);                 \
    u[2] = (int16_t)(u[2] + a[1] + b[1] + c[1] + d[1]);                 \
    u[3] = (int16_t)(u[3] + a[3] + b[3] + c[3] + d[3]);                 \
  }
#endif

/* Four events that reach the same membranes, in one pass over them; their weights begin at w + at[0...3]. */
#define ESNN_DSP_SEVERAL(name, eight, four)                                                                   \
  static __attribute__((noinline, unused)) void name(int16_t *u, const int8_t *w, const int32_t *at, int32_t n, \
                                                     int32_t rows, int32_t u_step, int32_t w_step) {         \
    const int8_t *a = w + at[0], *b = w + at[1], *c = w + at[2], *d = w + at[3];                             \
    u_step -= n;                                                                                             \
    w_step -= n;                                                                                             \
    _Pragma("GCC unroll 1") \
    for (; rows > 0; --rows) {                                                                               \
      int32_t left = n;                                                                                      \
      ESNN_DSP_ROWS4(eight, four);                                                                           \
      u += u_step;                                                                                           \
      a += w_step;                                                                                           \
      b += w_step;                                                                                           \
      c += w_step;                                                                                           \
      d += w_step;                                                                                           \
    }                                                                                                        \
  }

ESNN_DSP_SEVERAL(esnn_four_dsp, ESNN_DSP_8("a") ESNN_DSP_8("b") ESNN_DSP_8("c") ESNN_DSP_8("d"),
                 ESNN_DSP_4("a") ESNN_DSP_4("b") ESNN_DSP_4("c") ESNN_DSP_4("d"))
/* For weights of -32...31, of which four add up in a byte. */
ESNN_DSP_SEVERAL(esnn_four6_dsp,
                 "ldmia %[a]!, {r8, r9}\n" ESNN_DSP_MORE("b") ESNN_DSP_MORE("c") ESNN_DSP_MORE("d")
                 "sxtab16 r4, r4, r8\n sxtab16 r5, r5, r8, ror #8\n"
                 "sxtab16 r6, r6, r9\n sxtab16 r7, r7, r9, ror #8\n",
                 "ldr r8, [%[a]], #4\n" ESNN_DSP_MORE_4("b") ESNN_DSP_MORE_4("c") ESNN_DSP_MORE_4("d")
                 "sxtab16 r4, r4, r8\n sxtab16 r5, r5, r8, ror #8\n")

/* Whether one of eight membranes may have reached its threshold. The sign of a wrapped difference never hides a
 * spike: where u >= theta >= 1 the difference fits. */
static inline int32_t esnn_dsp_any(const int16_t *u, const int16_t *theta) {
#if defined(__ARM_FEATURE_DSP)
  uint32_t quiet;
  __asm__("ldmia %[u], {r4-r7}\n"
          "ldmia %[t], {r8-r11}\n"
          "ssub16 r4, r4, r8\n"
          "ssub16 r5, r5, r9\n"
          "ssub16 r6, r6, r10\n"
          "ssub16 r7, r7, r11\n"
          "and r4, r4, r5\n"
          "and r4, r4, r6\n"
          "and %[q], r4, r7\n"
          : [q] "=r"(quiet)
          : [u] "r"(u), [t] "r"(theta), "m"(*(const int16_t(*)[8])u)
          : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11");
  return (~quiet & 0x80008000u) != 0u;
#else
  int32_t k, any = 0;
  for (k = 0; k < 8; ++k) {
    any |= u[k] >= theta[k];
  }
  return any;
#endif
}

/* Bits of the n <= 32 membranes with u >= theta. */
#define ESNN_DSP_FIRE(name, reset)                                                                             \
  static __attribute__((noinline, unused)) uint32_t name##_some(int16_t *u, const int16_t *theta, int32_t n) { \
    uint32_t fired = 0, bit = 1;                                                                               \
    for (; n > 0; --n, ++u, ++theta, bit <<= 1) {                                                              \
      if (*u >= *theta) {                                                                                      \
        fired |= bit;                                                                                          \
        reset;                                                                                                 \
      }                                                                                                        \
    }                                                                                                          \
    return fired;                                                                                              \
  }                                                                                                            \
  static __attribute__((noinline, unused)) uint32_t name(int16_t *u, const int16_t *theta, int32_t n) {        \
    uint32_t fired = 0;                                                                                        \
    int32_t k = 0;                                                                                             \
    for (; k + 8 <= n; k += 8) {                                                                               \
      if (esnn_dsp_any(u + k, theta + k)) {                                                                    \
        fired |= name##_some(u + k, theta + k, 8) << k;                                                        \
      }                                                                                                        \
    }                                                                                                          \
    return k == n ? fired : fired | name##_some(u + k, theta + k, n - k) << k;                                 \
  }

ESNN_DSP_FIRE(esnn_fire_soft_dsp, *u = (int16_t)(*u - *theta))
ESNN_DSP_FIRE(esnn_fire_hard_dsp, *u = 0)
ESNN_DSP_FIRE(esnn_fire_none_dsp, (void)0)

#endif
