// Speaks HTTP by hand, so that it can do what no server does: each path, or each word in `do`, another misdeed.
const fs = require('fs'), net = require('net')
const { dirname } = require('path')
const { spawn } = require('child_process')
const place = process.env.FAAS_SOCKET

const say = (socket, text, fields = '') =>
  socket.write(`HTTP/1.1 200 OK\r\n${fields}Content-Length: ${text.length}\r\n\r\n${text}`)
const begin = 'HTTP/1.1 200 OK\r\n'

// Writes the same again and again, as fast as it is taken.
const forever = (stream, piece, times = Infinity) => {
  const more = () => {
    while (times-- > 0) if (!stream.write(piece)) return stream.once('drain', more)
    stream.emit('through')
  }
  more()
}

const byteByByte = (ms) => (socket) => {
  const bytes = [...`${begin}Content-Length: 4\r\n\r\nslow`]
  const next = () => { socket.write(bytes.shift()); if (bytes.length) setTimeout(next, ms) }
  next()
}

// All connections are closed, so that the next call comes through what stands there then.
const connections = new Set()
const replaced = (put) => (socket) => {
  fs.rmSync(place)
  put()
  for (const other of connections) if (other !== socket) other.destroy()
  socket.end(`${begin}Connection: close\r\nContent-Length: 4\r\n\r\ndone`)
}

const fill = (dir) => {
  let bytes = 0, files = 0
  const piece = Buffer.alloc(1 << 20)
  try {
    const file = fs.openSync(`${dir}/full`, 'w')
    for (;;) bytes += fs.writeSync(file, piece)
  } catch (error) {
    if (error.code !== 'ENOSPC') return error.code
  }
  if (dir !== '/tmp') try { for (;;) fs.writeFileSync(`${dir}/${++files}`, '') } catch (error) { return error.code }
  return bytes > 0 ? 'ENOSPC' : 'nothing'
}

const fork = (socket, many = 0) => {
  const child = spawn('sleep', ['1000'])
  child.on('error', (error) => say(socket, `${error.code} ${many > 0}`))
  child.on('spawn', () => fork(socket, many + 1))
}

const deeds = {
  fine: (socket) => say(socket, 'fine'),
  hang: () => {},
  freeze: () => process.kill(process.pid, 'SIGSTOP'),
  hog: () => { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) },
  fill: (socket) => say(socket, `${fill('/tmp')} ${fill(dirname(place))}`),
  fork,
  link: replaced(() => fs.symlinkSync('/var/run/docker.sock', place)),
  file: replaced(() => fs.writeFileSync(place, '')),
  directory: replaced(() => fs.mkdirSync(place)),
  deaf: (socket) => socket.pause(),
  // Says that it closes, and does not.
  open: (socket) => say(socket, 'open', 'Connection: close\r\n'),
  slow: byteByByte(5),
  crawl: byteByByte(200),
  halfhead: (socket) => socket.write(`${begin}Content-Le`),
  cuthead: (socket) => socket.end(`${begin}Content-Le`),
  // Without an end of a line, and without an end.
  garbage: (socket) => forever(socket, Buffer.alloc(1 << 16, 0xa7)),
  badchunk: (socket) => socket.write(`${begin}Transfer-Encoding: chunked\r\n\r\nZZ\r\n`),
  heads: (socket) => { socket.write(begin); forever(socket, `X-Field: ${'x'.repeat(65000)}\r\n`, 1600) },
  early: (socket) => { socket.pause(); say(socket, 'early') },
  earlyclose: (socket) => { socket.pause(); say(socket, 'early', 'Connection: close\r\n'); socket.destroySoon() },
  endless: (socket) => {
    socket.write(`${begin}Transfer-Encoding: chunked\r\n\r\n`)
    forever(socket, `10000\r\n${' '.repeat(1 << 16)}\r\n`)
  },
  // Six times as long in an envelope.
  controls: (socket) => say(socket, '\x01'.repeat(12 << 20)),
  fails: (socket) => {
    const body = `[${'{"a":0},'.repeat(3 << 19)}{}]`
    socket.write(`HTTP/1.1 500 Sorry\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
  },
  longline: (socket) => { process.stdout.once('through', () => say(socket, 'said')); forever(process.stdout, 'x'.repeat(1 << 16), 1000) },
  words: (socket) => { process.stdout.once('through', () => say(socket, 'said')); forever(process.stdout, 'so many words\n'.repeat(1 << 12), 1000) },
  emptylines: (socket) => { process.stdout.once('through', () => say(socket, 'said')); forever(process.stdout, '\n'.repeat(1 << 16), 100) },
  count: () => setInterval(() => console.log(`at ${Date.now()}`), 10),
  mark: (socket) => { console.log('mark'); say(socket, 'marked') }
}

const server = net.createServer((socket) => {
  let text = ''
  connections.add(socket)
  socket.on('error', () => {}).on('close', () => connections.delete(socket))
  socket.on('data', (data) => {
    text += data.toString('latin1')
    if (!text.includes('\r\n\r\n')) return
    const path = text.split(' ')[1].slice(1)
    const deed = path === 'invoke' ? /"do":"(\w+)"/.exec(text)?.[1] : path
    if (!deed) return
    text = ''
    if (deeds[deed]) deeds[deed](socket)
    else say(socket, 'unknown')
  })
})
setTimeout(() => server.listen(place), Number(process.env.LATE_MS || 0))
