/* RP2040: what the boot ROM copies from the first 256 bytes of flash to RAM and runs where their CRC is right (which
 * is put into the last four after linking). It lets flash be read at its addresses, with the command that every chip
 * knows (03h, one data line), then starts the program at its vectors, 256 bytes into flash. Position-independent, no
 * stack. RP2040 datasheet 2.8.1.3 (boot sequence), 4.10.13 (SSI registers). */
#include <stdint.h>

extern const uint32_t bsp_boot[64];

__asm__(
    ".pushsection .boot, \"ax\", %progbits\n"
    ".syntax unified\n"
    ".thumb\n"
    ".balign 4\n"
    ".global bsp_boot\n"
    "bsp_boot:\n"
    "ldr r0, 1f\n"
    "movs r1, #0\n"
    "str r1, [r0, #0x08]\n" /* SSIENR: off while it is set */
    "movs r1, #4\n"
    "str r1, [r0, #0x14]\n" /* BAUDR: a quarter of the system clock, 31.25 MHz; 03h may have 50 */
    "ldr r1, 2f\n"
    "str r1, [r0, #0x00]\n" /* CTRLR0 */
    "movs r1, #0\n"
    "str r1, [r0, #0x04]\n" /* CTRLR1: one frame a read */
    "movs r2, #0xF4\n"
    "ldr r1, 3f\n"
    "str r1, [r0, r2]\n" /* SPI_CTRLR0 */
    "movs r1, #1\n"
    "str r1, [r0, #0x08]\n" /* SSIENR: on */
    "ldr r0, 4f\n"
    "ldr r1, 5f\n"
    "str r0, [r1]\n"
    "ldr r1, [r0, #0]\n"
    "ldr r2, [r0, #4]\n"
    "msr msp, r1\n"
    "bx r2\n"
    ".balign 4\n"
    "1: .word 0x18000000\n" /* SSI */
    "2: .word 0x001F0300\n" /* frames of 32 bits on one line; send command and address, then receive */
    "3: .word 0x03000218\n" /* command 03h of 8 bits, 24 bits of address, all on one line */
    "4: .word 0x10000100\n" /* the vectors */
    "5: .word 0xE000ED08\n" /* VTOR */
    ".org 252\n"
    ".word 0\n" /* CRC-32, see compiler/boot.py */
    ".popsection\n");
