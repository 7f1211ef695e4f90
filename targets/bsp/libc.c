/* The few functions that compilers call by themselves; firmware links no C library. */
#include <stdint.h>
#include <string.h>

/* Keeps the compiler from turning a loop back into a call of the function it is in. */
#define LOOP_BARRIER __asm__ volatile("" ::: "memory")

/* May alias anything: these functions copy objects of every type by words. */
typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict to, const void *restrict from, size_t count) {
  uint8_t *d = to;
  const uint8_t *s = from;
  if ((((uintptr_t)d | (uintptr_t)s) & 3u) == 0u) {
    while (count >= 16u) {
      word a = ((const word *)(const void *)s)[0];
      word b = ((const word *)(const void *)s)[1];
      word c = ((const word *)(const void *)s)[2];
      word e = ((const word *)(const void *)s)[3];
      ((word *)(void *)d)[0] = a;
      ((word *)(void *)d)[1] = b;
      ((word *)(void *)d)[2] = c;
      ((word *)(void *)d)[3] = e;
      d += 16;
      s += 16;
      count -= 16u;
      LOOP_BARRIER;
    }
  }
  while (count > 0u) {
    *d++ = *s++;
    --count;
    LOOP_BARRIER;
  }
  return to;
}

void *memmove(void *to, const void *from, size_t count) {
  uint8_t *d = to;
  const uint8_t *s = from;
  if ((uintptr_t)d <= (uintptr_t)s) {
    while (count > 0u) {
      *d++ = *s++;
      --count;
      LOOP_BARRIER;
    }
  } else {
    while (count > 0u) {
      --count;
      d[count] = s[count];
      LOOP_BARRIER;
    }
  }
  return to;
}

void *memset(void *to, int value, size_t count) {
  uint8_t *d = to;
  uint8_t byte = (uint8_t)value;
  while (count > 0u && ((uintptr_t)d & 3u) != 0u) {
    *d++ = byte;
    --count;
    LOOP_BARRIER;
  }
  word full = byte * 0x01010101u;
  while (count >= 16u) {
    ((word *)(void *)d)[0] = full;
    ((word *)(void *)d)[1] = full;
    ((word *)(void *)d)[2] = full;
    ((word *)(void *)d)[3] = full;
    d += 16;
    count -= 16u;
    LOOP_BARRIER;
  }
  while (count > 0u) {
    *d++ = byte;
    --count;
    LOOP_BARRIER;
  }
  return to;
}

int memcmp(const void *a, const void *b, size_t count) {
  const uint8_t *x = a;
  const uint8_t *y = b;
  for (size_t i = 0; i < count; ++i) {
    if (x[i] != y[i]) {
      return (int)x[i] - (int)y[i];
    }
  }
  return 0;
}

#if defined(__arm__)
/* The same under the names of the Arm run-time ABI (memset's arguments in another order). */
void __aeabi_memcpy(void *to, const void *from, size_t count);
void __aeabi_memcpy4(void *to, const void *from, size_t count);
void __aeabi_memcpy8(void *to, const void *from, size_t count);
void __aeabi_memmove(void *to, const void *from, size_t count);
void __aeabi_memmove4(void *to, const void *from, size_t count);
void __aeabi_memmove8(void *to, const void *from, size_t count);
void __aeabi_memset(void *to, size_t count, int value);
void __aeabi_memset4(void *to, size_t count, int value);
void __aeabi_memset8(void *to, size_t count, int value);
void __aeabi_memclr(void *to, size_t count);
void __aeabi_memclr4(void *to, size_t count);
void __aeabi_memclr8(void *to, size_t count);
void __aeabi_unwind_cpp_pr0(void);

void __aeabi_memcpy(void *to, const void *from, size_t count) { (void)memcpy(to, from, count); }
void __aeabi_memcpy4(void *to, const void *from, size_t count) { (void)memcpy(to, from, count); }
void __aeabi_memcpy8(void *to, const void *from, size_t count) { (void)memcpy(to, from, count); }
void __aeabi_memmove(void *to, const void *from, size_t count) { (void)memmove(to, from, count); }
void __aeabi_memmove4(void *to, const void *from, size_t count) { (void)memmove(to, from, count); }
void __aeabi_memmove8(void *to, const void *from, size_t count) { (void)memmove(to, from, count); }
void __aeabi_memset(void *to, size_t count, int value) { (void)memset(to, value, count); }
void __aeabi_memset4(void *to, size_t count, int value) { (void)memset(to, value, count); }
void __aeabi_memset8(void *to, size_t count, int value) { (void)memset(to, value, count); }
void __aeabi_memclr(void *to, size_t count) { (void)memset(to, 0, count); }
void __aeabi_memclr4(void *to, size_t count) { (void)memset(to, 0, count); }
void __aeabi_memclr8(void *to, size_t count) { (void)memset(to, 0, count); }
/* Named by the unwind tables that some compilers emit and no firmware reads. */
void __aeabi_unwind_cpp_pr0(void) {}
#endif
