"""What an ESP32 with MicroPython 1.22 has, and what came later: names and modules."""

from __future__ import annotations

#: As a release: no ESP32 has it up to today.
NEVER = "none"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Builtins of an ESP32 with 1.22, beside those that are no functions or types.
BUILTINS = _words(
    """
    ArithmeticError AssertionError AttributeError BaseException EOFError Ellipsis Exception
    GeneratorExit ImportError IndentationError IndexError KeyError KeyboardInterrupt
    LookupError MemoryError NameError NotImplemented NotImplementedError OSError OverflowError
    RuntimeError StopAsyncIteration StopIteration SyntaxError SystemExit TypeError
    UnicodeError ValueError ZeroDivisionError __build_class__ __import__ __name__ abs all any
    bin bool bytearray bytes callable chr classmethod compile complex delattr dict dir divmod
    enumerate eval exec execfile filter float frozenset getattr globals hasattr hash help hex
    id input int isinstance issubclass iter len list locals map max memoryview min next object
    oct open ord pow print property range repr reversed round set setattr slice sorted
    staticmethod str sum super tuple type zip
    """
)
#: Methods of its builtin types.
METHODS = _words(
    """
    append center count decode encode endswith extend find format fromhex hex index isalpha
    isdigit islower isspace isupper join lower lstrip partition replace rfind rindex
    rpartition rsplit rstrip split splitlines startswith strip upper add clear copy difference
    difference_update discard from_bytes fromkeys get insert intersection intersection_update
    isdisjoint issubset issuperset items keys pop popitem remove reverse setdefault sort
    symmetric_difference symmetric_difference_update to_bytes union update values
    """
)
#: Modules that it has built in or frozen, and what is in them; None: not looked into.
MODULES: dict[str, frozenset[str] | None] = {
    "_thread": _words("LockType allocate_lock exit get_ident stack_size start_new_thread"),
    "array": _words("array"),
    "asyncio": _words(
        """
        CancelledError Event Lock Loop StreamReader StreamWriter Task ThreadSafeFlag TimeoutError
        core create_task current_task gather get_event_loop new_event_loop open_connection run
        run_until_complete sleep sleep_ms start_server wait_for wait_for_ms
        """
    ),
    "binascii": _words("a2b_base64 b2a_base64 crc32 hexlify unhexlify"),
    "collections": _words("OrderedDict deque namedtuple"),
    "deflate": _words("AUTO DeflateIO GZIP RAW ZLIB"),
    "errno": _words(
        """
        EACCES EADDRINUSE EAGAIN EALREADY EBADF ECONNABORTED ECONNREFUSED ECONNRESET EEXIST
        EHOSTUNREACH EINPROGRESS EINVAL EIO EISDIR ENOBUFS ENODEV ENOENT ENOMEM ENOTCONN
        EOPNOTSUPP EPERM ETIMEDOUT errorcode
        """
    ),
    "esp32": _words(
        """
        HEAP_DATA HEAP_EXEC NVS Partition RMT ULP WAKEUP_ALL_LOW WAKEUP_ANY_HIGH
        gpio_deep_sleep_hold idf_heap_info raw_temperature wake_on_ext0 wake_on_ext1 wake_on_touch
        wake_on_ulp
        """
    ),
    "gc": _words("collect disable enable isenabled mem_alloc mem_free threshold"),
    "hashlib": _words("md5 sha1 sha256"),
    "io": _words("BufferedWriter BytesIO IOBase StringIO open"),
    "json": _words("dump dumps load loads"),
    "machine": _words(
        """
        ADC ADCBlock DAC DEEPSLEEP DEEPSLEEP_RESET EXT0_WAKE EXT1_WAKE HARD_RESET I2C I2S PIN_WAKE
        PWM PWRON_RESET Pin RTC SDCard SLEEP SOFT_RESET SPI Signal SoftI2C SoftSPI TIMER_WAKE
        TOUCHPAD_WAKE Timer TouchPad UART ULP_WAKE WDT WDT_RESET bitstream bootloader deepsleep
        dht_readinto disable_irq enable_irq freq idle lightsleep mem16 mem32 mem8 reset
        reset_cause sleep soft_reset time_pulse_us unique_id wake_reason
        """
    ),
    "micropython": _words(
        """
        alloc_emergency_exception_buf const heap_lock heap_unlock kbd_intr mem_info native
        opt_level qstr_info schedule stack_use viper
        """
    ),
    "network": _words(
        """
        AP_IF AUTH_OPEN AUTH_WPA2_PSK AUTH_WPA_PSK AUTH_WPA_WPA2_PSK LAN PPP STAT_ASSOC_FAIL
        STAT_BEACON_TIMEOUT STAT_CONNECTING STAT_GOT_IP STAT_HANDSHAKE_TIMEOUT STAT_IDLE
        STAT_NO_AP_FOUND STAT_WRONG_PASSWORD STA_IF WLAN country hostname phy_mode
        """
    ),
    "os": _words(
        """
        VfsFat VfsLfs2 chdir dupterm dupterm_notify getcwd ilistdir listdir mkdir mount remove
        rename rmdir stat statvfs sync umount uname unlink urandom
        """
    ),
    "random": _words("choice getrandbits randint random randrange seed uniform"),
    "re": _words("compile match search sub"),
    "select": _words("POLLERR POLLHUP POLLIN POLLOUT poll select"),
    "socket": _words(
        """
        AF_INET AF_INET6 IPPROTO_IP IPPROTO_TCP IPPROTO_UDP IP_ADD_MEMBERSHIP SOCK_DGRAM SOCK_RAW
        SOCK_STREAM SOL_SOCKET SO_BINDTODEVICE SO_BROADCAST SO_REUSEADDR getaddrinfo socket
        """
    ),
    "ssl": _words(
        """
        CERT_NONE CERT_OPTIONAL CERT_REQUIRED MBEDTLS_VERSION PROTOCOL_TLS_CLIENT
        PROTOCOL_TLS_SERVER SSLContext wrap_socket
        """
    ),
    "struct": _words("calcsize pack pack_into unpack unpack_from"),
    "sys": _words(
        """
        argv byteorder exit implementation maxsize modules path platform print_exception ps1 ps2
        stderr stdin stdout version version_info
        """
    ),
    "time": _words(
        """
        gmtime localtime mktime sleep sleep_ms sleep_us ticks_add ticks_cpu ticks_diff ticks_ms
        ticks_us time time_ns
        """
    ),
} | dict.fromkeys(
    _words(
        """
        __main__ aioespnow bluetooth btree builtins cmath cryptolib dht ds18x20 esp espnow
        framebuf heapq math mip neopixel ntptime onewire platform requests uctypes umqtt.robust
        umqtt.simple urequests webrepl websocket
        """
    )
)
#: Newer modules, and what is newer in old ones.
NEWER = {
    "vfs": "1.23",
    "tls": "1.23",
    "esp32.mcu_temperature": "1.23",
    "socket.TCP_NODELAY": "1.23",
    "micropython.RingIO": "1.24",
    "network.ipconfig": "1.24",
    "machine.USBDevice": "1.25",
    "network.STAT_CONNECT_FAIL": "1.25",
    "esp32.PCNT": "1.26",
    "esp32.idf_task_info": "1.26",
    "machine.Counter": "1.26",
    "machine.Encoder": "1.26",
    "machine.I2CTarget": "1.26",
    "socket.MSG_DONTWAIT": "1.26",
    "socket.MSG_PEEK": "1.26",
    "esp32.wake_on_gpio": "1.27",
    "platform.processor": "1.27",
    # Only where a board's own firmware is built with MICROPY_VFS_ROM, from 1.25 on.
    "vfs.VfsRom": NEVER,
    "vfs.rom_ioctl": NEVER,
}
#: Attributes and methods, of whatever they are.
ATTRIBUTES = {
    "IF_AP": "1.23",
    "IF_STA": "1.23",
    "appendleft": "1.23",
    "verify_callback": "1.23",
    "_build": "1.25",
    "toggle": "1.25",
    "_thread": "1.26",
    "readinto1": NEVER,
    "groups": NEVER,
    "recv_into": NEVER,
    "span": NEVER,
}
#: Of builtin types and functions that take positional arguments only.
NO_KEYWORDS = _words(
    """
    split rsplit splitlines encode decode replace find sum int str bytes bytearray range zip
    round divmod pow getattr isinstance len iter next from_bytes startswith endswith
    """
)
_TYPES = (str, bytes, bytearray, memoryview, list, dict, set, int, float, tuple)
OTHERS = {name for kind in _TYPES for name in dir(kind) if not name.startswith("_")} - METHODS
#: What the application brings on flash.
BROUGHT = _words("device_info field_ota logging modem mqtt_as utils")
