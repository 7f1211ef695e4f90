/* Clocks, resets and UARTs of RP2040, RP2350, FE310 and nRF5 as their datasheets state them, to run clock and UART
 * files on a host.
 *
 * MODEL is 2040, 2350, 310, 51 or 52. MODEL_DEAD: no oscillator gets ready. Before each access what was asked for
 * takes effect, oscillators after some accesses, and what a datasheet forbids is printed as "forbidden: ...". A byte
 * comes in when the firmware sleeps. At the end come the clocks, and every register that was touched. */
#include "chip_model.h"

#include <stdio.h>

#include "bsp.h"

#define RP2 (MODEL == 2040 || MODEL == 2350)
#define DELAY 50 /* accesses until an oscillator is ready */
#define MHZ 1000000u
#define RECEIVED 0x41u
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct word {
  uint32_t address, value;
} word;

static uint32_t core_hz, uart_hz, last;

#if RP2
#define UART_FLAGS (BSP_UART_BASE + 0x18u)
#define UART_DATA BSP_UART_BASE
#if MODEL == 2040
#define RESET 0x4000C000u
#define CLOCKS 0x40008000u
#define CRYSTAL 0x40024000u
#define PLL 0x40028000u
#define IO 0x40014000u
#define PADS 0x4001C000u
#define RESET_BITS 0x1FFFFFFu
#define BLOCKS {{IO, 5}, {PADS, 8}, {PLL, 12}, {BSP_UART_BASE, 22}}
#define UART_BIT 22u
#define WHOLE 8u /* first bit of the whole part of a divider */
#define MOST_HZ (133u * MHZ)
#else
#define RESET 0x40020000u
#define CLOCKS 0x40010000u
#define CRYSTAL 0x40048000u
#define PLL 0x40050000u
#define IO 0x40028000u
#define PADS 0x40038000u
#define RESET_BITS 0x1FFFFFFFu
#define BLOCKS {{IO, 6}, {PADS, 9}, {PLL, 14}, {BSP_UART_BASE, 26}}
#define UART_BIT 26u
#define WHOLE 16u
#define MOST_HZ (150u * MHZ)
#endif
/* As whoever ran before may have left it: the system on the PLL of the USB. */
static word words[64] = {{RESET, RESET_BITS},          {CLOCKS + 0x34u, 1u << WHOLE}, {CLOCKS + 0x40u, 1u << WHOLE},
                         {CLOCKS + 0x3Cu, 1u | 1u << 5}, {PLL + 4u, 0x2Du},             {UART_FLAGS, 0x10u}};
#elif MODEL == 310
#define RING 0x10008000u
#define CRYSTAL 0x10008004u
#define PLL 0x10008008u
#define PLL_DIVIDER 0x1000800Cu
#define FLASH_CLOCK 0x10014000u
#define UART_DATA BSP_UART_BASE
#define UART_RECEIVED (BSP_UART_BASE + 4u)
/* As the boot loader may have left it: on the PLL at 320 MHz. */
static word words[64] = {{PLL, 1u << 31 | 3u << 16 | 1u << 10 | 39u << 4 | 1u},
                         {PLL_DIVIDER, 0x100u},
                         {FLASH_CLOCK, 8u},
                         {0x1001203Cu, 0xFFFFFFFFu},
                         {UART_RECEIVED, 1u << 31}};
#else
#define UART_DATA (BSP_UART_BASE + 0x51Cu)
#define STARTED 0x40000100u
static word words[64] = {{BSP_UART_BASE + 0x50Cu, 0xFFFFFFFFu}, {BSP_UART_BASE + 0x514u, 0xFFFFFFFFu}};
#endif

static uint32_t *at(uint32_t address) {
  for (uint32_t i = 0; i < COUNT(words); ++i) {
    if (words[i].address == address || words[i].address == 0u) {
      words[i].address = address;
      return &words[i].value;
    }
  }
  printf("forbidden: more registers than the model has\n");
  return &words[0].value;
}

static void forbid(int wrong, const char *what) {
  if (wrong) {
    printf("forbidden: %s\n", what);
  }
}

/* Whether what is wanted has been so for long enough. */
static int after(int wanted, int *waited) {
  *waited = wanted ? *waited + 1 : 0;
#ifdef MODEL_DEAD
  return 0;
#else
  return *waited > DELAY;
#endif
}

#if RP2
/* What was written where ones set or clear bits. */
static void take_alias(void) {
  uint32_t kind = last >> 12 & 3u, address = last & ~0x3000u;
  if (kind != 0u) {
    uint32_t bits = *at(last);
    *at(last) = 0u;
    *at(address) = kind == 2u ? *at(address) | bits : *at(address) & ~bits;
  }
}

static void settle(void) {
  static int waited_crystal, waited_pll;
  static uint32_t fields, peri, before;
  take_alias();
  uint32_t power = *at(PLL + 4u), held = *at(RESET), sys = *at(CLOCKS + 0x3Cu), ref = *at(CLOCKS + 0x30u) & 3u;
  int crystal = after(*at(CRYSTAL) == 0xFABAA0u && *at(CRYSTAL + 0xCu) >= 47u, &waited_crystal);
  *at(CRYSTAL + 4u) = crystal ? 1u << 31 : 0u;
  uint32_t divider = *at(PLL) & 63u, times = *at(PLL + 8u), post = *at(PLL + 0xCu);
  uint32_t post_1 = post >> 16 & 7u, post_2 = post >> 12 & 7u, vco = divider == 0u ? 0u : 12u * MHZ / divider * times;
  int on = (power & 0x21u) == 0u;
  if (on) {
    forbid(!crystal, "PLL without a crystal");
    forbid(divider != 1u || times < 16u || times > 320u, "PLL input or feedback out of range");
    forbid(vco < 750u * MHZ || vco > 1600u * MHZ, "VCO out of range");
  }
  int locked = after(on && crystal, &waited_pll);
  *at(PLL) = divider | (locked ? 1u << 31 : 0u);
  forbid((before & 1u) != 0u && (before ^ sys) >> 5 != 0u, "source of the system's clock changed in use");
  before = sys;
  int in_use = (sys & 1u) != 0u && (sys >> 5 & 7u) == 0u;
  uint32_t now = divider ^ times << 8 ^ post ^ power << 24;
  forbid(in_use && last != 0u && now != fields, "PLL changed in use");
  fields = now;
  forbid(in_use && (!locked || (power & 8u) != 0u || post_1 < post_2 || post_2 == 0u), "no clock from the PLL");
  forbid(ref == 2u && !crystal, "reference without a crystal");
  uint32_t ref_hz = ref == 2u ? 12u * MHZ : 6u * MHZ;
  core_hz = in_use ? vco / (post_1 * post_2) : (sys & 1u) != 0u ? 48u * MHZ : ref_hz;
  forbid(core_hz > MOST_HZ, "core too fast");
  forbid(*at(CLOCKS + 0x34u) != 1u << WHOLE || *at(CLOCKS + 0x40u) != 1u << WHOLE, "a divider that the model has not");
  *at(CLOCKS + 0x38u) = 1u << ref;
  *at(CLOCKS + 0x44u) = 1u << (sys & 1u);
  uint32_t wanted = *at(CLOCKS + 0x48u);
  forbid((peri >> 11 & 1u) != 0u && (peri ^ wanted) >> 5 != 0u, "source of a running clock changed");
  peri = wanted;
  uart_hz = (wanted >> 11 & 1u) != 0u && (wanted >> 5 & 7u) == 4u && crystal ? 12u * MHZ : 0u;
  *at(RESET + 8u) = ~held & RESET_BITS & (uart_hz == 0u ? ~(1u << UART_BIT) : ~0u);
}

static void reach(uint32_t address) {
  static const uint32_t blocks[][2] = BLOCKS;
  for (uint32_t i = 0; i < COUNT(blocks); ++i) {
    forbid((address & ~0x3FFFu) == blocks[i][0] && (*at(RESET + 8u) >> blocks[i][1] & 1u) == 0u,
           "a block in reset used");
  }
}
#elif MODEL == 310
static void ready(uint32_t address, int is) { *at(address) = (*at(address) & ~(1u << 31)) | (is ? 1u << 31 : 0u); }

static void settle(void) {
  static int waited_ring, waited_crystal, waited_pll;
  static uint32_t fields, used;
  ready(RING, after((int)(*at(RING) >> 30 & 1u), &waited_ring));
  int crystal = after((int)(*at(CRYSTAL) >> 30 & 1u), &waited_crystal);
  ready(CRYSTAL, crystal);
  uint32_t pll = *at(PLL), now = pll & 0x60FFFu, in_use = pll >> 16 & 1u;
  uint32_t in = 16u / ((pll & 7u) + 1u), vco = in * 2u * ((pll >> 4 & 63u) + 1u), q = pll >> 10 & 3u, out = vco >> q;
  if (fields != 0u && now != fields) {
    forbid((used | in_use) != 0u, "PLL changed in use");
    forbid((now >> 17 & 3u) != 1u || !crystal, "PLL not of a crystal that runs");
    forbid(in < 6u || in > 12u || vco < 384u || vco > 768u || q == 0u || out < 48u || out > 384u, "PLL out of range");
    waited_pll = 0;
  }
  fields = now;
  int settled = ++waited_pll > 3000; /* until then its sign flickers */
  forbid(used == 0u && in_use != 0u && last != 0u && !settled, "switched to a PLL that has not settled");
  used = in_use;
  forbid(in_use == 0u && *at(RING) >> 31 == 0u, "no clock");
  ready(PLL, settled || waited_pll % 3 == 0);
  core_hz = uart_hz = (in_use != 0u ? out : 14u) * MHZ;
  forbid(*at(PLL_DIVIDER) != 0x100u, "a divider that the model has not");
  forbid(core_hz > 320u * MHZ, "core too fast");
  forbid(core_hz / (2u * (*at(FLASH_CLOCK) + 1u)) > 50u * MHZ, "flash too fast");
}

static void reach(uint32_t address) { (void)address; }
#else
static void settle(void) {
  static int waited;
  if (after(*at(0x40000000u) == 1u, &waited)) {
    *at(STARTED) = 1u;
  }
  core_hz = (MODEL == 51 ? 16u : 64u) * MHZ;
  uart_hz = *at(STARTED) != 0u ? 16u * MHZ : 0u;
  if (last == UART_DATA) {
    *at(BSP_UART_BASE + 0x11Cu) = 1u;
  }
}

static void reach(uint32_t address) {
  int pins = address == BSP_UART_BASE + 0x50Cu || address == BSP_UART_BASE + 0x514u;
  forbid(pins && *at(BSP_UART_BASE + 0x500u) != 0u, "pins of a running UART changed");
  forbid(MODEL == 51 && address == 0x4001E540u, "a cache that the chip has not");
}
#endif

volatile uint32_t *chip_model(uint32_t address) {
  settle();
  reach(address);
  last = address;
  return at(address);
}

void bsp_wake_enable(uint32_t irq) { printf("irq %u\n", irq); }
void bsp_wake_clear(uint32_t irq) { (void)irq; }

void bsp_wait(void) {
#if RP2
  *at(UART_FLAGS) &= ~0x10u;
  *at(UART_DATA) = RECEIVED;
#elif MODEL == 310
  *at(UART_RECEIVED) = RECEIVED;
#else
  *at(BSP_UART_BASE + 0x108u) = 1u;
  *at(BSP_UART_BASE + 0x518u) = RECEIVED;
#endif
}

int main(void) {
  bsp_clock_init();
  bsp_uart_init();
  bsp_uart_put(0x55u);
  settle();
  printf("sent %u\n", *at(UART_DATA));
  printf("got %u\n", bsp_uart_get());
  settle();
  printf("core %u\nuart %u\n", core_hz, uart_hz);
  for (uint32_t i = 0; i < COUNT(words) && words[i].address != 0u; ++i) {
    printf("0x%08X %u\n", words[i].address, words[i].value);
  }
  return 0;
}
