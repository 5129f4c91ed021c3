// A release of MicroPython, instance after instance: `node instances.mjs FOLDER FROM TO`, where
// FOLDER has its micropython.mjs, and the host is at the file descriptors FROM and TO.
//
// Both are read and written synchronously: an instance waits for the host as a chip waits for its
// flash. Numbers are little-endian.
//   to us:    i32 result, u32 size, data. The data of the first one of each instance is JSON:
//             {"heap": bytes, "folders": {"/in/the/instance": "/on/the/host"}, "code": "…"}
//   from us:  i32 operation, i32 a, i32 b, u32 size, data
// Device code speaks to the host through the file /dev/host.

import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const OUTPUT = 1 // data: what it has printed; not answered
const END = 2 // data: the traceback that ended it, or nothing; not answered
const USED = 8 // a: bytes of the heap in use; not answered, and the end of the instance
const OFF = -0x80000000 // a result: power is gone, or the chip is being reset
const LOOK = -0x7fffffff // a result: say what is in use, which ends the instance

const [FROM, TO] = process.argv.slice(3).map(Number)

class Off extends Error {}
class Look extends Error {}

function receive (size) {
  const data = Buffer.alloc(size)
  for (let at = 0; at < size;) {
    const got = fs.readSync(FROM, data, at, size - at)
    if (!got) process.exit(0) // the host has done with us
    at += got
  }
  return data
}

function send (data) {
  for (let at = 0; at < data.length;) at += fs.writeSync(TO, data, at)
}

function tell (operation, content, a = 0) {
  const data = Buffer.from(content)
  const head = Buffer.alloc(16)
  head.writeInt32LE(operation, 0)
  head.writeInt32LE(a, 4)
  head.writeUInt32LE(data.length, 12)
  send(Buffer.concat([head, data]))
}

let line = []

function print (text) {
  // Releases before 1.23 have whole lines, others bytes.
  line.push(...(typeof text === 'string' ? Buffer.from(text + '\n') : text))
  if (line[line.length - 1] === 10) flush()
}

function flush () {
  if (line.length) tell(OUTPUT, line)
  line = []
}

function answer () {
  const head = receive(8)
  // No `except` or `finally` of the node's runs: the instance ends here.
  if (head.readInt32LE(0) === OFF) throw new Off()
  if (head.readInt32LE(0) === LOOK) throw new Look()
  return Buffer.concat([head, receive(head.readUInt32LE(4))])
}

function device (FS) {
  let waiting = Buffer.alloc(0)
  const number = FS.makedev(64, 0)
  FS.registerDevice(number, {
    read (_, memory, offset, length) {
      if (!waiting.length) waiting = answer()
      const size = Math.min(length, waiting.length)
      memory.set(waiting.subarray(0, size), offset)
      waiting = waiting.subarray(size)
      return size
    },
    write (_, memory, offset, length) {
      flush() // it may be the last that this instance does
      if (counters.length) clearStack()
      send(Buffer.from(memory.subarray(offset, offset + length)))
      return length
    }
  })
  FS.mkdev('/dev/host', number)
}

function copy (FS, from, to) {
  FS.mkdirTree(to)
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    const [there, here] = [path.join(from, entry.name), `${to}/${entry.name}`]
    if (entry.isDirectory()) copy(FS, there, here)
    else FS.writeFile(here, fs.readFileSync(there))
  }
}

// MicroPython in WebAssembly collects garbage only where no Python code runs: gc.collect() is a
// wish. So what is in use somewhere in Python is found by leaving it there, by an exception of
// JavaScript's: all frames and locals stay where the collector looks for them (its "pystack"). It
// believes that code still runs, by a counter of calls, which is not exported. It is the one word
// of its memory that has had the number of calls at each of several depths.

// And the part of that stack above the frame that runs is cleared each time that the host is asked,
// or the next frames there would refer to what earlier ones have left. It is found by its size.

const STACK = 2039 // in words
let memory = null
let stack = null // where its three pointers are: its start, its end, and its top

function findStack () {
  const all = words()
  const size = STACK * 4
  const found = [...all.keys()].filter(at => all[at] > 0 && all[at + 1] - all[at] === size &&
    all[at] <= all[at + 2] && all[at + 2] < all[at + 1])
  return found.length === 1 ? found[0] : 0 // 0: 1.23.0 has another size
}

function clearStack () {
  const all = new Int32Array(memory.buffer)
  stack ??= findStack()
  if (stack) all.fill(0, all[stack + 2] / 4, all[stack + 1] / 4)
}

const instantiate = WebAssembly.instantiate
WebAssembly.instantiate = async (...what) => {
  const made = await instantiate(...what)
  const parts = Object.values((made.instance ?? made).exports)
  memory = parts.find(part => part instanceof WebAssembly.Memory)
  return made
}

function words () {
  return new Int32Array(memory.buffer, 0, 1 << 18)
}

function findCounter (instance) {
  const seen = []
  let depth = 0
  const deeper = () => {
    if (++depth < 5) instance.runPython('import _deeper\n_deeper.call()')
    depth--
    seen.push([depth + 1, words().slice()])
  }
  seen.push([0, words().slice()])
  instance.registerJsModule('_deeper', { call: deeper })
  instance.runPython('import _deeper\n_deeper.call()')
  seen.push([0, words().slice()])
  const found = [...words().keys()].filter(at => seen.every(([n, then]) => then[at] === n))
  return found
}

function look (instance) {
  if (counters.length !== 1) throw new Error(`${counters.length} words count calls`)
  words()[counters[0]] = 0
  instance.runPython('gc.collect()')
  instance.runPython('_used = gc.mem_alloc()')
  tell(USED, '', instance.globals.get('_used'))
}

const folder = path.resolve(process.argv[2])
const release = await import(pathToFileURL(path.join(folder, 'micropython.mjs')))

function make (heapsize) {
  return release.loadMicroPython({
    url: path.join(folder, 'micropython.wasm'),
    heapsize,
    pystack: STACK,
    stdout: print,
    stderr: print,
    linebuffer: false
  })
}

// Now: instances of one module share their references to objects.
const counters = findCounter(await make(1 << 18))
for (;;) {
  const job = JSON.parse(answer().subarray(8))
  const instance = await make(job.heap)
  try {
    device(instance.FS)
    for (const [to, from] of Object.entries(job.folders)) copy(instance.FS, from, to)
    instance.runPython(job.code)
    flush()
    tell(END, '')
  } catch (error) {
    flush()
    if (error instanceof Look) {
      look(instance)
    } else if (!(error instanceof Off)) tell(END, error.message || String(error))
  }
}
