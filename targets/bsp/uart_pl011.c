/* Arm PL011 UART (Stellaris LM3S, RP2040, RP2350). Technical reference manual DDI 0183. Its FIFO holds 16 bytes or
 * more. Pins and clock are the board's matter. */
#include "bsp.h"
#include "reg.h"

#define REG(offset) BSP_REG(BSP_UART_BASE + (offset))
#define UART_DATA REG(0x00u)
#define UART_FLAGS REG(0x18u)
#define UART_DIVISOR REG(0x24u)
#define UART_DIVISOR_64THS REG(0x28u)
#define UART_LINE_CONTROL REG(0x2Cu)
#define UART_CONTROL REG(0x30u)
#define UART_FIFO_LEVELS REG(0x34u)
#define UART_INTERRUPTS REG(0x38u)
#define UART_INTERRUPTS_CLEAR REG(0x44u)

#define FLAG_RX_EMPTY (1u << 4)
#define FLAG_TX_FULL (1u << 5)
#define LINE_8N1_FIFO ((3u << 5) | (1u << 4))
#define CONTROL_ON 1u
#define CONTROL_TX (1u << 8)
#define CONTROL_RX (1u << 9)
#define LEVELS_LOWEST 0u /* receive interrupt at an eighth */
#define INT_RX (1u << 4)
#define INT_RX_WAITS (1u << 6) /* fewer bytes than that, but none has come for 32 bits */

#define DIVISOR ((8u * BSP_UART_CLOCK_HZ / BSP_UART_BAUD + 1u) / 2u) /* in 64ths: clock / (16 * baud) */

void bsp_uart_init(void) {
  UART_CONTROL = 0u;
  UART_DIVISOR = DIVISOR >> 6;
  UART_DIVISOR_64THS = DIVISOR & 63u;
  UART_LINE_CONTROL = LINE_8N1_FIFO; /* after the divisor, which it puts into force */
  UART_FIFO_LEVELS = LEVELS_LOWEST;
  UART_INTERRUPTS = INT_RX | INT_RX_WAITS;
  UART_CONTROL = CONTROL_ON | CONTROL_TX | CONTROL_RX;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  while ((UART_FLAGS & FLAG_TX_FULL) != 0u) {
  }
  UART_DATA = byte;
}

uint8_t bsp_uart_get(void) {
  while ((UART_FLAGS & FLAG_RX_EMPTY) != 0u) {
    UART_INTERRUPTS_CLEAR = INT_RX | INT_RX_WAITS;
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between raises the line again, or is seen here. */
    if ((UART_FLAGS & FLAG_RX_EMPTY) != 0u) {
      bsp_wait();
    }
  }
  return (uint8_t)UART_DATA;
}
