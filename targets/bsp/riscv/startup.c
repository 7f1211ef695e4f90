/* RISC-V, machine mode: reset, stack guard, fault report. */
#include "bsp.h"

#define LOAD_FAULT 5u
#define STORE_FAULT 7u
#define STACK_OUTGROWN (1u << 20) /* as a Cortex-M's CFSR says it */

void bsp_reset(void);
void bsp_fault(void);
void bsp_fault_report(const uint32_t *words);

/* First in flash, where the processor starts. */
__attribute__((naked, used, section(".vectors"))) void bsp_reset(void) {
  __asm__ volatile(
      ".option push\n"
      ".option arch, +zicsr\n"
      "csrci mstatus, 8\n" /* no interrupt is ever taken */
      "la sp, bsp_stack_top\n"
      "la t0, bsp_fault\n"
      "csrw mtvec, t0\n"
      ".option pop\n"
      "call bsp_start\n");
}

/* Entry 0 of the physical memory protection: the guard's bytes, no access, locked, thus for this mode too. */
void bsp_guard_stack(void) {
  uint32_t address = (uint32_t)(uintptr_t)bsp_stack_guard >> 2 | 3u; /* 32 bytes */
  uint32_t config = 0x98u;                                           /* locked, a power of two, no access */
  __asm__ volatile(
      ".option push\n"
      ".option arch, +zicsr\n"
      "csrw pmpaddr0, %0\n"
      "csrw pmpcfg0, %1\n"
      ".option pop\n"
      :
      : "r"(address), "r"(config)
      : "memory");
}

/* The stack may be used up: report from its top. What the words are: bsp_on_fault. */
__attribute__((naked, used, aligned(4))) void bsp_fault(void) {
  __asm__ volatile(
      ".option push\n"
      ".option arch, +zicsr\n"
      "mv t0, sp\n"
      "la sp, bsp_stack_top\n"
      "addi sp, sp, -32\n"
      "sw ra, 4(sp)\n"
      "sw t0, 16(sp)\n"
      "csrr t0, mepc\n"
      "sw t0, 0(sp)\n"
      "csrr t0, mcause\n"
      "sw t0, 8(sp)\n"
      "csrr t0, mtval\n"
      "sw t0, 12(sp)\n"
      "mv a0, sp\n"
      ".option pop\n"
      "call bsp_fault_report\n");
}

__attribute__((used)) void bsp_fault_report(const uint32_t *words) {
  uint32_t report[5] = {words[0], words[1], words[2], 0u, words[4]};
  uint32_t at = words[3] - (uint32_t)(uintptr_t)bsp_stack_guard;
  if ((words[2] == LOAD_FAULT || words[2] == STORE_FAULT) && at < 32u) {
    report[3] = STACK_OUTGROWN;
  }
  bsp_on_fault(report, 5u);
}
