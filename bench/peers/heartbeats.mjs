// The heartbeat as a good Fastify service would take it: token by prefix, digest compared, the node's row and one row
// of history, answered after COMMIT. /one does it in one statement, /three in three within a transaction.
import crypto from 'node:crypto'
import Fastify from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.POOL || 8) })
const app = Fastify({ logger: false })
const percent = { type: ['number', 'null'], minimum: 0, maximum: 100 }
const amount = { type: 'number', minimum: 0, maximum: 1e18 }
const schema = {
  body: {
    type: 'object',
    additionalProperties: false,
    required: ['node_id', 'agent_version', 'interval_seconds', 'metrics'],
    properties: {
      node_id: { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' },
      agent_version: { type: 'string', minLength: 1, maxLength: 40 },
      interval_seconds: { type: 'integer', minimum: 1, maximum: 86400 },
      sent_at: { type: 'string', maxLength: 40 },
      machine_id: { type: 'string', maxLength: 64 },
      instance_id: { type: 'string', maxLength: 64 },
      beat: { type: 'integer', minimum: 0 },
      metrics: {
        type: 'object',
        additionalProperties: false,
        required: ['cpu_percent', 'memory_percent', 'disk_percent'],
        properties: {
          cpu_percent: percent, memory_percent: percent, disk_percent: percent, swap_percent: percent,
          load_1: amount, load_5: amount, load_15: amount, memory_total_bytes: amount, disk_total_bytes: amount,
          net_rx_bps: amount, net_tx_bps: amount, disk_read_bps: amount, disk_write_bps: amount,
          processes: amount, uptime_seconds: amount,
        },
      },
    },
  },
  response: { 202: { type: 'object', properties: { server_time: { type: 'string' }, work_waiting: { type: 'boolean' } } } },
}

const SET = (first) => {
  const p = (n) => `$${first + n}`
  return `last_seen_at = now(), first_seen_at = COALESCE(first_seen_at, now()), cpu_percent = ${p(0)}, memory_percent = ${p(1)},
    disk_percent = ${p(2)}, metrics = ${p(3)}::jsonb, agent_version = ${p(4)}, interval_seconds = ${p(5)},
    clock_offset_seconds = extract(epoch FROM ${p(6)}::timestamptz - now()), machine_id = ${p(7)}, instance_id = ${p(8)}, beat = ${p(9)}`
}
const HISTORY = 'INSERT INTO nodes_heartbeat (node, at, cpu_percent, memory_percent, disk_percent, load_1, net_rx_bps, net_tx_bps)'
const USABLE = 'revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())'
const ONE = {
  name: 'one',
  text: `WITH t AS (SELECT node_pk FROM tokens_nodetoken WHERE prefix = $1 AND digest = $2 AND node_id = $3 AND ${USABLE}),
    n AS (UPDATE nodes_node SET ${SET(4)} FROM t WHERE nodes_node.id = t.node_pk AND removed_at IS NULL RETURNING nodes_node.id)
    ${HISTORY} SELECT id, clock_timestamp(), $4::float8, $5::float8, $6::float8, $14::float8, $15::float8, $16::float8 FROM n RETURNING at`,
}
const TOKEN = { name: 'token', text: `SELECT digest, node_pk, node_id FROM tokens_nodetoken WHERE prefix = $1 AND ${USABLE}` }
const NODE = { name: 'node', text: `UPDATE nodes_node SET ${SET(2)} WHERE id = $1 AND removed_at IS NULL RETURNING id` }
const ROW = { name: 'row', text: `${HISTORY} VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7) RETURNING at` }

const sha256 = (text) => crypto.createHash('sha256').update(text).digest()
const bearer = (request) => {
  const text = request.headers.authorization || ''
  return text.startsWith('Bearer hbnt_') ? text.slice(7) : null
}
const state = (b) => [
  b.metrics.cpu_percent, b.metrics.memory_percent, b.metrics.disk_percent, JSON.stringify(b.metrics), b.agent_version,
  b.interval_seconds, b.sent_at, b.machine_id, b.instance_id, b.beat,
]
const rest = (m) => [m.load_1, m.net_rx_bps, m.net_tx_bps]
const accepted = (reply, at) => { reply.code(202); return { server_time: at.toISOString(), work_waiting: false } }

app.post('/one', { schema }, async (request, reply) => {
  const token = bearer(request)
  if (!token) return reply.code(401).send()
  const b = request.body
  const values = [token.slice(5, 13), sha256(token), b.node_id, ...state(b), ...rest(b.metrics)]
  const { rows } = await pool.query({ ...ONE, values })
  return rows.length ? accepted(reply, rows[0].at) : reply.code(401).send()
})

app.post('/three', { schema }, async (request, reply) => {
  const token = bearer(request)
  if (!token) return reply.code(401).send()
  const b = request.body, m = b.metrics, digest = sha256(token)
  const client = await pool.connect()
  try {
    const { rows } = await client.query({ ...TOKEN, values: [token.slice(5, 13)] })
    const found = rows.find((row) => crypto.timingSafeEqual(row.digest, digest))
    if (!found || found.node_id !== b.node_id) return reply.code(401).send()
    await client.query('BEGIN')
    await client.query({ ...NODE, values: [found.node_pk, ...state(b)] })
    const kept = await client.query({ ...ROW, values: [found.node_pk, m.cpu_percent, m.memory_percent, m.disk_percent, ...rest(m)] })
    await client.query('COMMIT')
    return accepted(reply, kept.rows[0].at)
  } finally {
    client.release()
  }
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
console.log('ready')
