/* STM32L4+ (L4R5 and its like) at its 120 MHz: HSI16 / 4 * 60 / 2, voltage range 1 with boost, five wait states.
 * The pins PG2 to PG15 get their supply. RM0432, chapters PWR, RCC, flash. HSI16 is within about 1 % at 25 C, 2 %
 * over temperature, and with it whatever is timed. */
#include "bsp.h"
#include "stm32/stm32.h"

#define PWR_CR1 0x40007000u
#define PWR_CR2 0x40007004u
#define PWR_SR2 0x40007014u
#define PWR_CR5 0x40007080u
#define RCC_CR 0x40021000u
#define RCC_CFGR 0x40021008u
#define RCC_PLLCFGR 0x4002100Cu
#define RCC_APB1ENR1 0x40021058u
#define FLASH_ACR 0x40022000u

#define APB1ENR1_PWREN (1u << 28)
#define CR1_VOS (3u << 9)
#define CR1_VOS_RANGE_1 (1u << 9)
#define CR2_IOSV (1u << 9)
#define SR2_VOSF (1u << 10)
#define CR5_R1MODE (1u << 8) /* 0: boost */
#define CR_HSION (1u << 8)
#define CR_HSIRDY (1u << 10)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_SW 3u
#define CFGR_SW_HSI 1u
#define CFGR_SW_PLL 3u
#define CFGR_SWS (3u << 2)
#define CFGR_SWS_HSI (1u << 2)
#define CFGR_SWS_PLL (3u << 2)
#define CFGR_HPRE_2 (8u << 4)
#define ACR_LATENCY 15u
#define ACR_CACHES (7u << 8) /* prefetch, instructions, data */
#define WAIT_STATES 5u

/* Source HSI16, M - 1 = 3, N = 60, output R on, divided by two (0). */
#define PLL (2u | 3u << 4 | 60u << 8 | 1u << 24)

#if BSP_CLOCK_HZ != 120000000u
#error "this file sets 120 MHz"
#endif

void bsp_clock_init(void) {
  BSP_REG(RCC_APB1ENR1) |= APB1ENR1_PWREN;
  (void)BSP_REG(RCC_APB1ENR1);
  BSP_REG(PWR_CR2) |= CR2_IOSV;
  BSP_REG(PWR_CR1) = (BSP_REG(PWR_CR1) & ~CR1_VOS) | CR1_VOS_RANGE_1;
  BSP_REG(RCC_CR) |= CR_HSION;
  if (!stm32_becomes(PWR_SR2, SR2_VOSF, 0u) || !stm32_becomes(RCC_CR, CR_HSIRDY, CR_HSIRDY)) {
    return;
  }
  BSP_REG(RCC_CFGR) = (BSP_REG(RCC_CFGR) & ~CFGR_SW) | CFGR_SW_HSI;
  if (!stm32_becomes(RCC_CFGR, CFGR_SWS, CFGR_SWS_HSI)) {
    return;
  }
  BSP_REG(RCC_CR) &= ~CR_PLLON;
  if (!stm32_becomes(RCC_CR, CR_PLLRDY, 0u)) {
    return;
  }
  BSP_REG(RCC_PLLCFGR) = PLL;
  BSP_REG(RCC_CR) |= CR_PLLON;
  BSP_REG(RCC_CFGR) = CFGR_SW_HSI | CFGR_HPRE_2; /* over the step in two halves; no bus divided */
  BSP_REG(PWR_CR5) &= ~CR5_R1MODE;
  BSP_REG(FLASH_ACR) = ACR_CACHES | WAIT_STATES;
  if (!stm32_becomes(FLASH_ACR, ACR_LATENCY, WAIT_STATES) ||
      !stm32_becomes(RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
    BSP_REG(RCC_CFGR) = CFGR_SW_HSI;
    return;
  }
  BSP_REG(RCC_CFGR) = CFGR_SW_PLL | CFGR_HPRE_2;
  (void)stm32_becomes(RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL);
  for (uint32_t turn = 0; turn < 60u; ++turn) { /* a microsecond and more */
    __asm__ volatile("nop");
  }
  BSP_REG(RCC_CFGR) = CFGR_SW_PLL;
}
