/* RP2350: the block by which the boot ROM knows a program for its Arm cores. RP2350 datasheet 5.9 (metadata block
 * details), 5.9.5 (minimum viable image metadata). */
#include <stdint.h>

__attribute__((section(".boot"), used)) static const uint32_t image_def[7] = {
    0xFFFFDED3u, /* start */
    0x10210142u, /* image type, one word: executable, secure, Arm, RP2350 */
    0x00000203u, /* vector table, two words */
    0x10000100u, /* its address: 256 bytes into flash */
    0x000003FFu, /* last item: three words before it */
    0x00000000u, /* to the next block: there is none other */
    0xAB123579u, /* end */
};
