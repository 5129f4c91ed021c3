# Used by build.py.

MBEDTLS_CONFIG_FILE = \"mbedtls_config_esp32.h\"
# The Unix port is never built with areas that come by themselves, and so not free of its warnings.
CFLAGS_EXTRA += -Wno-pointer-arith
