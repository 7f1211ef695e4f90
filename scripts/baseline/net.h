/* What main.c needs of the generated net.c. */
#ifndef NET_H
#define NET_H

#include <stdint.h>

extern void (*const net_steps[])(void);
extern const uint32_t net_frames, net_step_count, net_frame_bytes, net_answers;

uint8_t *net_frame(void);
const int32_t *net_answer(void);

#endif
