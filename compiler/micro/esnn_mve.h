/* Micro-kernels for cores with MVE (Cortex-M55): int16 membranes, eight in a vector. All counts are multiples of 8. */
#ifndef ESNN_MVE_H
#define ESNN_MVE_H

#include <stdint.h>

#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>

#define ESNN_MVE_8                  \
  "vldrb.s16 q0, [%[w]], #8\n"      \
  "vldrh.u16 q1, [%[u]]\n"          \
  "vadd.i16 q1, q1, q0\n"           \
  "vstrh.16 q1, [%[u]], #16\n"

#endif

/* u[r * u_step + k] += w[r * w_step + k] for r < rows, k < n. */
static __attribute__((noinline, unused)) void esnn_rows_mve(int16_t *u, const int8_t *w, int32_t n, int32_t rows,
                                                    int32_t u_step, int32_t w_step) {
  u_step -= n;
  w_step -= n;
#pragma GCC unroll 1
  for (; rows > 0; --rows) {
#if defined(__ARM_FEATURE_MVE)
    int32_t many = n / 32;
    int32_t left = n % 32 / 8;
    __asm__ volatile(
        "wls lr, %[many], 2f\n"
        "1:\n" ESNN_MVE_8 ESNN_MVE_8 ESNN_MVE_8 ESNN_MVE_8
        "le lr, 1b\n"
        "2: wls lr, %[left], 4f\n"
        "3:\n" ESNN_MVE_8
        "le lr, 3b\n"
        "4:\n"
        : [u] "+r"(u), [w] "+l"(w)
        : [many] "r"(many), [left] "r"(left)
        : "lr", "q0", "q1", "cc", "memory");
#else /* the same, for any machine */
    int32_t k;
    for (k = 0; k < n; ++k, ++u, ++w) {
      *u = (int16_t)(*u + *w);
    }
#endif
    u += u_step;
    w += w_step;
  }
}

/* Four events that reach the same membranes, in one pass over them; their weights begin at w + at[0...3]. */
static __attribute__((noinline, unused)) void esnn_four_mve(int16_t *u, const int8_t *w, const int32_t *at, int32_t n,
                                                            int32_t rows, int32_t u_step, int32_t w_step) {
  const int8_t *a = w + at[0], *b = w + at[1], *c = w + at[2], *d = w + at[3];
  u_step -= n;
  w_step -= n;
#pragma GCC unroll 1
  for (; rows > 0; --rows) {
#if defined(__ARM_FEATURE_MVE)
    int32_t left = n / 8;
    __asm__ volatile(
        "wls lr, %[left], 2f\n"
        "1: vldrh.u16 q1, [%[u]]\n"
        "vldrb.s16 q0, [%[a]], #8\n"
        "vadd.i16 q1, q1, q0\n"
        "vldrb.s16 q0, [%[b]], #8\n"
        "vadd.i16 q1, q1, q0\n"
        "vldrb.s16 q0, [%[c]], #8\n"
        "vadd.i16 q1, q1, q0\n"
        "vldrb.s16 q0, [%[d]], #8\n"
        "vadd.i16 q1, q1, q0\n"
        "vstrh.16 q1, [%[u]], #16\n"
        "le lr, 1b\n"
        "2:\n"
        : [u] "+r"(u), [a] "+l"(a), [b] "+l"(b), [c] "+l"(c), [d] "+l"(d)
        : [left] "r"(left)
        : "lr", "q0", "q1", "cc", "memory");
#else
    int32_t k;
    for (k = 0; k < n; ++k, ++u, ++a, ++b, ++c, ++d) {
      *u = (int16_t)(*u + *a + *b + *c + *d);
    }
#endif
    u += u_step;
    a += w_step;
    b += w_step;
    c += w_step;
    d += w_step;
  }
}

/* `count` events into the same n membranes: 32 of these stay in registers while all events pass. Event e's weights
 * begin at w + at[e]. */
static __attribute__((noinline, unused)) void esnn_held_mve(int16_t *u, const int8_t *w, const int32_t *at,
                                                            int32_t count, int32_t n) {
#if defined(__ARM_FEATURE_MVE)
  for (; n >= 32; n -= 32, u += 32, w += 32) {
    const int32_t *next = at;
    const int8_t *from;
    __asm__ volatile(
        "vldrh.u16 q0, [%[u]]\n"
        "vldrh.u16 q1, [%[u], #16]\n"
        "vldrh.u16 q2, [%[u], #32]\n"
        "vldrh.u16 q3, [%[u], #48]\n"
        "dls lr, %[count]\n"
        "1: ldr %[from], [%[next]], #4\n"
        "add %[from], %[from], %[w]\n"
        "vldrb.s16 q4, [%[from]]\n"
        "vadd.i16 q0, q0, q4\n"
        "vldrb.s16 q5, [%[from], #8]\n"
        "vadd.i16 q1, q1, q5\n"
        "vldrb.s16 q4, [%[from], #16]\n"
        "vadd.i16 q2, q2, q4\n"
        "vldrb.s16 q5, [%[from], #24]\n"
        "vadd.i16 q3, q3, q5\n"
        "le lr, 1b\n"
        "vstrh.16 q0, [%[u]]\n"
        "vstrh.16 q1, [%[u], #16]\n"
        "vstrh.16 q2, [%[u], #32]\n"
        "vstrh.16 q3, [%[u], #48]\n"
        : [next] "+r"(next), [from] "=&l"(from)
        : [u] "r"(u), [w] "r"(w), [count] "r"(count)
        : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "cc", "memory");
  }
#endif
  if (n > 0) {
    for (; count > 0; --count, ++at) {
      esnn_rows_mve(u, w + *at, n, 1, 0, 0);
    }
  }
}

#if defined(__ARM_FEATURE_MVE)
/* Bits of the n <= 32 membranes with u >= theta. A predicate has two bits a membrane. */
#define ESNN_MVE_FIRE(name, reset, one)                                                                 \
  static __attribute__((noinline, unused)) uint32_t name(int16_t *u, const int16_t *theta, int32_t n) { \
    uint32_t fired = 0;                                                                                 \
    int32_t k;                                                                                          \
    for (k = 0; k < n; k += 8) {                                                                        \
      int16x8_t value = vldrhq_s16(u + k);                                                              \
      int16x8_t limit = vldrhq_s16(theta + k);                                                          \
      mve_pred16_t where = vcmpgeq_s16(value, limit);                                                   \
      uint32_t bits = where;                                                                            \
      if (bits != 0u) {                                                                                 \
        reset;                                                                                          \
        bits &= 0x5555u;                                                                                \
        bits = (bits | bits >> 1) & 0x3333u;                                                            \
        bits = (bits | bits >> 2) & 0x0F0Fu;                                                            \
        fired |= ((bits | bits >> 4) & 0xFFu) << k;                                                     \
      }                                                                                                 \
    }                                                                                                   \
    return fired;                                                                                       \
  }
#else
#define ESNN_MVE_FIRE(name, reset, one)                                                                 \
  static __attribute__((noinline, unused)) uint32_t name(int16_t *u, const int16_t *theta, int32_t n) { \
    uint32_t fired = 0;                                                                                 \
    int32_t k;                                                                                          \
    for (k = 0; k < n; ++k) {                                                                           \
      if (u[k] >= theta[k]) {                                                                           \
        fired |= 1u << k;                                                                               \
        one;                                                                                            \
      }                                                                                                 \
    }                                                                                                   \
    return fired;                                                                                       \
  }
#endif

ESNN_MVE_FIRE(esnn_fire_soft_mve, vstrhq_s16(u + k, vsubq_m_s16(value, value, limit, where)),
              u[k] = (int16_t)(u[k] - theta[k]))
ESNN_MVE_FIRE(esnn_fire_hard_mve, vstrhq_s16(u + k, vdupq_m_n_s16(value, 0, where)), u[k] = 0)
ESNN_MVE_FIRE(esnn_fire_none_mve, (void)0, (void)0)

#endif
