/* Raspberry Pi RP2040, RP2350 (BSP_RP2350): 12 MHz crystal, PLL to BSP_CLOCK_HZ, UART0 on the crystal and its pins.
 * RP2040 datasheet 2.14 (resets), 2.15 (clocks), 2.16 (crystal), 2.18 (PLL), 2.19 (GPIO); RP2350 datasheet 7.5, 8.1,
 * 8.2, 8.6, 9. */
#include "bsp.h"
#include "reg.h"

#define REG BSP_REG
/* Every register again, where ones set or clear bits. */
#define SET(address) REG((address) + 0x2000u)
#define CLEAR(address) REG((address) + 0x3000u)

#if defined(BSP_RP2350)
#define RESETS 0x40020000u
#define CLOCKS 0x40010000u
#define CRYSTAL 0x40048000u
#define PLL 0x40050000u
#define IO 0x40028000u
#define PADS 0x40038000u
#define RESET_IO (1u << 6)
#define RESET_PADS (1u << 9)
#define RESET_PLL (1u << 14)
#define RESET_UART0 (1u << 26)
#define DIVIDE_BY_1 (1u << 16)
#else
#define RESETS 0x4000C000u
#define CLOCKS 0x40008000u
#define CRYSTAL 0x40024000u
#define PLL 0x40028000u
#define IO 0x40014000u
#define PADS 0x4001C000u
#define RESET_IO (1u << 5)
#define RESET_PADS (1u << 8)
#define RESET_PLL (1u << 12)
#define RESET_UART0 (1u << 22)
#define DIVIDE_BY_1 (1u << 8)
#endif

#define RESET (RESETS + 0x0u)
#define RESET_DONE (RESETS + 0x8u)
#define CLK_REF (CLOCKS + 0x30u)
#define CLK_SYS (CLOCKS + 0x3Cu)
#define CLK_PERI (CLOCKS + 0x48u)
#define DIVIDER 0x4u  /* of each clock */
#define SELECTED 0x8u /* one bit a source */
#define CRYSTAL_CONTROL (CRYSTAL + 0x0u)
#define CRYSTAL_STATUS (CRYSTAL + 0x4u)
#define CRYSTAL_STARTUP (CRYSTAL + 0xCu)
#define PLL_STATUS (PLL + 0x0u) /* and reference divider */
#define PLL_POWER_DOWN (PLL + 0x4u)
#define PLL_FEEDBACK (PLL + 0x8u)
#define PLL_POST (PLL + 0xCu)
#define IO_FUNCTION(pin) (IO + 8u * (pin) + 4u)
#define PAD(pin) (PADS + 4u * (pin) + 4u)

#define REF_FROM_RING 0u
#define REF_FROM_CRYSTAL 2u
#define REF_SOURCES 3u
#define SYS_FROM_REF 0u
#define SYS_FROM_PLL 1u /* the first of the sources behind "aux" */
#define PERI_FROM_CRYSTAL (4u << 5)
#define PERI_ON (1u << 11)
#define CRYSTAL_ON 0xFABAA0u /* 1 to 15 MHz */
#define CRYSTAL_DELAY 47u    /* of 256 periods: 1 ms */
#define STABLE (1u << 31)    /* crystal and PLL */
#define PLL_MAIN_AND_VCO (1u << 0 | 1u << 5)
#define PLL_POST_DIVIDERS (1u << 3)
#define VCO_HZ 1500000000u /* 12 MHz * 125 */
#define POST_1 (VCO_HZ / 2u / BSP_CLOCK_HZ)
#define FUNCTION_UART 2u
#define PAD_UART 0x5Au /* input on, pulled up (an open line is idle), Schmitt trigger, 4 mA, not isolated */

#define PATIENCE 1000000u

#if POST_1 < 1u || POST_1 > 7u || POST_1 * 2u * BSP_CLOCK_HZ != VCO_HZ
#error "clock_hz must be 750 MHz divided by 1 to 7"
#endif

/* Whether all of the bits are set, in time. */
static int32_t until(uint32_t address, uint32_t bits) {
  for (uint32_t i = 0u; i < PATIENCE; ++i) {
    if ((REG(address) & bits) == bits) {
      return 1;
    }
  }
  return 0;
}

static void select(uint32_t clock, uint32_t source, uint32_t sources) {
  CLEAR(clock) = sources & ~source;
  SET(clock) = source;
  (void)until(clock + SELECTED, 1u << source);
}

static void release(uint32_t blocks) {
  CLEAR(RESET) = blocks;
  (void)until(RESET_DONE, blocks);
}

static void start_clocks(void) {
  REG(CRYSTAL_STARTUP) = CRYSTAL_DELAY;
  REG(CRYSTAL_CONTROL) = CRYSTAL_ON;
  if (until(CRYSTAL_STATUS, STABLE) == 0) {
    return;
  }
  REG(CLK_REF + DIVIDER) = DIVIDE_BY_1;
  select(CLK_REF, REF_FROM_CRYSTAL, REF_SOURCES);
  REG(CLK_PERI) = PERI_FROM_CRYSTAL;
  SET(CLK_PERI) = PERI_ON;

  SET(RESET) = RESET_PLL;
  release(RESET_PLL);
  REG(PLL_STATUS) = 1u; /* reference divider */
  REG(PLL_FEEDBACK) = 125u;
  CLEAR(PLL_POWER_DOWN) = PLL_MAIN_AND_VCO;
  if (until(PLL_STATUS, STABLE) == 0) {
    return;
  }
  REG(PLL_POST) = POST_1 << 16 | 2u << 12;
  CLEAR(PLL_POWER_DOWN) = PLL_POST_DIVIDERS;
  REG(CLK_SYS + DIVIDER) = DIVIDE_BY_1;
  REG(CLK_SYS) = SYS_FROM_REF; /* "aux" is the PLL */
  select(CLK_SYS, SYS_FROM_PLL, 1u);
}

static void route(uint32_t pin) {
  REG(IO_FUNCTION(pin)) = FUNCTION_UART;
  REG(PAD(pin)) = PAD_UART;
}

void bsp_clock_init(void) {
  /* Off the PLL, should whoever ran before have left it in use. */
  select(CLK_SYS, SYS_FROM_REF, 1u);
  select(CLK_REF, REF_FROM_RING, REF_SOURCES);
  start_clocks();
  release(RESET_IO | RESET_PADS | RESET_UART0); /* the UART's reset needs its clock */
  route(BSP_UART_TX_PIN);
  route(BSP_UART_RX_PIN);
}
