/* Nordic UART (nRF51, and the nRF52's without DMA). nRF51 Series Reference Manual, chapter UART; nRF52840 Product
 * Specification v1.7, 6.34. Its FIFO holds six bytes. BSP_UART_TX_PIN, BSP_UART_RX_PIN: 0 to 31 are P0's, from 32 on
 * P1's. */
#include "bsp.h"
#include "reg.h"

#define REG(offset) BSP_REG(BSP_UART_BASE + (offset))
#define START_RX REG(0x000u)
#define START_TX REG(0x008u)
#define RX_READY REG(0x108u)
#define TX_READY REG(0x11Cu)
#define INTERRUPTS_SET REG(0x304u)
#define ENABLE REG(0x500u)
#define PIN_TX REG(0x50Cu)
#define PIN_RX REG(0x514u)
#define RX_DATA REG(0x518u)
#define TX_DATA REG(0x51Cu)
#define BAUD REG(0x524u)

#define GPIO(pin, offset) BSP_REG(0x50000000u + 0x300u * ((pin) / 32u) + (offset))
#define OUT_SET(pin) GPIO(pin, 0x508u)
#define OUTPUTS_SET(pin) GPIO(pin, 0x518u)
#define PIN_CONFIG(pin) GPIO(pin, 0x700u + 4u * ((pin) % 32u))
#define BIT(pin) (1u << ((pin) % 32u))

#define INTERRUPT_RX 4u
#define ON 4u
#define INPUT_PULLED_UP 0xCu /* an open line is idle */

void bsp_uart_init(void) {
  OUT_SET(BSP_UART_TX_PIN) = BIT(BSP_UART_TX_PIN);
  OUTPUTS_SET(BSP_UART_TX_PIN) = BIT(BSP_UART_TX_PIN);
  PIN_CONFIG(BSP_UART_RX_PIN) = INPUT_PULLED_UP;
  PIN_TX = BSP_UART_TX_PIN;
  PIN_RX = BSP_UART_RX_PIN;
  ENABLE = ON;
  /* 2^32 steps of the clock a bit, of which the hardware looks at the upper 20 bits. */
  BAUD = (uint32_t)((((uint64_t)BSP_UART_BAUD << 32) / BSP_UART_CLOCK_HZ + 0x800u) & 0xFFFFF000u);
  RX_READY = 0u; /* before reception starts, or what has filled the FIFO by then would never be announced */
  START_TX = 1u;
  START_RX = 1u;
  INTERRUPTS_SET = INTERRUPT_RX;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  TX_READY = 0u;
  TX_DATA = byte;
  while (TX_READY == 0u) {
  }
}

uint8_t bsp_uart_get(void) {
  while (RX_READY == 0u) {
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between keeps the line pending, or is seen here. */
    if (RX_READY == 0u) {
      bsp_wait();
    }
  }
  RX_READY = 0u; /* before the read, which may announce the next byte */
  return (uint8_t)RX_DATA;
}
