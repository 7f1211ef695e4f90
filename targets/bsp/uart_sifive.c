/* SiFive UART (FE310). FE310-G002 manual, chapter UART. Its FIFOs hold eight bytes. Pins are the board's matter. */
#include "bsp.h"
#include "reg.h"

#define REG(offset) BSP_REG(BSP_UART_BASE + (offset))
#define TX_DATA REG(0x00u)
#define RX_DATA REG(0x04u)
#define TX_CONTROL REG(0x08u)
#define RX_CONTROL REG(0x0Cu)
#define INTERRUPTS REG(0x10u)
#define DIVISOR REG(0x18u)

#define TX_FULL (1u << 31)
#define RX_EMPTY (1u << 31)
#define ON 1u /* eight data bits, one stop bit; interrupt from the first byte on */
#define INTERRUPT_RX 2u

void bsp_uart_init(void) {
  DIVISOR = (BSP_UART_CLOCK_HZ + BSP_UART_BAUD / 2u) / BSP_UART_BAUD - 1u;
  TX_CONTROL = ON;
  RX_CONTROL = ON;
  INTERRUPTS = INTERRUPT_RX;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  while ((TX_DATA & TX_FULL) != 0u) {
  }
  TX_DATA = byte;
}

uint8_t bsp_uart_get(void) {
  uint32_t data = RX_DATA; /* reading takes the byte out: every read has to be looked at */
  while ((data & RX_EMPTY) != 0u) {
    bsp_wake_clear(BSP_UART_IRQ);
    data = RX_DATA;
    /* A byte that has come in between raises the line again, or is seen here. */
    if ((data & RX_EMPTY) != 0u) {
      bsp_wait();
      data = RX_DATA;
    }
  }
  return (uint8_t)data;
}
