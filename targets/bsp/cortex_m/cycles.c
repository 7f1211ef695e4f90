/* Cycle counter of the DWT (32 bits, at the processor clock) where there is one and it counts, else SysTick at
 * the same clock. Armv7-M ARM, C1.8 and C1.6.5; Armv8-M ARM, D1.2. */
#include "bsp.h"
#include "cortex_m/systick.h"
#include "reg.h"

#define DWT_CTRL BSP_REG(0xE0001000u)
#define DWT_CYCCNT BSP_REG(0xE0001004u)
#define DEMCR BSP_REG(0xE000EDFCu)
#define CTRL_CYCCNTENA 1u
#define CTRL_NOCYCCNT (1u << 25)
#define DEMCR_TRCENA (1u << 24)

static uint32_t begin;
static uint32_t found; /* 0: not looked yet, 1: CYCCNT counts, 2: it does not */

/* A DWT that does not exist reads as zeros, so it is asked to count. */
static uint32_t cycles_count(void) {
  DEMCR |= DEMCR_TRCENA;
  __asm__ volatile("dsb\n isb" ::: "memory");
  if ((DWT_CTRL & CTRL_NOCYCCNT) != 0u) {
    return 2u;
  }
  DWT_CTRL |= CTRL_CYCCNTENA;
  uint32_t before = DWT_CYCCNT;
  __asm__ volatile("dsb\n isb\n nop\n nop\n nop\n nop" ::: "memory");
  return DWT_CYCCNT != before ? 1u : 2u;
}

void bsp_ticks_start(void) {
  if (found == 0u) {
    found = cycles_count();
  }
  if (found == 1u) {
    begin = DWT_CYCCNT;
  } else {
    systick_start();
  }
}

uint32_t bsp_ticks(void) { return found == 1u ? DWT_CYCCNT - begin : systick_ticks(); }
