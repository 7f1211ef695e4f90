/* A DWT for QEMU's machines, which have none: its counter moves by TEST_DWT_STEP with every access. */
#ifndef DWT_MODEL_H
#define DWT_MODEL_H

#include <stdint.h>

#define DWT_CTRL_AT 0xE0001000u
#define DWT_CYCCNT_AT 0xE0001004u
#define DEMCR_AT 0xE000EDFCu

static inline volatile uint32_t *dwt_model(uint32_t address) {
  static volatile uint32_t control = TEST_DWT_CTRL, count = 0xFFFFFF00u, trace;
  if (address == DWT_CTRL_AT) {
    return &control;
  }
  if (address == DEMCR_AT) {
    return &trace;
  }
  if (address == DWT_CYCCNT_AT) {
    if ((control & 1u) != 0u && (trace & 1u << 24) != 0u) { /* switched on, as is tracing */
      count += TEST_DWT_STEP;
    }
    return &count;
  }
  return (volatile uint32_t *)address;
}

#define BSP_REG(address) (*dwt_model(address))

#endif
