/* Cortex-M: vectors, reset, stack guard, fault report. ARMv6-M to ARMv8.1-M. */
#include "bsp.h"

#define SCB_VTOR (*(volatile uint32_t *)0xE000ED08u)
#define SCB_CCR (*(volatile uint32_t *)0xE000ED14u)
#define SCB_CFSR (*(volatile uint32_t *)0xE000ED28u)
#define SCB_CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CCR_LOOPS (1u << 19) /* low-overhead loops may be cached */
#define CPACR_FLOAT (0xFu << 20)
#define CFSR_STKOF (1u << 20)
#define IPSR 0x1FFu /* of XPSR */

#define MPU_TYPE (*(volatile uint32_t *)0xE000ED90u)
#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94u)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9Cu)
#define MPU_RASR (*(volatile uint32_t *)0xE000EDA0u)

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

void bsp_guard_stack(void) {
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
  /* No hardware for it: what leaves RAM at its bottom faults, as no board has anything there. */
#endif
}

/* No more than this may run before vectors are allowed: the compiler uses them for any copy. */
void bsp_reset(void) {
#if !defined(__ARM_ARCH_6M__)
  SCB_VTOR = (uint32_t)(uintptr_t)vectors;
#endif
#if defined(__ARM_FEATURE_MVE)
  SCB_CPACR |= CPACR_FLOAT;
  SCB_CCR |= CCR_LOOPS;
  __asm__ volatile("dsb\n isb" ::: "memory");
#endif
  bsp_start();
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
  uint32_t exception; /* that is being handled; the frame has the one that it interrupted */
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  uint32_t words[5] = {0u, 0u, exception, 0u, (uint32_t)(uintptr_t)frame};
  if (frame >= bsp_stack_bottom && frame + 8 <= bsp_stack_top) {
    words[0] = frame[6]; /* pc */
    words[1] = frame[5]; /* lr */
    words[2] |= frame[7] & ~IPSR; /* xpsr, the exception's number in its low bits */
  }
#if !defined(__ARM_ARCH_6M__)
  words[3] = SCB_CFSR;
#else
  words[3] = frame < bsp_stack_bottom ? CFSR_STKOF : 0u; /* as the others' hardware says it */
#endif
  bsp_on_fault(words, 5u);
}
