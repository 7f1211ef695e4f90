/* Sleep until the PLIC raises a line. The interrupt is never taken: mstatus.MIE stays 0, WFI ends all the same. */
#include "bsp.h"

#define PLIC_PRIORITY ((volatile uint32_t *)0x0C000000u)
#define PLIC_ENABLE ((volatile uint32_t *)0x0C002000u) /* of hart 0 in machine mode */
#define PLIC_THRESHOLD (*(volatile uint32_t *)0x0C200000u)
#define PLIC_CLAIM (*(volatile uint32_t *)0x0C200004u)
#define MIE_EXTERNAL (1u << 11)

void bsp_wake_enable(uint32_t irq) {
  uint32_t external = MIE_EXTERNAL;
  PLIC_PRIORITY[irq] = 1u;
  PLIC_ENABLE[irq / 32u] = 1u << (irq % 32u);
  PLIC_THRESHOLD = 0u;
  __asm__ volatile(
      ".option push\n"
      ".option arch, +zicsr\n"
      "csrs mie, %0\n"
      ".option pop\n"
      :
      : "r"(external)
      : "memory");
}

void bsp_wake_clear(uint32_t irq) {
  (void)irq; /* one line is enabled, so it is the one that is claimed */
  uint32_t claimed = PLIC_CLAIM;
  if (claimed != 0u) {
    PLIC_CLAIM = claimed; /* completed */
  }
}

void bsp_wait(void) {
#if defined(BSP_WATCHDOG_MS)
  bsp_watchdog_kick(); /* asleep, it would be bitten */
#else
  __asm__ volatile("fence\n wfi" ::: "memory");
#endif
}
