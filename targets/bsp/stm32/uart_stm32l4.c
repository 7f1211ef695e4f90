/* USART and LPUART of STM32L4 and L4+ (registers ISR, ICR, RDR, TDR) with their pins: RM0432, chapters RCC, GPIO,
 * USART, LPUART. It buffers one byte. */
#include "bsp.h"
#include "stm32/stm32.h"

#define RCC_AHB2ENR BSP_REG(0x4002104Cu)
#define RCC_APB1ENR1 BSP_REG(0x40021058u)
#define RCC_APB1ENR2 BSP_REG(0x4002105Cu)
#define RCC_APB2ENR BSP_REG(0x40021060u)
#define GPIO(port) (0x48000000u + 0x400u * (port))
#define LPUART1 0x40008000u

#define UART_CR1 BSP_REG(BSP_UART_BASE + 0x00u)
#define UART_CR3 BSP_REG(BSP_UART_BASE + 0x08u)
#define UART_BRR BSP_REG(BSP_UART_BASE + 0x0Cu)
#define UART_ISR BSP_REG(BSP_UART_BASE + 0x1Cu)
#define UART_ICR BSP_REG(BSP_UART_BASE + 0x20u)
#define UART_RDR BSP_REG(BSP_UART_BASE + 0x24u)
#define UART_TDR BSP_REG(BSP_UART_BASE + 0x28u)

#define CR1_UE 1u
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR3_OVRDIS (1u << 12)
#define ISR_RXNE (1u << 5)
#define ISR_TXE (1u << 7)
#define ICR_ERRORS 0xFu

/* Of an LPUART 256 steps of its clock a bit, of an USART one. */
#define STEPS (BSP_UART_BASE == LPUART1 ? 256u : 1u)

void stm32_uart_on(void) {
  RCC_AHB2ENR |= 1u << BSP_UART_TX_PORT | 1u << BSP_UART_RX_PORT;
#if BSP_UART_BASE >= STM32_APB2
  RCC_APB2ENR |= 1u << STM32_BIT(BSP_UART_BASE, STM32_APB2);
  (void)RCC_APB2ENR; /* the peripheral is there two cycles later */
#elif BSP_UART_BASE >= LPUART1
  RCC_APB1ENR2 |= 1u << (STM32_BIT(BSP_UART_BASE, STM32_APB1) - 32u);
  (void)RCC_APB1ENR2;
#else
  RCC_APB1ENR1 |= 1u << STM32_BIT(BSP_UART_BASE, STM32_APB1);
  (void)RCC_APB1ENR1;
#endif
  stm32_alternate(GPIO(BSP_UART_TX_PORT), BSP_UART_TX_PIN, BSP_UART_FUNCTION);
  stm32_alternate(GPIO(BSP_UART_RX_PORT), BSP_UART_RX_PIN, BSP_UART_FUNCTION);
}

void bsp_uart_init(void) {
  stm32_uart_on();
  UART_CR1 = 0u;
  UART_CR3 = CR3_OVRDIS; /* a byte too many replaces the one before: reception never stops */
  UART_BRR = (uint32_t)(((uint64_t)BSP_UART_CLOCK_HZ * STEPS + BSP_UART_BAUD / 2u) / BSP_UART_BAUD);
  UART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  while ((UART_ISR & ISR_TXE) == 0u) {
  }
  UART_TDR = byte;
}

uint8_t bsp_uart_get(void) {
  while ((UART_ISR & ISR_RXNE) == 0u) {
    UART_ICR = ICR_ERRORS;
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between raises the line again, or is seen here. */
    if ((UART_ISR & ISR_RXNE) == 0u) {
      bsp_wait();
    }
  }
  return (uint8_t)UART_RDR;
}
