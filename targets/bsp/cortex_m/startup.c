/* Cortex-M startup: vectors, reset, stack paint, fault report. ARMv6-M to ARMv8.1-M. */
#include "bsp.h"

#define STACK_PAINT 0xC5C5C5C5u
#define SCB_VTOR (*(volatile uint32_t *)0xE000ED08u)
#define SCB_CFSR (*(volatile uint32_t *)0xE000ED28u)

#define MPU_TYPE (*(volatile uint32_t *)0xE000ED90u)
#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94u)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9Cu)
#define MPU_RASR (*(volatile uint32_t *)0xE000EDA0u)

extern uint32_t bsp_stack_guard[], bsp_stack_bottom[], bsp_stack_top[];
extern const uint32_t bsp_data_load[];
extern uint32_t bsp_data_start[], bsp_data_end[];
extern uint32_t bsp_bss_start[], bsp_bss_end[];

void bsp_reset(void);
void bsp_fault(void);
void bsp_fault_report(const uint32_t *frame);

typedef union bsp_vector {
  const uint32_t *stack;
  void (*handler)(void);
} bsp_vector;

/* The firmware enables no interrupt: it polls, so that instruction counts repeat exactly. */
__attribute__((section(".vectors"), used)) static const bsp_vector vectors[16] = {
    {.stack = bsp_stack_top}, {.handler = bsp_reset}, {.handler = bsp_fault}, {.handler = bsp_fault},
    {.handler = bsp_fault},   {.handler = bsp_fault}, {.handler = bsp_fault}, {.handler = bsp_fault},
    {.handler = bsp_fault},   {.handler = bsp_fault}, {.handler = bsp_fault}, {.handler = bsp_fault},
    {.handler = bsp_fault},   {.handler = bsp_fault}, {.handler = bsp_fault}, {.handler = bsp_fault}};

static uint32_t stack_pointer(void) {
  uint32_t sp;
  __asm__ volatile("mov %0, sp" : "=r"(sp));
  return sp;
}

/* A stack that outgrows its reserve faults at once, also where nothing or another's data lies below it. */
static void guard_stack(void) {
#if defined(__ARM_ARCH_7M__) || defined(__ARM_ARCH_7EM__)
  if ((MPU_TYPE & 0xFF00u) != 0u) {
    MPU_RBAR = (uint32_t)(uintptr_t)bsp_stack_guard | 0x10u; /* region 0 */
    MPU_RASR = (1u << 28) | (4u << 1) | 1u;                  /* 32 bytes, no access, on */
    MPU_CTRL = 5u;                                           /* on, all else as without */
    __asm__ volatile("dsb\n isb" ::: "memory");
  }
#elif defined(__ARM_ARCH_8M_MAIN__) || defined(__ARM_ARCH_8_1M_MAIN__)
  __asm__ volatile("msr msplim, %0" : : "r"(bsp_stack_bottom));
#else
  (void)bsp_stack_guard; /* no hardware for it */
#endif
}

void bsp_reset(void) {
#if !defined(__ARM_ARCH_6M__)
  SCB_VTOR = (uint32_t)(uintptr_t)vectors;
#endif
  const uint32_t *from = bsp_data_load;
  for (uint32_t *to = bsp_data_start; to < bsp_data_end; ++to, ++from) {
    *to = *from;
  }
  for (uint32_t *to = bsp_bss_start; to < bsp_bss_end; ++to) {
    *to = 0u;
  }
  /* Down to a little below the present frame: this loop must not paint over itself. */
  uint32_t *limit = (uint32_t *)(uintptr_t)(stack_pointer() - 32u);
  for (uint32_t *at = bsp_stack_bottom; at < limit; ++at) {
    *at = STACK_PAINT;
  }
  guard_stack();
  bsp_uart_init();
  (void)main();
  for (;;) {
  }
}

uint32_t bsp_stack_used(void) {
  const uint32_t *at = bsp_stack_bottom;
  while (at < bsp_stack_top && *at == STACK_PAINT) {
    ++at;
  }
  return (uint32_t)((uintptr_t)bsp_stack_top - (uintptr_t)at);
}

/* Report on the stack as it is, so that the exception frame stays whole; from its top where too little is left
 * or the stack pointer has gone astray. */
__attribute__((naked, used)) void bsp_fault(void) {
  __asm__ volatile(
      "mov r0, sp\n"
      "ldr r1, 3f\n"
      "cmp r0, r1\n"
      "blo 1f\n"
      "ldr r1, 4f\n"
      "cmp r0, r1\n"
      "bls 2f\n"
      "1: ldr r1, 4f\n"
      "mov sp, r1\n"
      "2: bl bsp_fault_report\n"
      ".balign 4\n"
      "3: .word bsp_stack_bottom + 512\n"
      "4: .word bsp_stack_top\n");
}

__attribute__((used)) void bsp_fault_report(const uint32_t *frame) {
  uint32_t words[5] = {0u, 0u, 0u, 0u, (uint32_t)(uintptr_t)frame};
  if (frame >= bsp_stack_bottom && frame + 8 <= bsp_stack_top) {
    words[0] = frame[6]; /* pc */
    words[1] = frame[5]; /* lr */
    words[2] = frame[7]; /* xpsr, the exception number in its low bits */
  }
#if !defined(__ARM_ARCH_6M__)
  words[3] = SCB_CFSR;
#endif
  bsp_on_fault(words, 5u);
}
