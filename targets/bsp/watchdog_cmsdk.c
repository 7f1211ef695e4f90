/* Arm CMSDK APB watchdog (MPS2). Cortex-M System Design Kit, technical reference manual DDI 0479, 4.5. It raises the
 * NMI after BSP_WATCHDOG_MS, which the fault handler reports, and resets the chip after as long again. */
#include "bsp.h"
#include "reg.h"

#define REG(offset) BSP_REG(0x40008000u + (offset))
#define LOAD REG(0x000u)
#define CONTROL REG(0x008u)
#define INTERRUPT_CLEAR REG(0x00Cu) /* any write also counts from LOAD again */
#define LOCK REG(0xC00u)

#define CONTROL_ON_AND_RESET 3u
#define UNLOCK 0x1ACCE551u

void bsp_watchdog_start(void) {
  LOCK = UNLOCK;
  LOAD = BSP_WATCHDOG_MS * (BSP_CLOCK_HZ / 1000u);
  CONTROL = CONTROL_ON_AND_RESET;
}

void bsp_watchdog_kick(void) { INTERRUPT_CLEAR = 1u; }
