/* STM32 independent watchdog (IWDG), on the low-speed oscillator: the same in F1 (RM0041), F4 (RM0090, RM0390) and
 * L4+ (RM0432). It cannot be stopped. Its oscillator is inexact (30 kHz to 60 kHz in the F1, 17 kHz to 47 kHz in the
 * F4): the time is BSP_WATCHDOG_MS at least, up to 3.6 times as long. */
#include "bsp.h"
#include "stm32/stm32.h"

#define IWDG_KR 0x40003000u
#define IWDG_PR 0x40003004u
#define IWDG_RLR 0x40003008u
#define IWDG_SR 0x4000300Cu

#define KR_START 0xCCCCu
#define KR_UNLOCK 0x5555u
#define KR_RELOAD 0xAAAAu
#define PR_DIVIDE_BY_256 6u
#define SR_BUSY 3u

#define FASTEST_KHZ 60u /* of all families: the F1's */
#define RELOAD (BSP_WATCHDOG_MS * FASTEST_KHZ / 256u + 1u)

#if RELOAD > 0xFFFu
#error "the watchdog cannot wait that long"
#endif

void bsp_watchdog_start(void) {
  BSP_REG(IWDG_KR) = KR_START;
  BSP_REG(IWDG_KR) = KR_UNLOCK;
  BSP_REG(IWDG_PR) = PR_DIVIDE_BY_256;
  BSP_REG(IWDG_RLR) = RELOAD;
  (void)stm32_becomes(IWDG_SR, SR_BUSY, 0u);
  BSP_REG(IWDG_KR) = KR_RELOAD;
}

void bsp_watchdog_kick(void) { BSP_REG(IWDG_KR) = KR_RELOAD; }
