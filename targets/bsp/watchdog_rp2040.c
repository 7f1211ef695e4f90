/* RP2040 watchdog, in microseconds of the 12 MHz crystal. RP2040 datasheet 2.13 (power-on state machine), 4.7
 * (watchdog), erratum RP2040-E1: it counts two a microsecond. */
#include "bsp.h"
#include "reg.h"

#define CONTROL BSP_REG(0x40058000u)
#define LOAD BSP_REG(0x40058004u)
#define TICK BSP_REG(0x4005802Cu)
#define RESET_WHAT BSP_REG(0x40010008u)

#define CONTROL_ON (1u << 30)
#define CONTROL_PAUSES (7u << 24) /* while a debugger holds the processor */
#define TICK_ON (1u << 9)
#define CRYSTAL_MHZ 12u
#define ALL_BUT_OSCILLATORS 0x1FFFCu

#define COUNT (BSP_WATCHDOG_MS * 2000u)

#if COUNT > 0xFFFFFFu
#error "the watchdog cannot wait that long"
#endif

void bsp_watchdog_kick(void) { LOAD = COUNT; }

void bsp_watchdog_start(void) {
  TICK = TICK_ON | CRYSTAL_MHZ;
  RESET_WHAT = ALL_BUT_OSCILLATORS;
  bsp_watchdog_kick();
  CONTROL = CONTROL_PAUSES | CONTROL_ON;
}
