// A Unix interpreter whose heap grows as the ESP32 port's does: see system_ram.c.

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)

#include "ports/unix/variants/mpconfigvariant_common.h"

#define MICROPY_GC_SPLIT_HEAP (1)
#define MICROPY_GC_SPLIT_HEAP_AUTO (1)

#include <stddef.h>
void *system_ram_heap(size_t size);
void system_ram_free(void *piece);
#define MP_PLAT_ALLOC_HEAP(size) system_ram_heap(size)
#define MP_PLAT_FREE_HEAP(piece) system_ram_free(piece)
