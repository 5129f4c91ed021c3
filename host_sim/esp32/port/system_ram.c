// An ESP32's system RAM: one region, from which the areas of MicroPython's heap and all of TLS
// come. The environment's ESP32_RAM says how much there is, in KB, with the heap's first area;
// ESP32_MORE what each TLS session takes beside what it takes here, in KB: other certificates, and
// the buffers of its socket.
//
// Each new area, and each close of a TLS session, is a line on stderr where ESP32_TRACE is set.

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "py/gc.h"
#include "py/mpstate.h"

#define FIRST_AREA (56 * 1024)

// Free and taken blocks follow each other without a gap. The ESP-IDF's allocator, too, has one word
// of its own before each taken block, and takes the best fit.
typedef struct {
    uint32_t free : 1;
    uint32_t tls : 1;
    uint32_t size : 30; // of what follows, a multiple of 4
} block_t;

#define LEAST (12)
#define AFTER(block) ((block_t *)((char *)(block + 1) + (block)->size))

static block_t *start, *end;
static size_t tls, tls_peak, more;
static int trace;

static void set_up(void) {
    if (start != NULL) {
        return;
    }
    const char *ram = getenv("ESP32_RAM");
    size_t kb = ram ? strtoul(ram, NULL, 10) : 1024;
    size_t size = kb * 1024 > FIRST_AREA + 1024 ? kb * 1024 - FIRST_AREA : 1024;
    start = malloc(size);
    end = (block_t *)((char *)start + size);
    *start = (block_t) {1, 0, size - sizeof(block_t)};
    more = getenv("ESP32_MORE") ? strtoul(getenv("ESP32_MORE"), NULL, 10) * 1024 : 0;
    trace = getenv("ESP32_TRACE") != NULL;
}

static size_t largest(void) {
    size_t found = 0;
    for (block_t *at = start; at < end; at = AFTER(at)) {
        if (at->free && at->size > found) {
            found = at->size;
        }
    }
    return found;
}

static size_t heap_size(void) {
    size_t total = 0;
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        total += area->gc_pool_end - area->gc_alloc_table_start;
    }
    return total;
}

static void say(const char *what, size_t size) {
    if (trace) {
        fprintf(stderr, "@ram %s %u: heap %u, TLS %u, largest free %u\n", what, (unsigned)size,
            (unsigned)heap_size(), (unsigned)tls, (unsigned)largest());
    }
}

static void *take(size_t size, bool for_tls) {
    set_up();
    size = size < LEAST ? LEAST : (size + 3) & ~(size_t)3;
    block_t *best = NULL;
    for (block_t *at = start; at < end; at = AFTER(at)) {
        if (at->free && at->size >= size && (best == NULL || at->size < best->size)) {
            best = at;
        }
    }
    if (best == NULL) {
        return NULL;
    }
    if (best->size >= size + sizeof(block_t) + LEAST) {
        size_t rest = best->size - size - sizeof(block_t);
        best->size = size;
        *AFTER(best) = (block_t) {1, 0, rest};
    }
    best->free = 0;
    best->tls = for_tls;
    if (for_tls) {
        tls += best->size + sizeof(block_t);
        tls_peak = tls > tls_peak ? tls : tls_peak;
    }
    return best + 1;
}

static void give(void *piece) {
    block_t *block = (block_t *)piece - 1;
    block->free = 1;
    if (block->tls) {
        tls -= block->size + sizeof(block_t);
    }
    for (block_t *at = start; at < end; at = AFTER(at)) {
        while (at->free && AFTER(at) < end && AFTER(at)->free) {
            at->size += sizeof(block_t) + AFTER(at)->size;
        }
    }
}

// A session has one such buffer, for what comes in; before it, here, is what it takes more.
#define IS_SESSION(size) ((size) > 16384)
#define MOST_SESSIONS (4)
static struct {
    void *buffer, *more;
} sessions[MOST_SESSIONS];

static int session_of(void *buffer) {
    int i = 0;
    while (i < MOST_SESSIONS - 1 && sessions[i].buffer != buffer) {
        i++;
    }
    return i;
}

void *system_ram_calloc(size_t count, size_t size) {
    size *= count;
    void *extra = NULL;
    void *piece = take(size, true);
    if (piece != NULL && IS_SESSION(size) && more) {
        extra = take(more, true);
        if (extra == NULL) {
            give(piece);
            piece = NULL;
        }
    }
    if (piece == NULL) {
        say("no room for TLS", size);
        return NULL;
    }
    if (IS_SESSION(size)) {
        int i = session_of(NULL);
        sessions[i].buffer = piece;
        sessions[i].more = extra;
        say("TLS begins", size);
    }
    return memset(piece, 0, size);
}

void system_ram_free(void *piece) {
    if (piece == NULL) {
        return;
    }
    size_t size = ((block_t *)piece - 1)->size;
    bool is_tls = ((block_t *)piece - 1)->tls;
    give(piece);
    if (!is_tls) {
        say("area given back", size);
    } else if (IS_SESSION(size)) {
        int i = session_of(piece);
        if (sessions[i].more) {
            give(sessions[i].more);
        }
        sessions[i].buffer = sessions[i].more = NULL;
        say("TLS ends, peak", tls_peak);
        tls_peak = tls;
    }
}

void *system_ram_heap(size_t size) {
    void *piece = take(size, false);
    say("area", size);
    return piece;
}

// At most as much again as the heap has. The simulator's own code lies in the first area, which is
// larger by as much: it is not counted, as it is not on a board.
size_t gc_get_max_new_split(void) {
    set_up();
    mp_state_mem_area_t *first = &MP_STATE_MEM(area);
    size_t now = heap_size() - (first->gc_pool_end - first->gc_alloc_table_start) + FIRST_AREA;
    size_t room = largest();
    return room < now ? room : now;
}
