/* The counter of chips without a cycle counter, and of QEMU: SysTick. */
#include "bsp.h"
#include "cortex_m/systick.h"

void bsp_ticks_start(void) { systick_start(); }

uint32_t bsp_ticks(void) { return systick_ticks(); }
