/* What the firmware needs of a board. A core family gives reset, faults and counter, a board its UART. */
#ifndef BSP_H
#define BSP_H

#include <stdint.h>

/* UART: both calls wait. Board constants come as BSP_UART_BASE, BSP_UART_CLOCK_HZ, BSP_UART_BAUD, BSP_UART_IRQ. */
void bsp_uart_init(void);
void bsp_uart_put(uint8_t byte);
uint8_t bsp_uart_get(void);

/* Clocks and what else has to be right before the UART; most chips run as they come. May wait only a bounded time
 * for an oscillator, then goes on with the clock at hand. */
void bsp_clock_init(void);

/* The watchdog, in firmware that has one: it resets the chip when nobody kicks it for BSP_WATCHDOG_MS. */
void bsp_watchdog_start(void);
void bsp_watchdog_kick(void);

/* bsp_wait sleeps until the line of an enabled interrupt is pending; no handler runs. With a watchdog it kicks it
 * and returns at once: asleep, the chip would be reset. */
void bsp_wake_enable(uint32_t irq);
void bsp_wake_clear(uint32_t irq);
void bsp_wait(void);

/* Counter of BSP_COUNTER_HZ ticks per second. Ask at least once per wrap of the hardware counter. */
void bsp_ticks_start(void);
uint32_t bsp_ticks(void);

/* Most bytes of stack in use at once since reset. */
uint32_t bsp_stack_used(void);

/* The processor has stopped on a fault; `words` are pc, lr, exception status, fault status, stack pointer.
 * The firmware says so on the UART; must not return. */
void bsp_on_fault(const uint32_t *words, uint32_t count);

int main(void);

/* Between start.c and the core family, whose bsp_reset calls bsp_start on a fresh stack. */
extern uint32_t bsp_stack_guard[], bsp_stack_bottom[], bsp_stack_top[]; /* the linker script's */
void bsp_start(void);

/* From now on a stack that outgrows its reserve faults at once, where the core can do that. */
void bsp_guard_stack(void);

#endif
