/* From reset to main on any core: data, stack paint, guard, clocks, UART. */
#include "bsp.h"

#define STACK_PAINT 0xC5C5C5C5u

extern const uint32_t bsp_data_load[];
extern uint32_t bsp_data_start[], bsp_data_end[];
extern uint32_t bsp_bss_start[], bsp_bss_end[];

/* A board that has them brings its own. */
__attribute__((weak)) void bsp_clock_init(void) {}
__attribute__((weak)) void bsp_watchdog_start(void) {}
__attribute__((weak)) void bsp_watchdog_kick(void) {}

static uint32_t stack_pointer(void) {
  uint32_t sp;
#if defined(__riscv)
  __asm__ volatile("mv %0, sp" : "=r"(sp));
#else
  __asm__ volatile("mov %0, sp" : "=r"(sp));
#endif
  return sp;
}

void bsp_start(void) {
  const uint32_t *from = bsp_data_load;
  for (uint32_t *to = bsp_data_start; to < bsp_data_end; ++to, ++from) {
    *to = *from;
  }
  for (uint32_t *to = bsp_bss_start; to < bsp_bss_end; ++to) {
    *to = 0u;
  }
  /* Down to a little below the present frame: this loop must not paint over itself. */
  uint32_t *limit = (uint32_t *)(uintptr_t)(stack_pointer() - 32u);
  for (uint32_t *at = bsp_stack_bottom; at < limit; ++at) {
    *at = STACK_PAINT;
  }
  bsp_guard_stack();
  bsp_clock_init();
  bsp_uart_init();
  (void)main();
  for (;;) {
  }
}

uint32_t bsp_stack_used(void) {
  const uint32_t *at = bsp_stack_bottom;
  while (at < bsp_stack_top && *at == STACK_PAINT) {
    ++at;
  }
  return (uint32_t)((uintptr_t)bsp_stack_top - (uintptr_t)at);
}
