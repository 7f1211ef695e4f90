/* The latency encoder on cores with MVE: each output is a dot product of int8 vectors, 16 samples at a time.
 *
 * Samples become int8 by flipping the top bit of unsigned ones, which shifts all sums of a channel by a constant that
 * the limits contain. Windows without a sample that differs from the zero point are left out: the compiler knows how
 * they spike. Without MVE the same is computed by loops. Geometry arguments are constants where it is called. */
#ifndef ESNN_GATHER_H
#define ESNN_GATHER_H

#include <stdint.h>
#include <string.h>

#include "esnn_bits.h"
#include "esnn_planes.h"

#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#endif

#define ESNN_GATHER_32(join)                                                                                 \
  __asm__ volatile("vldrb.u8 q0, [%[a]]\n"                                                                   \
                   "vldrb.u8 q1, [%[a], #16]\n"                                                              \
                   "vldrb.u8 q2, [%[b]]\n"                                                                   \
                   "vldrb.u8 q3, [%[b], #16]\n"                                                              \
                   "dls lr, %[n]\n"                                                                          \
                   "1: vldrb.u8 q4, [%[w]], #16\n"                                                           \
                   "vldrb.u8 q5, [%[w]], #16\n"                                                              \
                   "vmladav.s8 r4, q0, q4\n"                                                                 \
                   "vmladava.s8 r4, q1, q5\n"                                                                \
                   "vmladav.s8 r6, q2, q4\n"                                                                 \
                   "vmladava.s8 r6, q3, q5\n"                                                                \
                   "cmp r4, r6\n"                                                                            \
                   "csel r4, r4, r6, gt\n" join "str r4, [%[best]], #4\n"                                   \
                   "le lr, 1b\n"                                                                             \
                   : [w] "+r"(weights), [best] "+r"(best)                                                    \
                   : [a] "r"(a), [b] "r"(b), [n] "r"(n)                                                      \
                   : "r4", "r6", "lr", "q0", "q1", "q2", "q3", "q4", "q5", "cc", "memory")

/* best[o] = max over two patches of their products with weights[o, 16 * chunks]; and over `best` unless `first`. */
ESNN_APART void esnn_gather_pair(const int8_t *a, const int8_t *b, const int8_t *weights, int32_t *best, int32_t n,
                                 int32_t chunks, int32_t first) {
#if defined(__ARM_FEATURE_MVE)
  if (chunks == 2) { /* 17 to 32 taps: both patches stay in registers */
    if (first) {
      ESNN_GATHER_32("");
    } else {
      ESNN_GATHER_32("ldr r6, [%[best]]\n cmp r4, r6\n csel r4, r4, r6, gt\n");
    }
    return;
  }
#endif
  for (; n > 0; --n, ++best) {
    int32_t x = 0, y = 0, k;
    for (k = 0; k < chunks; ++k, weights += 16) {
#if defined(__ARM_FEATURE_MVE)
      int8x16_t w = vldrbq_s8(weights);
      x = vmladavaq_s8(x, vldrbq_s8(a + 16 * k), w);
      y = vmladavaq_s8(y, vldrbq_s8(b + 16 * k), w);
#else
      int32_t i;
      for (i = 0; i < 16; ++i) {
        x += a[16 * k + i] * weights[i];
        y += b[16 * k + i] * weights[i];
      }
#endif
    }
    x = y > x ? y : x;
    *best = first || x > *best ? x : *best;
  }
}

/* n bytes; up to 15 more are written behind them. */
ESNN_INLINE void esnn_gather_copy(int8_t *to, const int8_t *from, int32_t n) {
  for (; n > 0; n -= 16, to += 16, from += 16) {
#if defined(__ARM_FEATURE_MVE)
    vstrbq_s8(to, vldrbq_s8(from));
#else
    memcpy(to, from, 16);
#endif
  }
}

/* `taps_y` rows of `taps` samples, `line` apart, one behind the other. */
ESNN_APART void esnn_gather_patch(int8_t *patch, const int8_t *rows, int32_t line, int32_t taps_y, int32_t taps) {
  int32_t k;
  for (k = 0; k < taps_y; ++k, patch += taps, rows += line) {
    esnn_gather_copy(patch, rows, taps);
  }
}

/* Padded int8 rows from row `from` on; busy[i] is not 0 where sample column i of any of them is not blank. */
ESNN_APART void esnn_gather_rows(int8_t *rows, uint8_t *busy, const uint8_t *x, int32_t from, int32_t count,
                                 int32_t line, int32_t before, int32_t width, int32_t h, int32_t flip,
                                 int32_t blank) {
  int32_t r, i;
  memset(rows, blank, (size_t)(count * line + 16));
  memset(busy, 0, (size_t)(line + 16));
  for (r = 0; r < count; ++r) {
    if (from + r >= 0 && from + r < h) {
      const uint8_t *in = x + (from + r) * width;
      int8_t *out = rows + r * line + before;
      uint8_t *seen = busy + before;
#if defined(__ARM_FEATURE_MVE)
      uint8x16_t top = vdupq_n_u8((uint8_t)flip), none = vdupq_n_u8((uint8_t)blank);
      for (i = 0; i < width; i += 16) {
        mve_pred16_t lanes = vctp8q((uint32_t)(width - i));
        uint8x16_t value = veorq_u8(vldrbq_z_u8(in + i, lanes), top);
        vstrbq_p_s8(out + i, (int8x16_t)value, lanes);
        vstrbq_p_u8(seen + i, vorrq_u8(vldrbq_u8(seen + i), veorq_u8(value, none)), lanes);
      }
#else
      for (i = 0; i < width; ++i) {
        out[i] = (int8_t)(in[i] ^ flip);
        seen[i] |= (uint8_t)(out[i] ^ blank);
      }
#endif
    }
  }
}

ESNN_INLINE int32_t esnn_gather_busy(const uint8_t *busy, int32_t n) {
  int32_t i;
#if defined(__ARM_FEATURE_MVE)
  for (i = 0; i < n; i += 16) {
    mve_pred16_t lanes = vctp8q((uint32_t)(n - i));
    if (vcmpneq_m_n_u8(vldrbq_u8(busy + i), 0, lanes) != 0) {
      return 1;
    }
  }
#else
  for (i = 0; i < n; ++i) {
    if (busy[i] != 0) {
      return 1;
    }
  }
#endif
  return 0;
}

/* Bit o: best[o] reaches its limit, for o < n <= 32. */
ESNN_INLINE uint32_t esnn_gather_loud(const int32_t *best, const int32_t *limits, int32_t n) {
  uint32_t loud = 0;
  int32_t o;
#if defined(__ARM_FEATURE_MVE)
  for (o = 0; o < n; o += 4) {
    uint32_t where = vcmpgeq_s32(vldrwq_s32(best + o), vldrwq_s32(limits + o));
    if (where != 0u) {
      loud |= ((where & 1u) | (where >> 3 & 2u) | (where >> 6 & 4u) | (where >> 9 & 8u)) << o;
    }
  }
  return loud & ~0u >> (32 - n);
#else
  for (o = 0; o < n; ++o) {
    loud |= (uint32_t)(best[o] >= limits[o]) << o;
  }
  return loud;
#endif
}

/* Spikes of pooled row `row` in steps begin + 1 ... end: bits in planes[steps, plane] of words, which are 0 before;
 * counts[steps] += events. x[h, width]; weights[co, 16 * chunks]; limits[steps - 1, co] do not increase with the step.
 * blank[steps, words + 1]: the words, and the events, of a window whose sums are 0. line: bytes of a padded row, which
 * `before` bytes of padding begin. A tap row has `taps` bytes, a step to the next output `next` bytes.
 * scratch: best[co], busy[line + 16], rows[rows, line] + 16, patches of 16 * chunks each + 16, in multiples of 16. */
ESNN_APART int32_t esnn_gather(const void *x, const int8_t *weights, const int32_t *limits, const uint32_t *blank,
                               int32_t row, int32_t begin, int32_t end, void *scratch, void *planes, int32_t *counts,
                               int32_t h, int32_t width, int32_t line, int32_t before, int32_t top, int32_t sy,
                               int32_t next, int32_t taps_y, int32_t taps, int32_t chunks, int32_t co,
                               int32_t channels, int32_t ph, int32_t pw, int32_t across, int32_t bits,
                               int32_t words, int32_t plane, int32_t steps, int32_t flip, int32_t none) {
  int32_t count = (ph - 1) * sy + taps_y, column, k, t, blanks = 0;
  int32_t base = row * across * words, many = ph * pw;
  int32_t *best = (int32_t *)scratch;
  uint8_t *busy = (uint8_t *)scratch + ((4 * co + 15) & ~15);
  int8_t *rows = (int8_t *)busy + ((line + 16 + 15) & ~15);
  int8_t *patches = rows + ((count * line + 16 + 15) & ~15);
  esnn_gather_rows(rows, busy, (const uint8_t *)x, row * ph * sy - top, count, line, before, width, h, flip, none);
#pragma GCC unroll 1
  for (column = 0; column < across; ++column, base += words) {
    int32_t start = column * pw * next;
    if (!esnn_gather_busy(busy + start, (pw - 1) * next + taps)) {
      for (t = begin; t < end; ++t) {
        for (k = 0; k < words; ++k) {
          esnn_put(planes, bits, t * plane + base + k, blank[t * (words + 1) + k]);
        }
      }
      ++blanks;
      continue;
    }
#pragma GCC unroll 1
    for (k = 0; k < many; ++k) {
      esnn_gather_patch(patches + 16 * chunks * k, rows + (k / pw) * sy * line + start + (k % pw) * next, line,
                        taps_y, taps);
    }
#pragma GCC unroll 1
    for (k = 0; k < many; k += 2) {
      int32_t other = k + 1 < many ? k + 1 : k;
      esnn_gather_pair(patches + 16 * chunks * k, patches + 16 * chunks * other, weights, best, co, chunks, k == 0);
    }
    for (k = 0; k < words; ++k) {
      int32_t n = channels - k * bits < bits ? channels - k * bits : bits;
      uint32_t rest = ~0u >> (32 - n), spiked = 0;
      for (t = 0; t < end && rest != 0u; ++t) {
        spiked = t < steps - 1 ? esnn_gather_loud(best + k * bits, limits + t * co + k * bits, n) & rest : rest;
        rest &= ~spiked;
        if (t >= begin && spiked != 0u) {
          esnn_put(planes, bits, t * plane + base + k, spiked);
          counts[t] += esnn_count_bits(spiked);
        }
      }
    }
  }
  for (t = begin; t < end && blanks != 0; ++t) {
    counts[t] += blanks * (int32_t)blank[t * (words + 1) + words];
  }
  return 0;
}

#endif
