'use strict'
// Calls a function's handler over HTTP. Listens on the unix socket FAAS_SOCKET, else on the TCP port PORT. With FAAS_INSTANCE
// it answers only what names that in X-Faas-Instance: its address may have been another's, who is still called there.
//
//   POST /invoke   JSON in, the handler's result as JSON out
//   POST /         the same, unless there is module.exports.http
//   anything else  goes to module.exports.http(req, res) when there is one
//
// `node --max-http-header-size=131072 shim.js [DIRECTORY]`: the code lies in DIRECTORY, else in /function. Works from Node 12
// on, which knows only this flag for heads as large as the platform lets pass, and needs no package.

const http = require('http')
const path = require('path')

const directory = path.resolve(process.argv[2] || '/function')
const instance = process.env.FAAS_INSTANCE
const open = new Set()
let stopping = false

function complain (text) {
  process.stderr.write('faas: ' + text + '\n')
}

// Handlers may throw anything, also what cannot become a text.
function text (of) {
  try {
    return String(of())
  } catch (_) {
    return 'it threw something that cannot be written as text'
  }
}

function describe (error) {
  return text(() => {
    if (error instanceof Error) return error.message
    const fields = typeof error === 'object' ? JSON.stringify(error) : '{}'
    return fields === '{}' ? error : fields
  })
}

function trace (error) {
  return text(() => (error && error.stack) || error)
}

function answer (res, status, body, fields) {
  if (!open.delete(res)) return
  const head = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
  if (stopping) head.Connection = 'close'
  res.writeHead(status, Object.assign(head, fields))
  res.end(body, leaveWhenDone)
}

function refuse (res, status, code, message, fields) {
  answer(res, status, JSON.stringify({ message, code }), Object.assign({ 'X-Faas-Error': code }, fields))
}

function fail (res, error) {
  refuse(res, 500, 'FunctionFailed', describe(error))
}

function crash (res, error) {
  complain(trace(error))
  fail(res, error)
}

function succeed (res, result) {
  let body
  try {
    body = JSON.stringify(result === undefined ? null : result)
    if (body === undefined) throw new TypeError('it is a ' + typeof result)
  } catch (error) {
    return crash(res, new Error('the result cannot be written as JSON: ' + describe(error)))
  }
  answer(res, 200, body)
}

function call (handler, input, res) {
  let called = false
  const cb = (result) => {
    if (called) return complain('the handler called back twice; only the first result counts')
    called = true
    succeed(res, result)
  }
  let result, isPromise
  try {
    result = handler(input, cb)
    isPromise = Boolean(result) && typeof result.then === 'function'
  } catch (error) {
    return crash(res, error)
  }
  if (isPromise) {
    Promise.resolve(result).then(
      // A promise of nothing is what an async handler that calls back returns.
      (value) => { if (!called && (value !== undefined || handler.length < 2)) cb(value) },
      (error) => crash(res, error)
    )
  } else if (handler.length < 2 && !called) {
    if (result !== undefined) cb(result)
  }
}

// What is not UTF-8 would come as replacement characters, and be taken for what the caller said.
function textOf (body) {
  const text = body.toString()
  if (text.includes('\ufffd') && !Buffer.from(text).equals(body)) throw new TypeError('it is not UTF-8')
  return text
}

function invoke (handler, req, res) {
  open.add(res)
  res.on('close', () => { if (open.delete(res)) leaveWhenDone() })
  let first = null
  let chunks = null
  req.on('data', (chunk) => {
    if (first === null) first = chunk
    else if (chunks === null) chunks = [first, chunk]
    else chunks.push(chunk)
  })
  req.on('end', () => {
    const body = chunks === null ? first : Buffer.concat(chunks)
    let input = {}
    try {
      if (body !== null) input = JSON.parse(textOf(body))
    } catch (error) {
      return refuse(res, 400, 'BadInput', 'the input is not JSON: ' + error.message)
    }
    call(handler, input, res)
  })
}

function pass (other, req, res) {
  open.add(res)
  const done = () => { if (open.delete(res)) leaveWhenDone() }
  res.on('close', done)
  res.on('finish', done)
  const broke = (error) => {
    complain(trace(error))
    if (res.headersSent) res.destroy()
    else fail(res, error)
  }
  try {
    const result = other(req, res)
    if (result && typeof result.then === 'function') result.then(undefined, broke)
  } catch (error) {
    broke(error)
  }
}

function turnAway (req, res) {
  open.add(res)
  const message = 'this function has no `http` export, so it answers POST / and POST /invoke only'
  const isCallable = ['/', '/invoke'].includes(req.url.split('?')[0])
  if (isCallable && req.method !== 'POST') refuse(res, 405, 'MethodNotAllowed', message, { Allow: 'POST' })
  else refuse(res, 404, 'NotFound', message)
}

function isForAnother (req) {
  return instance !== undefined && req.headers['x-faas-instance'] !== instance
}

function misdirect (res) {
  open.add(res)
  refuse(res, 421, 'Misdirected', 'this is another instance than the one that was called', { Connection: 'close' })
}

function serve (handler) {
  const calls = typeof handler === 'function'
  const other = typeof handler.http === 'function' ? handler.http : null
  const server = http.createServer((req, res) => {
    if (isForAnother(req)) return misdirect(res)
    const isCall = calls && req.method === 'POST' && (req.url === '/invoke' || (req.url === '/' && !other))
    if (isCall) invoke(handler, req, res)
    else if (other) pass(other, req, res)
    else turnAway(req, res)
  })
  // The platform owns its connections and every time limit.
  server.keepAliveTimeout = 0
  server.headersTimeout = 0
  server.requestTimeout = 0
  server.timeout = 0
  server.on('error', (error) => {
    complain('cannot listen: ' + error.message)
    process.exit(1)
  })
  server.listen(process.env.FAAS_SOCKET || Number(process.env.PORT || 8080))
  return server
}

// --- the end ---------------------------------------------------------------------------------------------------------

let server = null

function leaveWhenDone () {
  if (stopping && open.size === 0) process.exit(0)
}

process.on('SIGTERM', () => {
  stopping = true
  if (server) server.close()
  leaveWhenDone()
})

function die (error) {
  complain(trace(error))
  // Of several calls nobody knows whose it was, and none may read of another's.
  const isKnown = open.size === 1
  for (const res of open) {
    if (isKnown && !res.headersSent) fail(res, error)
    else res.destroy()
  }
  // What was answered must reach the platform before the end.
  setImmediate(() => process.exit(1))
}
process.on('uncaughtException', die)
process.on('unhandledRejection', die)

// --- the start -------------------------------------------------------------------------------------------------------

function start (loaded) {
  let handler = loaded
  if (handler && typeof handler !== 'function' && typeof handler.default === 'function') handler = handler.default
  if (typeof handler !== 'function' && !(handler && typeof handler.http === 'function')) {
    complain('the handler is missing: ' + path.join(directory, 'index.js') +
      ' (or `main` of package.json) must say `module.exports = (context, cb) => cb(result)`')
    process.exit(1)
  }
  server = serve(handler)
}

function load () {
  let main
  try {
    main = require.resolve(directory)
    return start(require(main))
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM') {
      complain('the code cannot be loaded: ' + trace(error))
      process.exit(1)
    }
  }
  import(main).then(start, (error) => {
    complain('the code cannot be loaded: ' + trace(error))
    process.exit(1)
  })
}

load()
