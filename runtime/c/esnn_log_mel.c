/* edgesnn C core: log-mel front end, bit for bit as compiler/front_end.py defines it. */
#include "esnn_stream.h"

#if defined(__GNUC__)
#define ESNN_APART __attribute__((noinline)) /* a loop that has the registers for itself */
#else
#define ESNN_APART
#endif

/* 256 log2(1 + (i + 1/2) / 64) */
static const uint8_t esnn_log2[64] = {
  3, 9, 14, 20, 25, 30, 36, 41, 46, 51, 56, 61, 66, 71, 75, 80,
  85, 89, 94, 98, 103, 107, 111, 116, 120, 124, 128, 132, 136, 140, 144, 148,
  152, 155, 159, 163, 167, 170, 174, 178, 181, 185, 188, 192, 195, 198, 202, 205,
  208, 212, 215, 218, 221, 224, 228, 231, 234, 237, 240, 243, 246, 249, 252, 255
};

/* floor(a b / 2^32) */
static inline int32_t esnn_high(int32_t a, int32_t b) {
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
  int32_t high;
  __asm__("smmul %0, %1, %2" : "=r"(high) : "r"(a), "r"(b)); /* no compiler finds it */
  return high;
#elif defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB == 1
  /* Cores with a product of 32 bits only: four products of halves, no sum of which overflows. */
  int32_t low_a = a & 0xFFFF, low_b = b & 0xFFFF;
  int32_t cross = (a >> 16) * low_b + (int32_t)((uint32_t)low_a * (uint32_t)low_b >> 16);
  int32_t other = low_a * (b >> 16) + (cross & 0xFFFF);
  return (a >> 16) * (b >> 16) + (cross >> 16) + (other >> 16);
#else
  return (int32_t)((int64_t)a * b >> 32);
#endif
}

/* sum + floor(a b / 2^32) */
static inline int32_t esnn_add_high(int32_t sum, int32_t a, int32_t b) {
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
  __asm__("smmla %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
#else
  return sum + esnn_high(a, b);
#endif
}

/* z[j] = v[2j] + i v[2j + 1] of the windowed samples v, in the order of the bits of j reversed. */
static void esnn_windowed(const esnn_log_mel *front, const int16_t *ring, uint32_t first, int32_t *work) {
  const uint32_t points = front->points, frame = front->frame;
  uint32_t at = first, place = 0, i, k, bit;
  for (i = 0; i < points; i += 8u) {
    const int16_t *x, *w;
    /* Four numbers whose places differ in the upper two bits, the first of which is the lowest bit of j. */
    int32_t *a = work + place, *b = a + points / 2u, *c = a + points / 4u, *d = b + points / 4u;
    int16_t samples[8], weights[8];
    if (i + 8u <= frame && at + 8u <= frame) {
      x = ring + at;
      w = front->window + i;
      at += 8u;
    } else { /* beyond the frame, or around the ring's end */
      for (k = 0; k < 8u; ++k) {
        at = at >= frame ? 0 : at;
        samples[k] = weights[k] = 0;
        if (i + k < frame) {
          weights[k] = front->window[i + k];
          samples[k] = ring[at++];
        }
      }
      x = samples;
      w = weights;
    }
    a[0] = (x[0] * w[0]) >> 1;
    a[1] = (x[1] * w[1]) >> 1;
    b[0] = (x[2] * w[2]) >> 1;
    b[1] = (x[3] * w[3]) >> 1;
    c[0] = (x[4] * w[4]) >> 1;
    c[1] = (x[5] * w[5]) >> 1;
    d[0] = (x[6] * w[6]) >> 1;
    d[1] = (x[7] * w[7]) >> 1;
    for (bit = points / 8u; (place & bit) != 0; bit >>= 1) {
      place ^= bit;
    }
    place |= bit;
  }
}

/* Stages 1 and 2 together: turns of 0 and a quarter only, cos 0 = one. */
static void esnn_first_stages(int32_t *work, uint32_t points, int32_t one) {
  int32_t *z;
  for (z = work; z < work + points; z += 8) {
    int32_t ar = z[0] >> 1, ai = z[1] >> 1, br = esnn_high(z[2], one), bi = esnn_high(z[3], one);
    int32_t cr = z[4] >> 1, ci = z[5] >> 1, dr = esnn_high(z[6], one), di = esnn_high(z[7], one);
    int32_t er = ar + br, ei = ai + bi, fr = ar - br, fi = ai - bi;
    int32_t gr = esnn_high(cr + dr, one), gi = esnn_high(ci + di, one);
    int32_t hr = esnn_high(cr - dr, one), hi = esnn_high(ci - di, one);
    z[0] = (er >> 1) + gr;
    z[1] = (ei >> 1) + gi;
    z[4] = (er >> 1) - gr;
    z[5] = (ei >> 1) - gi;
    z[2] = (fr >> 1) + hi;
    z[3] = (fi >> 1) - hr;
    z[6] = (fr >> 1) - hi;
    z[7] = (fi >> 1) + hr;
  }
}

/* a, b <- a / 2 +- b (c - i s) / 2 */
static inline void esnn_butterfly(int32_t *a, int32_t *b, int32_t c, int32_t s) {
  int32_t br = b[0], bi = b[1];
  int32_t tr = esnn_add_high(esnn_high(br, c), bi, s), ti = esnn_high(bi, c) - esnn_high(br, s);
  int32_t ar = a[0] >> 1, ai = a[1] >> 1;
  a[0] = ar + tr;
  b[0] = ar - tr;
  a[1] = ai + ti;
  b[1] = ai - ti;
}

/* The butterflies of a stage between the numbers at a...a + half and those behind them; half counts words. */
static ESNN_APART void esnn_butterflies(int32_t *a, uint32_t half, const int32_t *cosine, const int32_t *sine,
                                        uint32_t step) {
  const uint32_t part = half / 2u;
  const int32_t *end = a + part;
  do {
    int32_t c = *cosine, s = *sine, *b = a + half;
    esnn_butterfly(a, b, c, s);
    esnn_butterfly(a + part, b + part, -s, c); /* a quarter turn further */
    cosine += step;
    sine -= step;
    a += 2;
  } while (a != end);
}

static void esnn_transform(const esnn_log_mel *front, int32_t *work) {
  const uint32_t points = front->points;
  uint32_t half, step;
  int32_t *a;
  esnn_first_stages(work, points, front->quarter[0]);
  for (half = 8u, step = points / 8u; half < points; half *= 2u, step /= 2u) {
    for (a = work; a < work + points; a += 2u * half) {
      esnn_butterflies(a, half, front->quarter, front->quarter + points / 4u, step);
    }
  }
}

static inline uint32_t esnn_power(int32_t er, int32_t ei, int32_t odd_re, int32_t odd_im, int32_t c, int32_t s) {
  int32_t xr = esnn_add_high(esnn_add_high(er >> 1, odd_re, c), odd_im, s);
  int32_t xi = esnn_add_high(ei >> 1, odd_im, c) - esnn_high(odd_re, s);
  return (uint32_t)((uint64_t)((int64_t)xr * xr + (int64_t)xi * xi) >> 26); /* |x| < 2^29 */
}

/* From the transform Z of pairs to the power p of the bins, uint32_t[points / 2 + 1], in the same place. */
static void esnn_powers(const esnn_log_mel *front, int32_t *work) {
  const uint32_t m = front->points / 2u, n = m / 2u;
  const int32_t *cosine = front->quarter, *sine = cosine + n;
  uint32_t middle = esnn_power(work[m], 0, work[m + 1u], 0, *sine, *cosine);
  uint32_t last = esnn_power(work[0], 0, work[1], 0, -*cosine, *sine), k;
  work[0] = (int32_t)esnn_power(work[0], 0, work[1], 0, *cosine, *sine);
  /* Of Z[k] and Z[m - k], which are read for the last time: p[k] takes word k, p[m - k] the one before the last k. */
  for (k = 1; k < n; ++k) {
    const int32_t *a = work + 2u * k, *b = work + 2u * (m - k);
    int32_t re = b[0] - a[0], im = a[1] - b[1], er = (a[0] + b[0]) >> 1, odd_re = (a[1] + b[1]) >> 1;
    int32_t c = *++cosine, s = *--sine;
    work[k] = (int32_t)esnn_power(er, im >> 1, odd_re, re >> 1, c, s);
    work[2u * m - 1u - k] = (int32_t)esnn_power(er, -im >> 1, odd_re, -re >> 1, -c, s);
  }
  work[n] = (int32_t)middle;
  for (k = n + 1u; k < m; ++k) {
    work[k] = work[k + m - 1u];
  }
  work[m] = (int32_t)last;
}

/* 256 log2(e), 64 <= e < 2^48 */
static int32_t esnn_logarithm(uint64_t e) {
  uint32_t n = 31, bits; /* the highest bit of e, once it is bit 31 of `bits` */
  if (e >> 32 != 0) {
    e >>= 16;
    n = 47;
  }
  bits = (uint32_t)e;
#if defined(__GNUC__)
  n -= (uint32_t)__builtin_clz(bits);
  bits <<= __builtin_clz(bits);
#else
  for (; bits >> 31 == 0; bits <<= 1) {
    --n;
  }
#endif
  return (int32_t)(n * 256u) + esnn_log2[bits >> 25 & 63u];
}

/* Filter b rises over the bins of band b and falls over those of band b + 1. */
static void esnn_bands(const esnn_log_mel *front, const uint32_t *power, uint8_t *row) {
  const int16_t *band = front->band, *rise = front->rise, *end = band + front->points / 2u + 1u;
  uint64_t rising = 0; /* of the filter before */
  int32_t b;
  for (b = 0; b <= (int32_t)front->bands; ++b) {
    uint64_t up = 0, all = 0;
    for (; band < end && *band <= b; ++band, ++rise, ++power) {
      if (*band == b) { /* else it is in no filter */
        up += (uint64_t)*power * (uint16_t)*rise;
        all += *power;
      }
    }
    if (b > 0) {
      int32_t value = esnn_logarithm(rising + (all << 8) - up + 256u);
      int32_t scaled = ((value - front->offset[b - 1]) * front->gain) >> 12; /* a legal program's fits */
      row[b - 1] = (uint8_t)(scaled < 0 ? 0 : scaled > 255 ? 255 : scaled);
    }
    rising = up;
  }
}

void esnn_log_mel_row(const esnn_log_mel *front, const int16_t *ring, uint32_t first, int32_t *work, uint8_t *row) {
  esnn_windowed(front, ring, first, work);
  esnn_transform(front, work);
  esnn_powers(front, work);
  esnn_bands(front, (const uint32_t *)work, row);
}
