// Server-sent events for many viewers, coalesced for 50 ms: what a good Node server would do. GET /start?events=1000&rate=100
// makes it publish that many events, each a node as the fleet's stream shows it.
import http from 'node:http'

const COALESCE_MS = 50
const viewers = new Set()
let pending = []

function event(number) {
  const node = {
    node_id: `node-${String(number % 100).padStart(5, '0')}`, display_name: '', group: '', tags: [], region: '',
    agent_version: '0.1.0', interval_seconds: 10, last_seen_at: new Date().toISOString(), cpu_percent: 12.5,
    memory_percent: 34.2, disk_percent: 56.1, status: 'ONLINE',
  }
  return `event: heartbeat\ndata: ${JSON.stringify({ nodes: [node] })}\n\n`
}

function publish(events, rate) {
  const started = performance.now()
  let made = 0
  const tick = () => {
    const due = Math.min(events, Math.floor((performance.now() - started) / 1000 * rate))
    for (; made < due; made++) pending.push(event(made))
    if (made < events) setTimeout(tick, 1000 / rate)
  }
  tick()
}

setInterval(() => {
  if (!pending.length) return
  const data = Buffer.from(pending.join(''))
  pending = []
  for (const viewer of viewers) viewer.write(data)
}, COALESCE_MS)

http.createServer((request, response) => {
  const url = new URL(request.url, 'http://127.0.0.1')
  if (url.pathname === '/start') {
    publish(Number(url.searchParams.get('events')), Number(url.searchParams.get('rate')))
    return response.end('ok')
  }
  if (url.pathname !== '/stream') return response.writeHead(404).end()
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
  response.write(': ok\n\nevent: snapshot\ndata: {"nodes":[]}\n\n')
  viewers.add(response)
  response.on('close', () => viewers.delete(response))
}).listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 2048 })
