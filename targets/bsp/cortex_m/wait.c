/* Sleep until an interrupt line rises. The interrupt is never taken: PRIMASK stays set, WFI ends all the same. */
#include "bsp.h"

#define NVIC_ISER ((volatile uint32_t *)0xE000E100u)
#define NVIC_ICPR ((volatile uint32_t *)0xE000E280u)

void bsp_wake_enable(uint32_t irq) {
  __asm__ volatile("cpsid i" ::: "memory");
  NVIC_ISER[irq / 32u] = 1u << (irq % 32u);
}

void bsp_wake_clear(uint32_t irq) { NVIC_ICPR[irq / 32u] = 1u << (irq % 32u); }

void bsp_wait(void) {
#if defined(BSP_WATCHDOG_MS)
  bsp_watchdog_kick(); /* asleep, it would be bitten */
#else
  uint32_t exception;
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  if (exception == 0u) { /* nothing wakes a fault handler: there the caller has to poll */
    __asm__ volatile("dsb\n wfi" ::: "memory");
  }
#endif
}
