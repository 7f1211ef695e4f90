/* USART of STM32 F1, F2 and F4 (registers SR, DR, BRR, CR1): RM0041, RM0033, RM0090, RM0390, chapter USART. It
 * buffers one byte. */
#include "bsp.h"
#include "stm32/stm32.h"

#define UART_SR BSP_REG(BSP_UART_BASE + 0x00u)
#define UART_DR BSP_REG(BSP_UART_BASE + 0x04u)
#define UART_BRR BSP_REG(BSP_UART_BASE + 0x08u)
#define UART_CR1 BSP_REG(BSP_UART_BASE + 0x0Cu)

#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_UE (1u << 13)

void bsp_uart_init(void) {
  stm32_uart_on();
  UART_CR1 = 0u;
  UART_BRR = (BSP_UART_CLOCK_HZ + BSP_UART_BAUD / 2u) / BSP_UART_BAUD; /* in sixteenths, as the register */
  UART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  while ((UART_SR & SR_TXE) == 0u) {
  }
  UART_DR = byte;
}

uint8_t bsp_uart_get(void) {
  for (;;) {
    uint32_t status = UART_SR;
    if ((status & SR_RXNE) != 0u) {
      return (uint8_t)UART_DR; /* SR, then DR: that clears an overrun as well */
    }
    if ((status & SR_ORE) != 0u) {
      (void)UART_DR; /* an overrun without a byte to read would hold the interrupt line */
      continue;
    }
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between raises the line again, or is seen here. */
    if ((UART_SR & (SR_RXNE | SR_ORE)) == 0u) {
      bsp_wait();
    }
  }
}
