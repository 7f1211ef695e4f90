/* Words of spike maps, for micro-kernels; and how those are declared. */
#ifndef ESNN_PLANES_H
#define ESNN_PLANES_H

#include <stdint.h>

#define ESNN_INLINE static inline __attribute__((always_inline))
/* Called once or twice with constants, which GCC specialises; apart, each has the registers to itself. */
#define ESNN_APART static __attribute__((noinline, unused))

ESNN_INLINE void esnn_put(void *map, int32_t bits, int32_t i, uint32_t word) {
  if (bits == 8) {
    ((uint8_t *)map)[i] = (uint8_t)word;
  } else if (bits == 16) {
    ((uint16_t *)map)[i] = (uint16_t)word;
  } else {
    ((uint32_t *)map)[i] = word;
  }
}

ESNN_INLINE uint32_t esnn_get(const void *map, int32_t bits, int32_t i) {
  return bits == 8 ? ((const uint8_t *)map)[i] : bits == 16 ? ((const uint16_t *)map)[i] : ((const uint32_t *)map)[i];
}

#endif
