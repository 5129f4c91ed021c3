// The Unix port's Mbed TLS, with memory from system RAM.

#include "ports/unix/mbedtls/mbedtls_config_port.h"

#include <stddef.h>
void *system_ram_calloc(size_t count, size_t size);
void system_ram_free(void *piece);
#define MBEDTLS_PLATFORM_MEMORY
#define MBEDTLS_PLATFORM_STD_CALLOC system_ram_calloc
#define MBEDTLS_PLATFORM_STD_FREE system_ram_free
