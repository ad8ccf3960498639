// Tries to get out. Each word in `do` is another attempt, and answers what came of it.
const fs = require('fs'), net = require('net'), os = require('os'), path = require('path'), dgram = require('dgram')
const { spawn, spawnSync } = require('child_process')

// System calls that nothing else makes, by their numbers.
const calls = {
  x64: {
    acct: 163, add_key: 248, bpf: 321, fsopen: 430, init_module: 175, keyctl: 250, mknodat: 259, mount: 165, open_by_handle_at: 304,
    open_tree: 428, perf_event_open: 298, pivot_root: 155, ptrace: 101, reboot: 169, setns: 308, sethostname: 170, settimeofday: 164,
    swapon: 167, umount2: 166, unshare: 272, userfaultfd: 323
  },
  arm64: {
    acct: 89, add_key: 217, bpf: 280, fsopen: 430, init_module: 105, keyctl: 219, mknodat: 33, mount: 40, open_by_handle_at: 265,
    open_tree: 428, perf_event_open: 241, pivot_root: 41, ptrace: 117, reboot: 142, setns: 268, sethostname: 161, settimeofday: 170,
    swapon: 224, umount2: 39, unshare: 97, userfaultfd: 282
  }
}[process.arch]

const attempt = (deed) => { try { deed(); return 'done' } catch (error) { return error.info?.code || error.code || `${error}` } }
const errors = Object.fromEntries(Object.entries(os.constants.errno).map(([name, number]) => [number, name]))
const perl = (code) => {
  const { error, stdout, stderr } = spawnSync('perl', ['-e', `print(${code} ? "done" : $! + 0)`], { encoding: 'utf8' })
  return error?.code || errors[stdout] || stdout || stderr
}
const call = (name, ...args) => perl(`syscall(${[calls[name], ...args, 0, 0, 0, 0, 0].slice(0, 6).join(', ')}) != -1`)
const socket = (family, kind, protocol) => perl(`socket(my $s, ${family}, ${kind}, ${protocol})`)
const open = (file, flags) => attempt(() => fs.closeSync(fs.openSync(file, flags)))

const ATTACH = 16, NEWUSER = 0x10000000, NEWNS = 0x20000
const others = Object.keys(calls).filter((name) => !['mknodat', 'ptrace', 'unshare'].includes(name))

const privileges = () => ({
  'uid 0': attempt(() => process.setuid(0)),
  'gid 0': attempt(() => process.setgid(0)),
  'group 0': attempt(() => process.setgroups([0])),
  'a file of root': attempt(() => { fs.writeFileSync('/tmp/own', ''); fs.chownSync('/tmp/own', 0, 0) }),
  'the first in line': attempt(() => os.setPriority(-5)),
  'the last to be killed': attempt(() => fs.writeFileSync('/proc/self/oom_score_adj', '-1')),
  'a device': call('mknodat', -100, 'my $name = "/tmp/disk"', 0o60600, 0x800),
  'another root': perl('chroot("/usr")'),
  'raw packets': socket(2, 3, 1),
  'raw frames': socket(17, 3, 768),
  'the sockets of machines': socket(40, 1, 0),
  'a user namespace': call('unshare', NEWUSER),
  'a mount namespace': call('unshare', NEWNS),
  'the init, traced': call('ptrace', ATTACH, 1),
  'the init, its memory': open('/proc/1/mem', 'r+'),
  'the init, its output': open('/proc/1/fd/1', 'w'),
  'the init, its environment': open('/proc/1/environ', 'r'),
  'the init, its root': attempt(() => fs.readdirSync('/proc/1/root/')),
  ...Object.fromEntries(others.map((name) => [name, call(name)]))
})

// All that there is, but for what the kernel tells of processes.
const all = function * (dir = '/', skip = /^\/proc\/(\d+|self|thread-self)$/) {
  yield [dir, 'directory']
  let entries = []
  try { entries = fs.readdirSync(dir, { withFileTypes: true }) } catch {}
  for (const entry of entries) {
    const name = path.join(dir, entry.name)
    if (skip.test(name)) continue
    if (entry.isDirectory()) yield * all(name, skip)
    else if (entry.isFile()) yield [name, 'file']
    else if (entry.isSocket()) yield [name, 'socket']
    else if (!entry.isSymbolicLink()) yield [name, 'device']
  }
}

const { O_WRONLY, O_NONBLOCK, O_NOFOLLOW } = fs.constants
const writes = () => {
  const found = { directory: [], file: [], device: [], socket: [] }
  for (const [name, kind] of all()) {
    const mark = path.join(name, '.attack')
    const can = kind === 'directory'
      ? attempt(() => { fs.writeFileSync(mark, ''); fs.unlinkSync(mark) })
      : open(name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW)
    // The engine covers files by devices.
    const real = kind === 'file' && can === 'done' && !fs.lstatSync(name).isFile() ? 'device' : kind
    if (can === 'done' || kind === 'socket') found[real].push(name)
  }
  return found
}

// Which of these texts are in anything that can be read, what processes were told included.
const find = ({ needles }) => {
  const found = {}
  let read = 0
  const told = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => ['environ', 'cmdline', 'mountinfo', 'maps'].map((file) => `/proc/${pid}/${file}`))
  const files = [...all('/', /^\/(proc\/(\d+|self|thread-self|kmsg)|sys|usr|lib|lib64|bin|sbin)$/)].filter(([, kind]) => kind === 'file')
  for (const name of [...told, ...files.map(([name]) => name)]) {
    try {
      const text = fs.readFileSync(name, { flag: fs.constants.O_RDONLY | O_NONBLOCK })
      read++
      for (const needle of needles) if (text.includes(needle)) (found[needle] ||= []).push(name)
    } catch {}
  }
  return { read, found }
}

// To places with a host and a port, or the path of a unix socket.
const connect = (place) => new Promise((done) => {
  const socket = net.connect({ ...place, timeout: 1500 })
  const end = (what) => { socket.destroy(); done(what) }
  socket.on('connect', () => end('open')).on('timeout', () => end('silent')).on('error', (error) => end(error.code))
})
const reach = async ({ places }) => Promise.all(places.map(connect))

// Sends to all hosts; tells which were answered by others until, last of all, the function itself has answered.
const shout = ({ port, hosts, own }) => new Promise((done) => {
  const socket = dgram.createSocket('udp4'), heard = []
  socket.on('message', (message, from) => {
    if (from.address !== own) return heard.push(`${message}`)
    // To all of its network is to itself as well.
    if (`${message}` === own) { socket.close(); done(heard) }
  })
  socket.on('listening', () => {
    socket.setBroadcast(true)
    for (const host of hosts) socket.send(host, port, host, () => {})
    setTimeout(() => socket.send(own, port, own), 300)
  })
  socket.bind()
})

// Answers on this port from now on; tells its address.
const listen = ({ port }) => new Promise((done) => {
  const socket = dgram.createSocket('udp4')
  socket.on('message', (message, from) => socket.send(message, from.port, from.address)).bind(port)
  net.createServer((socket) => socket.end()).listen(port, '0.0.0.0', () => done(os.networkInterfaces().eth0[0].address))
})

const network = () => ({
  interfaces: Object.keys(os.networkInterfaces()).sort(),
  unix: fs.readFileSync('/proc/net/unix', 'utf8').split('\n').slice(1).map((line) => line.split(/ +/)[7]).filter(Boolean)
})

// Opens files until there are no more descriptors, in as many processes as there may be.
const HOARD = '$| = 1; my @all; while (open(my $one, "<", "/dev/null")) { push @all, $one } print scalar(@all); sleep'
const fill = (dir) => attempt(() => {
  const file = fs.openSync(`${dir}/full`, 'w'), piece = Buffer.alloc(1 << 20)
  for (;;) fs.writeSync(file, piece)
})
const gorge = async () => {
  const disk = ['/tmp', '/dev/shm', path.dirname(process.env.FAAS_SOCKET)].map(fill)
  const hoards = []
  for (;;) {
    const child = spawn('perl', ['-e', HOARD], { stdio: ['ignore', 'pipe', 'ignore'] })
    const end = await new Promise((done) => {
      child.on('error', (error) => done(error.code)).on('exit', (code, signal) => done(signal || code))
      child.stdout?.on('data', (data) => done(Number(data)))
    })
    if (typeof end !== 'number' || end === 0) return { disk, hoards, end }
    hoards.push(end)
  }
}
const hog = () => { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }

const deeds = { fine: () => 'fine', privileges, writes, find, reach, shout, listen, network, gorge, hog }
module.exports = (context) => deeds[context.do](context)
