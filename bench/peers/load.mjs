// A load generator: keeps CONNECTIONS busy with the prepared requests, each answered before the next is sent.
// argv: URL, file with one JSON {token, body} a line, connections, seconds (or the number of requests with COUNT=1).
import fs from 'node:fs'
import net from 'node:net'

const [, , url, file, connections, amount] = process.argv
const { hostname, port, pathname } = new URL(url)
const requests = fs.readFileSync(file, 'utf8').trim().split('\n').map((line) => {
  const { token, body } = JSON.parse(line)
  const head = `POST ${pathname} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Type: application/json\r\n` +
    `Authorization: Bearer ${token}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`
  return Buffer.from(head + body)
})
const isCounted = process.env.COUNT === '1'
const statuses = {}, latencies = []
let sent = 0, next = Math.floor(Math.random() * requests.length), open = 0
const started = performance.now(), until = started + Number(amount) * 1000

function isOver() {
  return isCounted ? sent >= Number(amount) : performance.now() >= until
}

function work(socket) {
  let at = 0, pending = ''
  const ask = () => {
    if (isOver()) return socket.end()
    sent += 1
    next = (next + 1) % requests.length
    at = performance.now()
    socket.write(requests[next])
  }
  socket.on('data', (data) => {
    pending += data.toString('latin1')
    const end = pending.indexOf('\r\n\r\n')
    if (end < 0) return
    const length = Number(/content-length: (\d+)/i.exec(pending.slice(0, end + 2))?.[1] ?? 0)
    if (pending.length < end + 4 + length) return
    const status = pending.slice(9, 12)
    statuses[status] = (statuses[status] || 0) + 1
    latencies.push(performance.now() - at)
    pending = ''
    ask()
  })
  socket.on('error', () => { statuses.error = (statuses.error || 0) + 1 })
  socket.on('close', () => {
    open -= 1
    if (open) return
    latencies.sort((a, b) => a - b)
    const part = (share) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]
    const seconds = (performance.now() - started) / 1000
    console.log(JSON.stringify({ statuses, rate: latencies.length / seconds, p50_ms: part(0.5), p99_ms: part(0.99) }))
  })
  ask()
}

for (let n = 0; n < Number(connections); n++) {
  open += 1
  const socket = net.connect({ host: hostname, port: Number(port), noDelay: true }, () => work(socket))
}
